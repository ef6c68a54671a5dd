"""What a feed says beside its entries: what belongs together, how long it waits, and where it stands in the lanes."""

from datetime import datetime
from itertools import islice

from auditweb.log import entry_id
from status_app import feed, lanes
from status_app.lanes import LEVELS
from status_app.models import StatusBus

MOST = 200  # entries that others end, or that came, in one answer


def tell(bus: StatusBus, shown: list, news: list, now: datetime | None, address: str) -> dict:
    """What the templates of a feed need of the entries *shown* and of *news*, those that came since it was drawn.

    ``entries``: the shown ones with what is said of each; ``news`` likewise, and the entries that they end; ``lanes``:
    the shown ones drawn; ``again`` were delegated again too soon, among ``looked_at`` entries.

    *now*: the log goes on (None: it does not). *address*: of its whole feed, for links to what is not shown.
    """
    posts = feed.posts(bus, min((entry.sort_us for entry in shown), default=None))
    ties = lanes.tie(posts)
    ended = {tie.seq for entry in news for tie in ties.began.get(entry.seq, [])} - {entry.seq for entry in news}
    keys = [entry_id(bus.pk, seq) for seq in islice(ended, MOST)]
    touched = list(bus.entries.filter(pk__in=keys).select_related("dump")) if keys else []
    here = {entry.seq for entry in (shown or news)}
    for entry in (*shown, *news, *touched):
        _decorate(entry, ties, here, address, now)
    by_time = sorted(shown, key=lambda entry: (entry.sort_us, entry.dump_id, entry.line))
    drawn = [lanes.Post(entry.seq, entry.at_us, entry.agent, entry.action, entry.status) for entry in by_time]
    return {
        "entries": shown,
        "news": [*news, *touched],
        "lanes": lanes.draw(drawn, ties, round(now.timestamp() * 1e6) if now else None),
        "again": len(ties.again),
        "looked_at": len(posts),
    }


def _decorate(entry, ties: lanes.Ties, here: set[int], address: str, now: datetime | None) -> None:
    """Add what the template says of *entry*: ``icon``, ``css``, and the entries that it belongs to.

    ``end`` of a pending one is (href, status, seconds), ``begun`` what it ends [(href, seconds)], ``again`` what was
    completed just before it (href, seconds). Pending without an end: it ``waits`` in a log that goes on *now*, for
    ``waited`` seconds since ``since_ms``; in one that does not (None) it is ``left_open``. *here*: the seqs on this
    page; *address*: the address at which the others can be asked for.
    """
    entry.icon = LEVELS.get(entry.status, "·")
    entry.css = entry.status if entry.status in LEVELS else "other"

    def link(tie: lanes.Tie) -> str:
        page = "" if tie.seq in here else f"{address}{'&' if '?' in address else '?'}at={tie.seq}"
        return f"{page}#e{tie.seq}"

    end = ties.ended.get(entry.seq)
    entry.end = end and (link(end), end.status, _seconds(end))
    entry.begun = [(link(tie), _seconds(tie)) for tie in ties.began.get(entry.seq, [])]
    again = ties.again.get(entry.seq)
    entry.again = again and (link(again), _seconds(again))
    pending = entry.status == "pending" and end is None
    entry.waits, entry.left_open = pending and now is not None, pending and now is None
    entry.waited = entry.since_ms = None
    if now is not None and entry.at_us is not None:
        entry.since_ms = entry.at_us // 1000
        entry.waited = max(0, now.timestamp() - entry.at_us / 1e6)


def _seconds(tie: lanes.Tie) -> float | None:
    return None if tie.ms is None else tie.ms / 1000
