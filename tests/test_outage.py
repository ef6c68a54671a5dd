"""The cache while Redis is away, and what is logged of it."""

import logging
import time

import pytest

from auditweb import outage

NOBODY = "redis://127.0.0.1:1/0"  # no server listens on port 1


@pytest.fixture
def redis(monkeypatch):
    """A process that has not asked Redis yet."""
    found = outage.Outage()
    monkeypatch.setattr(outage, "redis", found)
    return found


@pytest.fixture
def cache(redis):
    cache = outage.Cache(NOBODY, {"OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1}})
    cache._own.clear()
    return cache


def test_without_redis_a_process_remembers_for_itself(cache, redis):
    assert cache.get("a", "nothing") == "nothing"
    cache.set("a", [1])
    assert cache.get("a") == [1]
    assert cache.add("a", [2]) is False
    assert cache.add("b", 2) is True
    assert cache.incr("b") == 3
    assert cache.get_many(["a", "b", "c"]) == {"a": [1], "b": 3}
    assert cache.has_key("b")
    assert cache.delete("b")
    assert cache.get_or_set("b", 7) == 7
    with pytest.raises(ValueError):
        cache.incr("nothing")
    assert redis.lasts


def test_all_threads_of_a_process_share_what_they_remember(cache):
    cache.set("a", 1)
    assert outage.Cache(NOBODY, {}).get("a") == 1


def test_wrong_passwords_are_counted_all_the_same(client, db, settings, redis):
    settings.CACHES = {"default": {"BACKEND": "auditweb.outage.Cache", "LOCATION": NOBODY}}
    form = {"login": "outage-visitor", "password": "wrong"}
    found = [b"Too many" in client.post("/accounts/login/", form).content for _ in range(11)]
    assert found == [False] * 10 + [True]
    assert redis.lasts


def test_redis_is_asked_again_by_one_caller_after_a_pause(redis, monkeypatch):
    assert redis.may_ask()
    redis.began(OSError("away"))
    assert not redis.may_ask()
    now = time.monotonic()
    monkeypatch.setattr(outage.time, "monotonic", lambda: now + outage.PAUSE_SECONDS + 1)
    assert [redis.may_ask(), redis.may_ask()] == [True, False]
    redis.ended()
    assert [redis.may_ask(), redis.may_ask()] == [True, True]
    assert not redis.lasts


def test_an_outage_is_one_line_and_its_end_another(cache, redis, caplog):
    with caplog.at_level(logging.WARNING, "auditweb.outage"):
        for number in range(20):
            cache.set("a", number)
        redis.ended()
        redis.ended()
    first, last = [record.getMessage() for record in caplog.records]
    assert first.startswith("Redis is away")
    assert last == "Redis is back"


def test_a_complaint_is_let_through_once_and_short(monkeypatch):
    one_line = outage.OneLine()

    def complain(text="it failed\nStack:\n  File x", name="some.layer"):
        try:
            raise OSError("gone")
        except OSError as e:
            record = logging.LogRecord(name, logging.ERROR, "", 1, text, None, (OSError, e, e.__traceback__))
        return logging.Formatter().format(record) if one_line.filter(record) else None

    assert complain() == "it failed: OSError('gone')"
    assert complain() is None
    assert complain("another") == "another: OSError('gone')"
    assert complain(name="other.layer") == "it failed: OSError('gone')"
    now = time.monotonic()
    monkeypatch.setattr(outage.time, "monotonic", lambda: now + outage.QUIET_SECONDS + 1)
    assert complain() == "it failed: OSError('gone')"
