"""Doorbell and catch-up: whoever watches a log hears that it grew, and reads on from where they stand.

``bell`` is how a commit becomes known, ``hub`` reads what grew once for all readers of a process, ``consumer`` is their
socket, ``presence`` says who else is there.
"""

from auditweb.live.bell import announce, key_of, tell

__all__ = ["announce", "key_of", "tell"]
