"""What agents did, by their posts: which entry ended which pending one, what was delegated again too soon, and where
each stands in the lane of its agent. Pure: entries in, numbers out.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

# The five levels of the producers: icon (theirs) and word. Any other word is shown as it is.
LEVELS = {"ok": "+", "failed": "x", "pending": "?", "info": "~", "completed": "*"}
ENDS = frozenset({"ok", "failed", "completed"})
GUARD_US = 5_000_000  # RoomKit's documented guard: nothing is delegated again so soon after it was completed
MOST_LANES = 12  # agents with a lane of their own; the others share the last one
LANE = 28  # pixels
EDGE = 1.5  # percent at both sides, so that no mark is cut
SHORTEST_US = 10_000_000  # the axis of a few posts in one moment


class Post(NamedTuple):
    """An entry as far as this module needs it; *task* is what its producer calls the task, if it does."""

    seq: int
    at_us: int | None
    agent: str
    action: str
    status: str
    task: str = ""


class Tie(NamedTuple):
    """The entry at the other end; *status* is that of the end, *ms* the time between them (None: one is unknown)."""

    seq: int
    status: str
    ms: float | None


class Ties(NamedTuple):
    """``ended``: pending entry → its end. ``began``: end → the pending entries that it ended. ``again``: entry that
    delegates to an agent → what that agent had completed within GUARD_US before."""

    ended: dict[int, Tie]
    began: dict[int, list[Tie]]
    again: dict[int, Tie]


def tie(posts: Iterable[Post]) -> Ties:
    """How *posts* (in order of time) belong together.

    A pending entry ends with the next ok, failed or completed of the same agent and action, and of the same task where
    both name one; several that are pending end together.
    """
    ties = Ties({}, {}, {})
    waiting: dict[tuple[str, str], list[Post]] = {}
    completed: dict[str, Post] = {}
    for post in posts:
        work = (post.agent, post.action)
        if post.status == "pending":
            waiting.setdefault(work, []).append(post)
            if before := completed.get(post.agent):
                ms = _between(before, post)
                if ms is not None and 0 <= ms * 1000 <= GUARD_US:
                    ties.again[post.seq] = Tie(before.seq, "completed", ms)
        elif post.status in ENDS:
            open_ones = waiting.get(work, [])
            over = _over(open_ones, post.task)
            for begun in over:
                ms = _between(begun, post)
                ties.ended[begun.seq] = Tie(post.seq, post.status, ms)
                ties.began.setdefault(post.seq, []).append(Tie(begun.seq, post.status, ms))
            waiting[work] = [one for one in open_ones if one not in over]
        if post.status == "completed":
            completed[post.agent] = post
    return ties


def _over(waiting: Sequence[Post], task: str) -> list[Post]:
    """Which of *waiting* an end of *task* ends."""
    same = [post for post in waiting if post.task == task]
    if task:
        return same or [post for post in waiting if not post.task]
    return list(waiting)


def _between(first: Post, second: Post) -> float | None:
    if first.at_us is None or second.at_us is None:
        return None
    return (second.at_us - first.at_us) / 1000


class Mark(NamedTuple):
    """An entry in a lane: *x* is a percentage as SVG takes it; *css* the level, or "other"."""

    post: Post
    x: str
    icon: str
    css: str
    again: bool


class Bar(NamedTuple):
    """Some time in a lane, from *x* to *end*, *width* between them; ``open``: it goes on."""

    x: str
    end: str
    width: str
    open: bool


class Lane(NamedTuple):
    """The posts of one agent (None: of all that have no lane of their own), ``y`` pixels from the top.

    ``waits`` lie between a pending entry and its end, ``shadows`` GUARD_US behind a completed one.
    """

    agent: str | None
    y: int
    middle: int
    marks: list[Mark]
    waits: list[Bar]
    shadows: list[Bar]


class Lanes(NamedTuple):
    lanes: list[Lane]
    height: int
    first_us: int
    last_us: int
    untimed: int  # posts without a readable time, which are not drawn


def draw(posts: Sequence[Post], ties: Ties, now_us: int | None = None) -> Lanes | None:
    """The lanes of *posts*, the busiest agents first; None when no time is readable.

    *now_us*: the log goes on, so what is pending reaches until now.
    """
    timed = [(post, post.at_us) for post in posts if post.at_us is not None]
    if not timed:
        return None
    at = {post.seq: us for post, us in timed}
    first, last = min(at.values()), max(at.values())
    pending = [post for post, _ in timed if post.status == "pending" and post.seq not in ties.ended]
    if now_us is not None and pending:
        last = max(last, now_us)
    last = max(last, first + SHORTEST_US)

    def x(us: int) -> float:
        return EDGE + (100 - 2 * EDGE) * min(1, (us - first) / (last - first))

    def bar(start: int, end: int, is_open: bool = False) -> Bar:
        return Bar(_percent(x(start)), _percent(x(end)), _percent(x(end) - x(start)), is_open)

    numbers: dict[str, int] = {}
    for post, _ in timed:
        numbers[post.agent] = numbers.get(post.agent, 0) + 1
    agents: list[str | None] = [*sorted(numbers, key=lambda agent: (-numbers[agent], agent))]
    if len(agents) > MOST_LANES:
        agents = [*agents[: MOST_LANES - 1], None]
    lanes = {agent: Lane(agent, i * LANE, i * LANE + LANE // 2, [], [], []) for i, agent in enumerate(agents)}
    dark: dict[int, list[tuple[int, int]]] = {}
    for post, us in timed:
        lane = lanes.get(post.agent) or lanes[None]
        css = post.status if post.status in LEVELS else "other"
        lane.marks.append(Mark(post, _percent(x(us)), LEVELS.get(post.status, "·"), css, post.seq in ties.again))
        if post.status == "completed":
            shadows = dark.setdefault(lane.y, [])
            # One shadow: two above each other would look darker.
            start = shadows.pop()[0] if shadows and us <= shadows[-1][1] else us
            shadows.append((start, us + GUARD_US))
        elif post.status == "pending":
            end = ties.ended.get(post.seq)
            if end and end.ms is not None and end.ms >= 0:
                lane.waits.append(bar(us, us + round(end.ms * 1000)))
            elif not end and now_us is not None:
                lane.waits.append(bar(us, last, True))
    for lane in lanes.values():
        lane.shadows.extend(bar(start, end) for start, end in dark.get(lane.y, ()))
    return Lanes(list(lanes.values()), len(lanes) * LANE, first, last, len(posts) - len(timed))


def _percent(number: float) -> str:
    return f"{number:.3f}%"
