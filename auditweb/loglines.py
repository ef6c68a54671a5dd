"""What a log line may say: where and what, never a query string, a key, a sign-in link, a password or a dump's text."""

import logging
import re
import traceback

ERROR_CHARACTERS = 300  # of an exception's own words; more is rarely about the fault and often about the data

_SECRETS = [
    (re.compile(r"(/[^\s?\"'<>]*)\?[^\s\"'<>]*"), r"\1"),  # the query of an address: searches are words of transcripts
    (re.compile(r"/signin/[^/\s\"']+"), "/signin/…"),
    (re.compile(r"\bawk_[0-9a-zA-Z]+"), "awk_…"),
    (re.compile(r"\b([a-z][a-z0-9+]*://[^\s:/@]*):[^\s/@]+@"), r"\1:…@"),
    # PostgreSQL prints the row that it refused.
    (re.compile(r"(\s|\\n)+(DETAIL|CONTEXT|HINT|LINE \d+):.*", re.S), ""),
]


def clean(text: str) -> str:
    """*text* without what is nobody's business who reads logs."""
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class Formatter(logging.Formatter):
    """Lines as ``logging.Formatter`` makes them, cleaned; of an exception its type, the frames and its first line."""

    def format(self, record: logging.LogRecord) -> str:
        record = logging.makeLogRecord(record.__dict__)
        record.msg, record.args = clean(record.getMessage()), None
        record.exc_text = None  # another handler's wording of the exception
        return super().format(record)

    def formatException(self, ei) -> str:
        return "\n".join(_told(ei[1], set()))


def _told(error: BaseException | None, seen: set[int]) -> list[str]:
    if error is None or id(error) in seen:
        return []
    seen.add(id(error))
    lines: list[str] = []
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        lines = [*_told(before, seen), "which led to:"]
    frames = traceback.format_tb(error.__traceback__)
    words = clean(str(error)).partition("\n")[0][:ERROR_CHARACTERS]
    return [*lines, *(frame.rstrip("\n") for frame in frames), f"{type(error).__name__}: {words}"]
