"""Lines of a dump read once more: as the objects that their producer wrote, or as records in their place.

Objects have nothing replaced in them (NUL, NaN, lone surrogates); they are for texts in the producers' own wording.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice

from django.conf import settings

from auditweb import formats
from auditweb.dumps import store
from auditweb.dumps.models import Dump
from auditweb.dumps.sinks import Placed
from auditweb.formats.clock import Clock
from auditweb.formats.record import BadLine


def objects(dump: Dump, numbers: Iterable[int], format_name: str) -> Iterator[dict]:
    """The objects of the lines with *numbers* (rising; lines that became records) that have the format."""
    wanted = iter(numbers)
    number = next(wanted, None)
    offset = None if number is None else store.offset_of(dump, number)
    if number is None or offset is None:
        return
    for line in store.lines(dump, offset, number):
        if number is None:
            return
        if line.number < number:
            continue
        if line.raw is not None:
            obj = json.loads(line.raw.decode("utf-8-sig").strip("\0 \t\r\n"))
            if _format_of(obj) == format_name:
                yield obj
        while number is not None and number <= line.number:
            number = next(wanted, None)


def placed(dump: Dump, last: int | None = None) -> Iterator[Placed]:
    """All records of *dump* up to line *last*, in file order, with the times that its present zone and offset give."""
    clock = Clock(dump.zone, dump.offset_ms)
    for line in islice(store.lines(dump), last):
        with contextlib.suppress(BadLine):
            for record in formats.read_line(line.raw or b"", line.number == 1, settings.MAX_LINE_BYTES) or ():
                yield Placed(line.number, record, *clock.place(record))


def _format_of(obj: dict) -> str:
    return next(name for name, matches, _ in formats.FORMATS if matches(obj))
