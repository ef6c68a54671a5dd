"""Lines of a dump as the objects that their producer wrote, with nothing replaced in them (NUL, NaN, lone surrogates).

For texts in the producers' own wording; everything else reads Records.
"""

import json
from collections.abc import Iterable, Iterator

from auditweb import formats
from auditweb.dumps import store
from auditweb.dumps.models import Dump


def objects(dump: Dump, numbers: Iterable[int], format_name: str) -> Iterator[dict]:
    """The objects of the lines with *numbers* (rising; lines that became records) that have the format."""
    wanted = iter(numbers)
    number = next(wanted, None)
    for line in store.lines(dump):
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


def _format_of(obj: dict) -> str:
    return next(name for name, matches, _ in formats.FORMATS if matches(obj))
