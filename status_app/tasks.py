"""Celery entry points: they take ids and call the modules that do the work."""

from auditweb.celery import app
from status_app import summary
from status_app.models import StatusBus


@app.task(name="status_app.tasks.summarize")
def summarize(bus_id: int) -> None:
    """Make the summary of a status log; a log that is gone by now needs none."""
    bus = StatusBus.objects.filter(pk=bus_id).first()
    if bus is not None:
        summary.make(bus)
