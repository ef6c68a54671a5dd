"""How management commands write bytes."""

from collections.abc import Iterable


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
