"""What this process counts for Prometheus; ``/metrics`` shows it. Names and contents of nobody are in it.

Keeps for itself that counting costs little where much happens: what the event loop alone counts is a plain number,
read when somebody asks. Knows no model, so that everything from the live path upwards may count here.
"""

import asyncio
import time
from collections.abc import Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PROBE_SECONDS = 0.1
REMEMBERED = 30.0  # seconds; the worst stall told is that of the last one to two of these
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)  # seconds

disable_created_metrics()  # as many lines again, which nobody draws

_lines = Counter("auditweb_lines", "Lines stored, by the way they came", ["way"])
_repeated = Counter("auditweb_lines_repeated", "Lines that were there already when they came", ["way"])
_acknowledged = Histogram("auditweb_acknowledge_seconds", "From a batch to its answer", ["way"], buckets=BUCKETS)
readers = Gauge("auditweb_live_readers", "Open sockets, by what they follow", ["log"])
doorbell_silent = Gauge("auditweb_doorbell_silent", "1 while this process finds news by polling alone")
_late = Histogram("auditweb_loop_late_seconds", "How late a sleep of 100 ms woke up", buckets=BUCKETS)


def accepted(way: str, began: float, lines: int, repeated: int = 0) -> None:
    """A batch is committed and about to be acknowledged.

    *way*: http, socket or status. *began*: ``time.perf_counter()`` when all of it had arrived. *lines*: how many it
    has, of which *repeated* were stored before.
    """
    _acknowledged.labels(way).observe(time.perf_counter() - began)
    _lines.labels(way).inc(lines - repeated)
    _repeated.labels(way).inc(repeated)


class Sent:
    """What went out to sockets. Plain numbers, since there is one event loop: 20 ns for each where a lock takes 200."""

    frames = entries = skipped = 0


sent = Sent()


class Stall:
    """How long the event loop of this process stood still at worst of late."""

    def __init__(self):
        self._began = time.monotonic()
        self._now: float | None = None
        self._before: float | None = None

    def saw(self, seconds: float) -> None:
        self._turn()
        self._now = max(seconds, self._now or 0.0)

    @property
    def worst(self) -> float | None:
        """Seconds, of the last half to whole minute; None where nobody looks."""
        self._turn()
        return max((seen for seen in (self._now, self._before) if seen is not None), default=None)

    def _turn(self) -> None:
        if (gone := time.monotonic() - self._began) > REMEMBERED:
            self._before, self._now = self._now if gone < 2 * REMEMBERED else None, None
            self._began += gone


stall = Stall()


async def watch_loop() -> None:
    """Measure for ever how late this event loop wakes up who sleeps."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + PROBE_SECONDS
        await asyncio.sleep(PROBE_SECONDS)
        late = max(0.0, loop.time() - due)
        _late.observe(late)
        stall.saw(late)


class _Numbers(Collector):
    """The plain numbers, when somebody asks."""

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily("auditweb_frames_sent", "Messages to readers", value=sent.frames)
        yield CounterMetricFamily("auditweb_entries_sent", "Entries of logs in them", value=sent.entries)
        what = "Entries that readers far behind were told to fetch themselves"
        yield CounterMetricFamily("auditweb_entries_skipped", what, value=sent.skipped)
        if (worst := stall.worst) is not None:
            yield GaugeMetricFamily("auditweb_loop_stall_seconds", "The worst lateness of the last minute", value=worst)


REGISTRY.register(_Numbers())
