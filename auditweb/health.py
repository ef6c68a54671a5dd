"""Is this process alive, can it do its work, and is a worker at hand?"""

import time

from django.conf import settings
from django.core.cache import cache
from django.db import DatabaseError, connection
from django.http import HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from auditweb.dumps.models import Dump, State

WORKER_SILENT_SECONDS = 30  # a worker says every 5 s that it is there
_WORKER_KEY = "auditweb:worker-seen"


@require_safe
def healthz(request):
    """200 while the process answers at all; touches nothing else."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
def readyz(request):
    """200 with figures, or 503 when the database does not answer. No names, no contents.

    ``{ready, database, worker, worker_seen_s, queued, importing, last_import_at}``: a missing worker does not make a
    web process unready, since pages are served and uploads are kept without one.
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        queued = Dump.objects.filter(state=State.QUEUED).count()
        importing = Dump.objects.filter(state=State.IMPORTING).count()
        last = Dump.objects.filter(state=State.DONE).order_by("-pk").values_list("finished_at", flat=True).first()
    except (DatabaseError, OSError):
        return JsonResponse({"ready": False, "database": "away"}, status=503, headers={"Retry-After": "2"})
    seen = worker_seen()
    age = None if seen is None else max(0.0, time.time() - seen)
    return JsonResponse(
        {
            "ready": True,
            "database": "ok",
            "worker": "ok" if age is not None and age < WORKER_SILENT_SECONDS else "away",
            "worker_seen_s": None if age is None else round(age, 1),
            "queued": queued,
            "importing": importing,
            "last_import_at": last.isoformat().replace("+00:00", "Z") if last else None,
        }
    )


def worker_is_there() -> None:
    """Called by a worker every few seconds: readyz shows how long ago the last one was."""
    if settings.REDIS_URL:
        cache.set(_WORKER_KEY, time.time(), timeout=3600)
    else:
        _worker_file().touch()


def worker_seen() -> float | None:
    """When any worker last said that it is there, in seconds since the epoch; None when unknown."""
    try:
        return cache.get(_WORKER_KEY) if settings.REDIS_URL else _worker_file().stat().st_mtime
    except Exception:  # Redis away or no such file: both mean that nobody knows
        return None


def _worker_file():
    return settings.DATA_DIR / "worker-seen"
