"""The events of one tool call find each other: decisions, attempt, outcome. Pure: no database.

Most producers give calls no ids. Then an outcome belongs to the oldest open attempt of the same turn, agent and tool;
what was decided before an attempt belongs to it, and a call that was refused has an outcome without an attempt. Feed it
the events of a session in display order. What waits for its other half is bounded, so that a producer that never ends
anything costs no more than others.
"""

from collections.abc import Iterator

# The producers' words for the stages of a call. Tool events with other words are calls of one line.
STAGES = {
    "tool_call_attempt": "attempt",
    "tool_call_start": "attempt",
    "event:tool_call": "attempt",
    "tool_policy_decision": "policy",
    "sandbox_decision": "sandbox",
    "permission_request": "permission",
    "hook_mutation": "hook",
    "tool_loop_warning": "loop",
    "tool_loop_block": "loop",
    "tool_call_complete": "result",
    "tool_call_failure": "result",
    "tool_call_end": "result",
    "event:tool_result": "result",
    "event:tool_error": "result",
}
MAX_WAITING = 1000  # attempts, and decisions, that wait at a time; of more the oldest is given up and stays alone
REFUSED = frozenset({"denied", "blocked"})  # outcomes of calls that were never attempted


class Chains:
    """Which call each event of a session belongs to. ``state`` is what ``state()`` gave, to go on exactly there.

    Calls are named by the seq of their first main event: the attempt, else the outcome.
    """

    def __init__(self, state: dict | None = None):
        state = state or {}
        self._open: dict[str, list[list]] = state.get("open", {})  # key → [[seq of the attempt, stages it has], …]
        self._waiting: dict[str, list[list]] = state.get("waiting", {})  # key → [[seq, stage], …] for the next attempt
        self._ended: dict[str, int] = state.get("ended", {})  # key → seq of the call that ended last
        self._asked: dict[str, list] = state.get("asked", {})  # tool → [run, [seqs of its calls without a permission]]

    def state(self) -> dict:
        """What later Chains need to go on as if there had been no break; JSON-able, {} when nothing waits."""
        parts = {"open": self._open, "waiting": self._waiting, "ended": self._ended, "asked": self._asked}
        return {name: part for name, part in parts.items() if part}

    def attempt(self, key: str, seq: int) -> list[tuple[int, str]]:
        """A call begins: (seq, stage) of all its events so far, the attempt last."""
        self._open.setdefault(key, []).append([seq, ""])
        _bound(self._open)
        return [*self._take_waiting(key), (seq, "attempt")]

    def result(self, key: str, seq: int, status: str, hooked: bool) -> tuple[int, list[tuple[int, str]]]:
        """(seq of the call that ends, (seq, stage) of what joins it); the call is *seq* when it had no attempt.

        *hooked*: its producer may write of a hook on the result afterwards.
        """
        calls = self._open.get(key)
        refused = status in REFUSED and key in self._waiting
        if calls and not refused:
            call = calls.pop(0)[0]
            if not calls:
                del self._open[key]
            joining = [(seq, "result")]
        else:
            call = seq
            joining = [*self._take_waiting(key), (seq, "result")]
        if hooked:
            self._ended.pop(key, None)
            self._ended[key] = call
            if len(self._ended) > MAX_WAITING:
                del self._ended[next(iter(self._ended))]
        return call, joining

    def decision(self, key: str, seq: int, stage: str, after: bool) -> int | None:
        """The call that a decision joins at once; None when it waits for the next attempt of its *key*.

        *after*: it was taken when the call had begun, as for a sandbox or a hook on the result.
        """
        if after:
            for call in self._open.get(key, ()):
                if stage not in call[1]:
                    call[1] += stage + " "
                    return call[0]
            if stage == "hook":
                return self._ended.get(key)
        self._waiting.setdefault(key, []).append([seq, stage])
        _bound(self._waiting)
        return None

    def may_be_asked(self, tool: str, run: str, call: int) -> None:
        """A call of *run* for which a permission may be asked: its line is stamped before the request."""
        asked = self._asked.pop(tool, None)
        if asked is None or asked[0] != run:
            asked = [run, []]
        if len(asked[1]) < MAX_WAITING:
            asked[1].append(call)
        self._asked[tool] = asked
        if len(self._asked) > MAX_WAITING:
            del self._asked[next(iter(self._asked))]

    def permission(self, tool: str) -> int | None:
        """The call that a request for *tool* was about: the oldest of the latest run that has none yet."""
        asked = self._asked.get(tool)
        if asked is None or not asked[1]:
            return None
        call = asked[1].pop(0)
        if not asked[1]:
            del self._asked[tool]
        return call

    def turn_ended(self, prefix: str) -> None:
        """No hook of the turn whose keys begin with *prefix* comes any more."""
        for key in [k for k in self._ended if k.startswith(prefix)]:
            del self._ended[key]

    def _take_waiting(self, key: str) -> Iterator[tuple[int, str]]:
        return ((seq, stage) for seq, stage in self._waiting.pop(key, ()))


def key_of(ref: str, agent: str, tool: str) -> str:
    """What the events of one call have in common. Names hold no newline that would matter: keys are only compared."""
    return f"{ref}\n{agent}\n{tool}"


def _bound(waiting: dict[str, list]) -> None:
    if len(waiting) <= MAX_WAITING // 10 and sum(map(len, waiting.values())) <= MAX_WAITING:
        return
    while sum(map(len, waiting.values())) > MAX_WAITING:
        oldest = next(iter(waiting))
        waiting[oldest].pop(0)
        if not waiting[oldest]:
            del waiting[oldest]
