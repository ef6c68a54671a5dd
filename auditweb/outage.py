"""Redis may be dead, frozen or empty: what holds then, at the price of one log line and a second for one request.

Nothing that Redis keeps is the truth. The cache is remembered per process meanwhile: outlines are built again, and
wrong passwords are still counted.
"""

import logging
import threading
import time

from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 5  # after a failure Redis is left alone so long: a frozen one costs each try its timeout
QUIET_SECONDS = 60  # a complaint that repeats within it is the same complaint


class Outage:
    """Whether this process believes Redis to be away. Django has one cache object per thread, but Redis is one."""

    def __init__(self):
        self._lock = threading.Lock()
        self._until: float | None = None  # None: not away

    @property
    def lasts(self) -> bool:
        return self._until is not None

    def may_ask(self) -> bool:
        """True when Redis is not away, and for one caller every PAUSE_SECONDS while it is."""
        with self._lock:
            now = time.monotonic()
            if self._until is None:
                return True
            if now < self._until:
                return False
            self._until = now + PAUSE_SECONDS
            return True

    def began(self, error: Exception) -> None:
        with self._lock:
            if self._until is None:
                logger.warning("Redis is away, this process remembers for itself: %s", error)
            self._until = time.monotonic() + PAUSE_SECONDS

    def ended(self) -> None:
        if self._until is not None:
            with self._lock:
                if self._until is not None:
                    logger.warning("Redis is back")
                self._until = None


redis = Outage()


def _surviving(name: str):
    def call(self, *args, **kwargs):
        if redis.may_ask():
            try:
                answer = getattr(super(Cache, self), name)(*args, **kwargs)
            except (RedisError, OSError) as e:
                redis.began(e)
            else:
                redis.ended()
                return answer
        return getattr(self._own, name)(*args, **kwargs)

    return call


class Cache(RedisCache):
    """Django's cache on Redis, and a memory of this process while Redis is away."""

    def __init__(self, server, params):
        super().__init__(server, params)
        self._own = LocMemCache("outage", {**params, "OPTIONS": {}})

    add = _surviving("add")
    get = _surviving("get")
    set = _surviving("set")
    touch = _surviving("touch")
    delete = _surviving("delete")
    get_many = _surviving("get_many")
    has_key = _surviving("has_key")
    incr = _surviving("incr")
    set_many = _surviving("set_many")
    delete_many = _surviving("delete_many")
    clear = _surviving("clear")


class OneLine(logging.Filter):
    """Lets a complaint through once, without its traceback, until it was not repeated for QUIET_SECONDS.

    While Redis is away the channel layer logs a traceback every second, and Celery's beat one of 130 lines every three.
    """

    def __init__(self):
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key, now = f"{record.name} {record.msg}", time.monotonic()
        last, self._last[key] = self._last.get(key), now
        if last is not None and now - last < QUIET_SECONDS:
            return False
        if record.exc_info and record.exc_info[1] is not None:
            # Celery's beat writes the stack into the message, too.
            record.msg, record.args = "%s: %r", (record.getMessage().partition("\n")[0], record.exc_info[1])
            record.exc_info = record.exc_text = None
        return True
