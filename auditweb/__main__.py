"""``python -m auditweb COMMAND``, ``auditweb COMMAND`` and manage.py: settings that cannot be are one sentence."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditweb.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as e:
        sys.exit(f"auditweb: {e}")


if __name__ == "__main__":
    main()
