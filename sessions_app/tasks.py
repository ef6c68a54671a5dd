"""Celery entry points: they take ids and call the modules that do the work."""

from auditweb.celery import app
from sessions_app import summary
from sessions_app.models import Session


@app.task(name="sessions_app.tasks.summarize")
def summarize(session_id: int) -> None:
    """Make the texts of a session; a session that is gone by now needs none."""
    session = Session.objects.filter(pk=session_id).first()
    if session is not None:
        summary.make(session)
