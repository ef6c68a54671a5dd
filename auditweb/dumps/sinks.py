"""What other apps do with the records of a dump. This app knows none of them: they register when they are ready."""

from typing import Protocol

import msgspec

from auditweb.dumps.models import Dump
from auditweb.formats.record import Record


class Placed(msgspec.Struct, gc=False):  # made in half the time of a tuple with names
    """A record with its line and its place in time (see formats.clock)."""

    line: int
    record: Record
    at_us: int | None
    sort_us: int
    quality: str


LOGS = 20  # the newest logs of a dump that its producer is told


def feeds(state: dict, public_id: str) -> None:
    """Note in the *state* of a sink that its dump feeds the log *public_id*; the newest come first."""
    state["logs"] = [public_id, *(one for one in state.get("logs", ()) if one != public_id)][:LOGS]


class Sink(Protocol):
    """One reader of records. ``store`` runs in the transaction of a batch; its *state* commits with the rows."""

    name: str
    order: int  # sinks lock their logs in this order: the session before the bus

    def store(self, dump: Dump, batch: list[Placed], state: dict) -> int:
        """Store what this sink keeps of *batch* (file order) and move *state* (JSON-able); events created.

        ``state["logs"]``: public ids of the logs that the dump feeds, as far as its producer is told them.
        """

    def late(self, dump: Dump, batch: list[Placed]) -> int:
        """Store records of lines that could not be read when their neighbours were stored; in a transaction, which
        ends with ``retime``. Events created."""

    def retime(self, dump: Dump) -> None:
        """Compute the times of all that came from *dump* again, after its zone, offset or stamp rule changed."""

    def settle(self, dump: Dump) -> None:
        """The last line was stored: bring in order what came out of order. In the transaction that ends the import."""

    def finish(self, dump: Dump) -> None:
        """The last line was stored and committed: summaries may be made."""

    def heard(self, dump: Dump) -> None:
        """The producer of the stream *dump* is there and has nothing to say; in a transaction."""

    def said(self, dump: Dump, role: str, text: str) -> None:
        """*text* is what *role* has said so far of an utterance that is not over; in a transaction. Nothing is kept."""

    def ended(self, dump: Dump) -> None:
        """The stream *dump* has ended (its state is that already); in the transaction that ends it."""

    def forget(self, dump: Dump, keep: bool = False) -> None:
        """Remove all that came from *dump*; in a transaction. *keep*: it is imported again at once, so the logs
        themselves stay, empty, and their addresses too."""


_sinks: list[Sink] = []


def register(sink: Sink) -> None:
    _sinks[:] = sorted([s for s in _sinks if s.name != sink.name] + [sink], key=lambda s: s.order)


def all_sinks() -> list[Sink]:
    return list(_sinks)
