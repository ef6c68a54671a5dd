"""What other apps do with the records of a dump. This app knows none of them: they register when they are ready."""

from typing import NamedTuple, Protocol

from auditweb.dumps.models import Dump
from auditweb.formats.record import Record


class Placed(NamedTuple):
    """A record with its line and its place in time (see formats.clock)."""

    line: int
    record: Record
    at_us: int | None
    sort_us: int
    quality: str


class Sink(Protocol):
    """One reader of records. ``store`` runs in the transaction of a batch; its *state* commits with the rows."""

    name: str
    order: int  # sinks lock their logs in this order: the session before the bus

    def store(self, dump: Dump, batch: list[Placed], state: dict) -> int:
        """Store what this sink keeps of *batch* (file order) and move *state* (JSON-able); events created."""

    def retime(self, dump: Dump) -> None:
        """Compute the times of all that came from *dump* again, after its zone changed."""

    def finish(self, dump: Dump) -> None:
        """The last line was stored and committed: summaries may be made."""

    def forget(self, dump: Dump) -> None:
        """Remove all that came from *dump*; in a transaction."""


_sinks: list[Sink] = []


def register(sink: Sink) -> None:
    _sinks[:] = sorted([s for s in _sinks if s.name != sink.name] + [sink], key=lambda s: s.order)


def all_sinks() -> list[Sink]:
    return list(_sinks)
