"""auditweb: timelines of what AI agents and voice agents did, from their audit dumps and live."""

__version__ = "0.1.0"
