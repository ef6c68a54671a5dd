"""The real settings; only the data directory is a fresh one, removed when the run ends."""

import atexit
import os
import shutil
import tempfile

# Processes that a test starts put theirs inside the one of the run, which removes it even when they were killed.
if _run := os.environ.get("AUDITWEB_TEST_RUN"):
    _data = tempfile.mkdtemp(dir=_run)
else:
    _data = os.environ["AUDITWEB_TEST_RUN"] = tempfile.mkdtemp(prefix="auditweb-test-")
    atexit.register(shutil.rmtree, _data, ignore_errors=True)
os.environ["AUDITWEB_DATA"] = _data
for _name in ("PUBLIC_URL", "ALLOWED_HOSTS", "SECRET_KEY", "AUDITWEB_DEBUG"):
    os.environ.pop(_name, None)

from auditweb.settings import *  # noqa: E402, F403
from auditweb.settings import ALLOWED_HOSTS, DATA_DIR, DATABASES, SQLITE  # noqa: E402

ALLOWED_HOSTS = [*ALLOWED_HOSTS, "testserver"]
if SQLITE:
    # A file, as in production: an in-memory database locks when sockets read from threads.
    DATABASES["default"]["TEST"] = {"NAME": str(DATA_DIR / "test.sqlite3")}
# The real hasher takes 0.2 s on purpose, for every person of every test.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
