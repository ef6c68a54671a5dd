"""What agents post, as numbered lines of a growing dump: whoever posts again after a lost answer doubles nothing.

Keeps for itself which stream a post goes to, and what makes two requests the same one: their numbers, or their key.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import msgspec
from django.db import transaction
from django.utils import timezone

from auditweb.dumps import store, streams
from auditweb.dumps.models import Dump
from auditweb.log import seq_of
from auditweb.teams.models import Team, User
from status_app.models import PostKey

MOST = 1000  # posts in one request
KEY_LENGTH = 200
KEYS_KEPT = timedelta(hours=24)
STREAM = "status:"

_STAMP = '{"ts": "%s", '
_STAMPED = len(_STAMP % datetime.now(UTC).isoformat(timespec="microseconds"))


class BadPost(Exception):
    """A body that holds no posts; the message names the line and what is wrong."""


class KeyUsed(store.Refused):
    """Another body came with the same key."""


class OtherBus(store.Refused):
    """The stream was made for another status log."""


class Posted(NamedTuple):
    """What became of posts. *entries*: ``{seq, ts}`` of each in their order; *duplicates* of them were here before."""

    dump: Dump
    through: int
    duplicates: int
    entries: list[dict]


class _Post(msgspec.Struct, forbid_unknown_fields=True):  # a line with other keys might be one of another format
    agent_id: str
    action: str
    status: Annotated[str, msgspec.Meta(min_length=1)]
    ts: str | msgspec.UnsetType = msgspec.UNSET
    detail: str = ""
    metadata: dict = {}


_read = msgspec.json.Decoder(_Post).decode


class Line(NamedTuple):
    """A post as a line: as it came, or with a stamp in front when it came without one."""

    text: bytes
    stamped: bool


def read(body: bytes, now: datetime | None = None) -> list[Line]:
    """The posts in *body*: one object ``{ts?, agent_id, action, status, detail?, metadata?}``, or up to MOST as NDJSON.

    A post without ``ts`` gets the present time, in the form in which RoomKit stamps its own. Raises BadPost.
    """
    stamp = (_STAMP % (now or datetime.now(UTC)).isoformat(timespec="microseconds")).encode()
    lines = [line.strip() for line in body.strip().split(b"\n")]
    if len(lines) > 1:
        try:
            _read(body)
            lines = [b" ".join(lines)]  # one object on several lines
        except (ValueError, RecursionError):
            pass
    if len(lines) > MOST:
        raise BadPost(f"One request takes {MOST:,} posts.")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            stamped = _read(line).ts is msgspec.UNSET
        except (ValueError, RecursionError) as e:
            raise BadPost(f"Line {number} is no status entry: {e}.") from e
        found.append(Line(stamp + line[1:].lstrip() if stamped else line, stamped))
    return found


def stream_name(bus: str, producer: str = "") -> str:
    """The stream of posts to the bus of this name; each producer that numbers its posts has its own."""
    parts = [bus, producer] if producer else [bus]
    return STREAM + ":".join(part.replace("%", "%25").replace(":", "%3A") for part in parts)


def append(
    team: Team, bus: str, producer: str, posts: Sequence[Line], user: User | None = None, title: str = ""
) -> Posted:
    """Put *posts* on the bus named *bus* of *team*, which is made when it is missing. Committed when this returns.

    *producer*: whose stream they go to, "" for the one that all others share. Raises as `streams.open` and
    `streams.append` do, and OtherBus.
    """
    taken = streams.append(_open(team, bus, producer, user, title), None, [post.text for post in posts])
    return Posted(taken.dump, taken.through, 0, _entries(taken.dump, taken.through - len(posts) + 1, taken.through))


def append_numbered(
    team: Team, bus: str, producer: str, first: int, posts: Sequence[Line], user: User | None = None, title: str = ""
) -> Posted:
    """The same for a *producer* that numbers its posts, from *first* on; those that are here already are skipped.

    What was stamped here on arrival keeps its first stamp. Raises Gap, Differs.
    """
    dump = _open(team, bus, producer, user, title)
    lines = _as_stored(dump, first, posts)
    while True:
        try:
            taken = streams.append(dump, first, lines)
            break
        except streams.Differs:
            # The same request may have come twice at once: its first stamp is stored by now.
            before, lines = lines, _as_stored(dump, first, posts)
            if lines == before:
                raise
    return Posted(taken.dump, taken.through, taken.duplicates, _entries(taken.dump, first, first + len(posts) - 1))


def append_once(
    team: Team, bus: str, producer: str, key: str, body: bytes, posts: Sequence[Line], user: User | None = None,
    title: str = "",
) -> Posted:  # fmt: skip
    """The same for the *posts* of a *body* with an idempotency key: only the first time it does anything.

    A key is remembered for KEYS_KEPT. Raises KeyUsed when it came with another body.
    """
    dump = _open(team, bus, producer, user, title)
    digest = hashlib.sha256(body).hexdigest()
    known: list[PostKey] = []

    def choose(tail: streams.Tail) -> list[bytes]:
        known.extend(PostKey.objects.filter(dump=dump, key=key, created_at__gt=timezone.now() - KEYS_KEPT))
        if known and known[0].digest != digest:
            raise KeyUsed("another body came with this key")
        return [] if known else [post.text for post in posts]

    with transaction.atomic():
        taken = streams.append_with(dump, choose)
        if known:
            made, again = known[0], len(posts)
        else:
            first = taken.through - len(posts) + 1
            told = {"digest": digest, "first": first, "last": taken.through, "created_at": timezone.now()}
            made, again = PostKey.objects.update_or_create(dump=dump, key=key, defaults=told)[0], 0
    if not again:  # outside: nothing may wait for a lock on somebody else's key while it holds the stream
        PostKey.objects.filter(created_at__lte=timezone.now() - KEYS_KEPT).delete()
    return Posted(taken.dump, made.last, again, _entries(taken.dump, made.first, made.last))


def _open(team: Team, bus: str, producer: str, user: User | None, title: str) -> Dump:
    called = title or bus
    dump = streams.open(
        team, stream_name(bus, producer), user, bus=bus, title=f"{called} · {producer}" if producer else called
    )
    if dump.bus_name != bus:
        raise OtherBus(f"the stream {dump.stream} posts to another status log")
    return dump


def _as_stored(dump: Dump, first: int, posts: Sequence[Line]) -> list[bytes]:
    """*posts* as lines, each that was stamped here before with the stamp that it got then."""
    dump = store.present(dump)
    lines = [post.text for post in posts]
    if first > dump.lines or not any(post.stamped for post in posts):
        return lines
    offset = store.offset_of(dump, first)
    assert offset is not None
    for i, stored in zip(range(len(lines)), store.lines(dump, offset, first), strict=False):
        if posts[i].stamped and stored.raw and stored.raw[_STAMPED:] == lines[i][_STAMPED:]:
            lines[i] = stored.raw
    return lines


def _entries(dump: Dump, first: int, last: int) -> list[dict]:
    """``{seq, ts}`` of what the lines *first* to *last* of *dump* became."""
    bus = dump.status_buses.filter(name=dump.bus_name).first()
    if bus is None:
        return []
    # The newest first: they are found at the end of the log.
    rows = bus.entries.filter(dump=dump, line__range=(first, last)).order_by("-id").values_list("id", "ts_text")
    return [{"seq": seq_of(pk), "ts": ts} for pk, ts in rows[: last - first + 1]][::-1]
