"""Celery entry points: they take ids and call the modules that do the work."""

import time

from auditweb.celery import app
from sessions_app import projection, summary
from sessions_app.models import Session


@app.task(name="sessions_app.tasks.summarize")
def summarize(session_id: int) -> None:
    """Make the texts of a session; a session that is gone by now needs none."""
    session = Session.objects.filter(pk=session_id).first()
    if session is not None:
        summary.make(session)


PAUSE_SECONDS = 10.0  # at least, between two times that a running session is derived again
SHARE = 50  # and so many times as long as it took, so that it costs a fiftieth of a worker
_rests: dict[int, float] = {}  # session → when it may be derived again (monotonic)


@app.task(name="sessions_app.tasks.bring_in_order")
def bring_in_order() -> None:
    """Derive running sessions again whose lines came in another order than they happened, as of several streams."""
    now = time.monotonic()
    for pk in [pk for pk, until in _rests.items() if until < now]:
        del _rests[pk]
    for session in Session.objects.filter(live=True, unordered=True).exclude(pk__in=_rests)[:20]:
        began = time.monotonic()
        projection.settle(session)
        took = time.monotonic() - began
        _rests[session.pk] = began + took + max(PAUSE_SECONDS, SHARE * took)
