"""Log lines say where and what, and nothing that readers of logs have no business with."""

import io
import json
import logging
import urllib.error
import urllib.request

import pytest
from django.db import IntegrityError

from auditweb import loglines
from tests.site import site


@pytest.fixture
def log():
    """A logger with auditweb's formatter; ``log.text()`` is what it has written."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(loglines.Formatter("%(levelname)s %(message)s"))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    logger.text = stream.getvalue
    return logger


@pytest.mark.parametrize(
    ("message", "written"),
    [
        ("Not Found: /api/v1/sessions/?q=my+secret&x=1", "Not Found: /api/v1/sessions/"),
        ("GET 'http://audit.example.org/sessions/?q=secret' 500", "GET 'http://audit.example.org/sessions/' 500"),
        ("Forbidden: /signin/AbC-dEf_123/", "Forbidden: /signin/…/"),
        ("refused Bearer awk_0123456789abcdef", "refused Bearer awk_…"),
        (
            "cannot reach postgres://auditweb:sesame@db:5432/auditweb",
            "cannot reach postgres://auditweb:…@db:5432/auditweb",
        ),
        ("cannot reach redis://:sesame@cache:6379/0", "cannot reach redis://:…@cache:6379/0"),
        ("null in column\nDETAIL:  Failing row contains (1, my secret\nmore).", "null in column"),
        (
            "IntegrityError('null in column\\nDETAIL:  Failing row contains (my secret)')",
            "IntegrityError('null in column",
        ),
        ("is it there? yes: /healthz", "is it there? yes: /healthz"),
    ],
)
def test_secrets_and_searches_are_not_written(log, message, written):
    log.warning("%s", message)
    assert log.text() == f"WARNING {written}\n"


def test_an_exception_keeps_its_place_and_loses_the_row(log):
    row = "my secret"

    def refused():
        try:
            raise KeyError("inner")
        except KeyError as e:
            raise IntegrityError(f"null value\nDETAIL:  Failing row contains ({row}).") from e

    try:
        refused()
    except IntegrityError:
        log.exception("import failed")
    text = log.text()
    assert row not in text
    assert text.splitlines()[-1] == "IntegrityError: null value"
    assert "in refused" in text
    assert "KeyError: 'inner'\nwhich led to:" in text


def test_another_handler_still_gets_the_whole_record(log):
    stream = io.StringIO()
    log.addHandler(logging.StreamHandler(stream))
    log.warning("see %s", "/sessions/?q=word")
    assert stream.getvalue() == "see /sessions/?q=word\n"


def test_a_site_that_logs_everything_logs_no_secret():
    with site(AUDITWEB_LOG_LEVEL="DEBUG") as running:
        key = running.manage("create_api_key", "--team", "default", "--scopes", "ingest,read").strip()

        def call(path, method="GET", data=None, **headers):
            request = urllib.request.Request(running.url + path, method=method, data=data, headers=headers)
            try:
                return urllib.request.urlopen(request, timeout=20).read()
            except urllib.error.HTTPError as e:
                return e.read()

        token = running.link.rstrip("/").rpartition("/")[2]
        entry = {"ts": "2026-04-07T13:05:11", "type": "speech", "role": "user", "content": "elderberry"}
        line = json.dumps({**entry, "metadata": {}}).encode() + b"\n"
        bearer = {"Authorization": f"Bearer {key}"}
        call("/api/v1/dumps/", "POST", b'{"name": ', **bearer, **{"Content-Type": "application/json"})
        call("/api/v1/dumps/spoken.jsonl", "PUT", line + b'{"content": "elderberry", broken\n', **bearer)
        call("/api/v1/sessions/?q=elderberry", **bearer)
        call("/api/v1/nothing?q=elderberry", **bearer)
        call("/api/v1/sessions/?limit=elderberry", **bearer)
        call("/sessions/?q=elderberry")
        call(f"/signin/{token}/", "POST", b"x=elderberry")  # refused: no CSRF token
        call("/accounts/login/", "POST", b"login=admin&password=elderberry")
        running.terminate()
        text = "".join(line for line in running.output if "works once" not in line)
    assert "/signin/…" in text
    for secret in ("elderberry", key, key[:20], token):
        assert secret not in text, next(line for line in text.splitlines() if secret in line)
