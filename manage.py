#!/usr/bin/env python
"""Django's entry point for a checkout; an installed auditweb has the command ``auditweb``."""

from auditweb.__main__ import main

if __name__ == "__main__":
    main()
