"""The agent runs of a session as a tree, and the tasks and observations of a room.

A run is written when it has ended, so callees come before their callers, and one that never ended leaves no line. What
a run belongs to is therefore found when it is asked for, from the ids of all runs: the same however they arrived.
"""

from auditweb.formats.agent_framework import caller_missing, parent_of
from auditweb.log import id_range
from auditweb.pages import iso
from sessions_app import calls
from sessions_app.models import AgentRun, Event, Observation, Session, Task

MAX_RUNS = 20_000  # in one tree; a session of more is cut there and says so


def tree(session: Session) -> dict:
    """``{runs, total}``: the runs of *session* so that each comes after its caller, and how many there are.

    A run: ``{seq, run_id, agent, caller, decision, started_at, parent, depth, children, missing}``. ``parent`` is the
    place in this list of the run that called it, null for a root; ``children`` counts its own. ``missing`` is true for
    a caller that left no line: such a run has only its id, and no seq.
    """
    found = list(AgentRun.objects.filter(id__range=id_range(session.pk)).order_by("id")[:MAX_RUNS])
    by_id: dict[str, list[AgentRun]] = {}
    for run in found:
        by_id.setdefault(run.run_id, []).append(run)
    children: dict[object, list] = {}
    missing: dict[str, None] = {}
    for run in found:
        caller = parent_of(run.run_id, by_id)
        ghost = None if caller else caller_missing(run.run_id, run.caller or None, by_id)
        above = _caller_of(run, by_id[caller]).id if caller else ghost
        children.setdefault(above, []).append(run)
        while ghost is not None and ghost not in missing:
            missing[ghost] = None
            caller = parent_of(ghost, by_id)
            above = by_id[caller][-1].id if caller else caller_missing(ghost, "", by_id)
            children.setdefault(above, []).append(ghost)
            ghost = above if isinstance(above, str) else None
    rows: list[dict] = []
    # Depth by an own stack: a hand-made id may have any number of dots.
    stack: list[tuple] = [(one, None, 0) for one in reversed(_in_time(children.get(None, []), children))]
    while stack:
        one, parent, depth = stack.pop()
        key = one if isinstance(one, str) else one.id
        below = _in_time(children.get(key, []), children)
        place = len(rows)
        rows.append(_row(one, parent, depth, len(below)))
        stack += [(child, place, depth + 1) for child in reversed(below)]
    return {"runs": rows, "total": session.run_count}


def _caller_of(run: AgentRun, candidates: list[AgentRun]) -> AgentRun:
    """Of the runs with the id of its caller: the first that ended after *run* did, else the last."""
    return next((c for c in candidates if c.id > run.id), candidates[-1])


def _in_time(nodes: list, children: dict) -> list:
    """*nodes* by when they began; a run that left no line by the first of those that it called."""

    def began(node) -> tuple:
        if isinstance(node, str):
            return min((began(child) for child in children.get(node, [])), default=(True, 0, 0))
        return (node.started_us is None, node.started_us or 0, node.id)

    return sorted(nodes, key=began)


def _row(one, parent: int | None, depth: int, children: int) -> dict:
    gone = isinstance(one, str)
    return {
        "seq": None if gone else one.seq,
        "run_id": one if gone else one.run_id,
        "agent": one.rsplit(".", 1)[-1] if gone else one.agent,
        "caller": "" if gone else one.caller,
        "decision": "" if gone else one.decision,
        "started_at": None if gone else iso(one.started_us),
        "parent": parent,
        "depth": depth,
        "children": children,
        "missing": gone,
    }


def tasks(session: Session, status: str = "") -> list[dict]:
    """The tasks of *session* as RoomKit's ``list_tasks`` gives them, each as its latest line tells it, oldest first."""
    latest: dict[str, Task] = {}
    for task in Task.objects.filter(id__range=id_range(session.pk)).order_by("id"):
        latest[task.task_id] = task
    shown = [task for task in latest.values() if not status or task.status == status]
    extras = _extras([task.id for task in shown])
    return [
        {
            "id": task.task_id,
            "title": task.title,
            "description": extras[task.id].get("description", ""),
            "status": task.status,
            "assigned_to": task.assigned_to or None,
            "created_at": iso(task.created_us),
            "metadata": extras[task.id].get("metadata", {}),
            "seq": task.seq,
        }
        for task in shown
    ]


def _extras(ids: list[int]) -> dict[int, dict]:
    """What has no column of the events with these keys, each part as the JSON that it was."""
    found: dict[int, dict] = {pk: {} for pk in ids}
    for start in range(0, len(ids), 500):  # parameters of one statement; SQLite before 3.32 takes 999
        rows = Event.objects.filter(pk__in=ids[start : start + 500]).values_list("id", "extra")
        found.update((pk, calls.extra_parts(extra)) for pk, extra in rows)
    return found


def observations(session: Session) -> list[dict]:
    """What channels noticed in *session* as RoomKit's ``list_observations`` gives it, oldest first."""
    found = list(Observation.objects.filter(id__range=id_range(session.pk)).order_by("id"))
    extras = _extras([seen.id for seen in found])
    return [
        {
            "channel_id": seen.channel,
            "content": seen.content,
            "category": seen.category,
            "confidence": seen.confidence,
            "created_at": iso(seen.created_us),
            "metadata": extras[seen.id].get("metadata", {}),
            "seq": seen.seq,
        }
        for seen in found
    ]
