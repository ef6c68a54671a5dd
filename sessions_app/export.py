"""A session as a file: the original bytes, JSONL, CSV, Markdown. Every form comes in pieces of bounded size.

Keeps for itself what each form needs so that the data stays data where it is opened: formulas, markup, line breaks.
"""

import csv
import io
import re
from collections.abc import Iterator

import msgspec

from auditweb.dumps import store
from auditweb.log import id_range, seq_of
from auditweb.pages import iso
from sessions_app import calls, timeline
from sessions_app.models import Event, Session

BATCH = 500  # events held at once; their texts are cut in rows, and read whole one at a time
COLUMNS = (
    "seq", "at", "ts", "ts_quality", "kind", "lane", "role", "agent", "tool", "status", "duration_ms", "text", "cut",
    "turn", "visibility", "dump", "line", "flags",
)  # fmt: skip


def original(session: Session) -> Iterator[bytes]:
    """The dumps that feed the session, byte for byte, one after another."""
    ended = True
    for dump in session.dumps.order_by("pk"):
        if not ended:
            yield b"\n"  # or the last line of one dump and the first of the next would be one
        for piece in store.pieces(dump):
            ended = piece.endswith(b"\n")
            yield piece


def jsonl(session: Session) -> Iterator[bytes]:
    """One event a line, by seq: a row of the timeline with its whole text and with ``metadata``."""
    for row, extra in _rows(session, _by_seq(session)):
        yield msgspec.json.encode(row | {"metadata": msgspec.Raw(extra.encode() or b"{}")}) + b"\n"


def csv_(session: Session) -> Iterator[bytes]:
    """A table in display order, UTF-8. A text that a spreadsheet would run as a formula begins with an apostrophe."""
    yield _csv_line(COLUMNS)
    for row, _ in _rows(session, _in_order(session)):
        row["flags"] = " ".join(row["flags"])
        yield _csv_line([_cell(row[name]) for name in COLUMNS])


def _csv_line(cells) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue().encode()


# Full-width forms count too: some spreadsheets fold them before they look.
_FORMULA = re.compile("[\\s\0]*[=+\\-@＝＋－＠\t\r\n|%]")


def _cell(value):
    if isinstance(value, str) and _FORMULA.match(value):
        return "'" + value
    return value


def markdown(session: Session) -> Iterator[bytes]:
    """The transcript in display order, to read or to paste into a document. Nothing of the data acts as markup."""
    start, end = iso(session.first_us), iso(session.last_us)
    yield f"# {_plain(session.title)}\n\n".encode()
    yield f"{session.event_count} events, {start or 'unknown'} to {end or 'unknown'} (UTC)\n".encode()
    day = None
    for row, extra in _rows(session, _in_order(session)):
        at = row["at"]
        if at and at[:10] != day:
            day = at[:10]
            yield f"\n## {day}\n".encode()
        yield _markdown_event(row, extra, at[11:19] if at else "no time").encode()


def _markdown_event(row: dict, extra: str, clock: str) -> str:
    words = [row["lane"] if row["lane"] != "other" else row["kind"], row["tool"], row["status"], row["agent"]]
    duration = f" ({row['duration_ms']:.0f} ms)" if row["duration_ms"] is not None else ""
    head = " · ".join(_plain(word) for word in words if word)
    arguments = calls.extra_parts(extra).get("arguments") if row["lane"] == "tool" else None
    parts = [f"\n**{clock}** {head}{duration}\n"]
    if arguments and bytes(arguments) not in (b"{}", b"null"):
        parts.append(_fenced(bytes(arguments).decode(), "json"))
    if row["text"]:
        if row["lane"] in ("user", "assistant"):
            parts.append("\n" + "".join(f"> {_plain(line)}\n" for line in re.split(r"\r\n|\r|\n", row["text"])))
        else:
            parts.append(_fenced(row["text"], "text"))
    return "".join(parts)


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"\n{fence}{language}\n{text}\n{fence}\n"


_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~=:&@/$^])")


def _plain(text: str) -> str:
    """*text* on one line with every character that could be markup escaped, links without a scheme included."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


FORMS = {"original": original, "jsonl": jsonl, "csv": csv_, "markdown": markdown}
_ENDINGS = {"jsonl": ".jsonl", "csv": ".csv", "markdown": ".md", "summary": ".txt"}
_TYPES = {"csv": "text/csv; charset=utf-8", "markdown": "text/plain; charset=utf-8"}


def pieces(session: Session, form: str) -> Iterator[bytes]:
    """*session* in one of FORMS. Raises ValueError for another form."""
    if form not in FORMS:
        raise ValueError(f"a session can be exported as {', '.join(FORMS)}")
    return FORMS[form](session)


def name_and_type(session: Session, form: str) -> tuple[str, str]:
    """What the file of an export is called, and its media type."""
    if form == "original":
        names = list(session.dumps.order_by("pk").values_list("name", flat=True)[:2])
        return names[0] if len(names) == 1 else f"{_file_name(session)}.jsonl", "application/octet-stream"
    kind = "text/plain; charset=utf-8" if form == "summary" else _TYPES.get(form, "application/octet-stream")
    return _file_name(session) + _ENDINGS[form], kind


def _file_name(session: Session) -> str:
    return store.clean_name(re.sub(r'[\\/:*?"<>|]', "_", session.title))[:120]


def _by_seq(session: Session) -> Iterator[int]:
    """Ids of the events by seq, some thousand at a time: no cursor stays open while a slow reader takes its time."""
    first, last = id_range(session.pk, upto=session.last_seq)
    while ids := list(
        Event.objects.filter(id__range=(first, last)).order_by("id").values_list("id", flat=True)[: 10 * BATCH]
    ):
        yield from ids
        first = ids[-1] + 1


def _in_order(session: Session) -> Iterator[int]:
    """Ids of the events in display order, read in one go (40 MB for a million), so that none moves meanwhile."""
    first, last = id_range(session.pk, upto=session.last_seq)
    ordered = Event.objects.filter(id__range=(first, last)).order_by("sort_us", "dump_id", "line", "id")
    return iter(list(ordered.values_list("id", flat=True)))


def _rows(session: Session, ids: Iterator[int]) -> Iterator[tuple[dict, str]]:
    """(row with its whole text, extra) for each of *ids*, in their order."""
    batch: list[int] = []
    for pk in ids:
        batch.append(pk)
        if len(batch) == BATCH:
            yield from _batch(session, batch)
            batch = []
    if batch:
        yield from _batch(session, batch)


def _batch(session: Session, ids: list[int]) -> Iterator[tuple[dict, str]]:
    rows = {row["seq"]: row for row in timeline.rows_by_seqs(session.pk, [seq_of(pk) for pk in ids])}
    extras = dict(Event.objects.filter(pk__in=ids).values_list("id", "extra"))
    for pk in ids:
        row = rows.pop(seq_of(pk), None)
        if row is None:
            continue  # deleted while the export ran
        if "more" in row["flags"]:
            row["text"] = Event.objects.filter(pk=pk).values_list("text", flat=True).first() or ""
            row["flags"].remove("more")
        yield row, extras.pop(pk, "")
