"""Sends the audit lines of a running agent to auditweb.

``Stream`` takes any line; ``auditweb_client.roomkit`` and ``auditweb_client.xerxes`` are drop-ins for the auditors of
those libraries, which they import, so they are imported only by name.
"""

from auditweb_client.stream import Stream

__all__ = ["Stream", "__version__"]
__version__ = "0.1.0"
