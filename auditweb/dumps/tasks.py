"""Celery entry points: they take ids and call the modules that do the work."""

from auditweb.celery import app
from auditweb.dumps import jobs, streams
from auditweb.live import bell


@app.task(name="auditweb.dumps.tasks.import_dump")
def import_dump(dump_id: int) -> None:
    """Import one dump; run again after a crash it goes on where it stopped, run twice it does nothing."""
    jobs.run(dump_id)


@app.task(name="auditweb.dumps.tasks.sweep")
def sweep() -> None:
    """Find what a lost message or a killed worker left behind."""
    jobs.sweep()
    streams.end_lost()
    bell.forget_old_rings()
