"""What management commands share: a database that is ready, and output in bytes."""

from collections.abc import Iterable

from django.core.management.base import BaseCommand

from auditweb import upkeep


class DataCommand(BaseCommand):
    """A command that works with what is stored; also the first one in an empty data directory."""

    def execute(self, *args, **options):
        upkeep.prepare()
        return super().execute(*args, **options)


def write_bytes(stdout, pieces: Iterable[bytes]) -> None:
    """Write *pieces* to a command's output as they are; an output that takes only text (in tests) gets text."""
    stdout.flush()
    raw = getattr(stdout, "buffer", None)
    for piece in pieces:
        if raw is None:
            stdout.write(piece.decode("utf-8", "replace"), ending="")
        else:
            raw.write(piece)
    stdout.flush()
