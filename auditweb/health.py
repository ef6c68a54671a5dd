"""Is this process alive, can it do its work, is a worker at hand? What monitors ask; nobody has to sign in for it."""

import time
from collections.abc import Iterator

from django.conf import settings
from django.core.cache import cache
from django.db import DatabaseError, connection
from django.db.models import Count, Min
from django.db.models.functions import Coalesce
from django.http import Http404, HttpResponse, JsonResponse
from django.middleware.common import CommonMiddleware
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from auditweb import metrics as counted
from auditweb.dumps.models import Dump, State

PATHS = ("/healthz", "/readyz", "/metrics")
WORKER_SILENT_SECONDS = 30  # a worker says every 5 s that it is there
_WORKER_KEY = "auditweb:worker-seen"


class Common(CommonMiddleware):
    """Django's, but monitors may ask by any name: they know a process by the address that it has at the moment."""

    def process_request(self, request):
        return None if request.path_info in PATHS else super().process_request(request)


@require_safe
def healthz(request):
    """200 while the process answers at all; touches nothing else."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
def readyz(request):
    """200 with figures, or 503 when the database does not answer. No names, no contents.

    ``{ready, database, worker, worker_seen_s, queued, importing, last_import_at, loop_stall_ms}``: a missing worker
    does not make a web process unready, since pages are served and uploads are kept without one. ``loop_stall_ms``:
    for how long the event loop of this process stood still at worst, within the last minute.
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
            "loop_stall_ms": None if (stall := counted.stall.worst) is None else round(stall * 1000),
        }
    )


@require_safe
def metrics(request):
    """What this process counted, for Prometheus, for whoever asks it directly: the proxy has no such page."""
    if settings.PUBLIC_URL and "X-Forwarded-For" in request.headers:
        raise Http404
    return HttpResponse(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)


class _Dumps(Collector):
    """How many dumps are on their way, from the database when somebody asks; only states that an index has."""

    def describe(self) -> list[Metric]:
        return []  # or registering it would ask the database

    def collect(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("auditweb_dumps", "Dumps under way, by state", labels=["state"])
        oldest = GaugeMetricFamily("auditweb_queue_oldest_seconds", "How long the longest has waited for a worker")
        silent = GaugeMetricFamily("auditweb_worker_seen_seconds", "Since any worker last said that it is there")
        try:
            for states in ((State.RECEIVING,), (State.QUEUED, State.IMPORTING), (State.LIVE,)):
                found = Dump.objects.filter(state__in=states).values_list("state")
                numbers = dict(found.annotate(Count("pk")).order_by())
                for state in states:
                    depth.add_metric([state], numbers.get(state, 0))
            since = Dump.objects.filter(state=State.QUEUED)
            first = since.aggregate(first=Min(Coalesce("heartbeat_at", "created_at")))["first"]
            oldest.add_metric([], max(0.0, (timezone.now() - first).total_seconds()) if first else 0.0)
            yield from (depth, oldest)
        except (DatabaseError, OSError):
            pass  # /readyz says it; what this process counted is still worth reading
        if (seen := worker_seen()) is not None:
            silent.add_metric([], max(0.0, time.time() - seen))
            yield silent


REGISTRY.register(_Dumps())


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
