"""A drop-in for the audit collectors of Xerxes and calute; needs neither of them.

Source: xerxes/audit/collector.py; calute's is the same. Beside a file: ``CompositeCollector([jsonl, ours])``.
"""

import logging
from typing import Any

from auditweb_client.lines import encoded, lost_entry, now
from auditweb_client.stream import EXIT_SECONDS, Stream

log = logging.getLogger("auditweb_client")


class AuditCollector:
    """Takes events as ``JSONLSinkCollector`` does and sends the lines that it would write. *options* as for Stream."""

    def __init__(self, url: str | None = None, key: str | None = None, *, agent: str = "xerxes", **options: Any):
        self.stream = Stream(url, key, agent=agent, lost=_lost, **options)

    def emit(self, event: Any) -> None:
        """Have *event* sent; it is on its way when this returns."""
        try:
            self.stream.send(encoded(event.to_dict()))
        except Exception:
            log.exception("an event was not taken")

    def flush(self) -> None:
        """What was emitted is in the spool file when this returns; it waits for no server."""
        self.stream.spill()

    def close(self, timeout: float = EXIT_SECONDS) -> bool:
        """Send what is left and end the stream; whether that was done in *timeout* seconds."""
        return self.stream.close(timeout)


def _lost(count: int) -> dict[str, Any]:
    told = lost_entry(count)
    return {
        "event_type": told["type"],
        "timestamp": now(),
        "agent_id": None,
        "turn_id": None,
        "session_id": None,
        "severity": "warning",
        "metadata": {"message": told["content"], **told["metadata"]},
    }
