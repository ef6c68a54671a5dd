"""People, teams and dumps: alice owns team red, victor may read it, bob is the stranger who owns team blue."""

import os
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parent / "samples"
IN_CI = bool(os.environ.get("CI"))


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent / "browser"):
            item.add_marker("browser")


def pytest_runtest_setup(item):
    for marker, variable in (("postgres", "DATABASE_URL"), ("redis", "REDIS_URL")):
        if item.get_closest_marker(marker) and not os.environ.get(variable):
            if IN_CI:
                pytest.fail(f"{variable} is not set")
            pytest.skip(f"{variable} is not set; `python -m tests.servers -- pytest` sets it")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    """In CI a skipped test is a failed run: what was not tried must not look proved."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if IN_CI and skipped and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"{len(skipped)} skipped: not allowed in CI", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def _audit_records_end_with_their_test():
    """Triggers keep audit records for ever, but a test that commits empties all tables at its end.

    The signal that follows the emptying puts the triggers back.
    """
    from django.db import connection
    from django.test import TransactionTestCase

    from auditweb.teams import guard

    empty = TransactionTestCase._fixture_teardown

    def teardown(self):
        guard.remove(connection)
        empty(self)

    TransactionTestCase._fixture_teardown = teardown
    yield
    TransactionTestCase._fixture_teardown = empty


@pytest.fixture(scope="session")
def sample():
    """``sample("roomkit_session/x.jsonl")`` → its path."""

    def find(name: str) -> Path:
        path = SAMPLES / name
        assert path.exists(), f"no sample {name}"
        return path

    return find


@pytest.fixture
def make_user(db):
    """``make_user("carol")`` → a person without any team; the password is ``<name>-correct-horse``."""
    from auditweb.teams.models import User

    def make(name: str):
        return User.objects.create_user(name, f"{name}@example.org", f"{name}-correct-horse")

    return make


@pytest.fixture
def alice(make_user):
    return make_user("alice")


@pytest.fixture
def bob(make_user):
    return make_user("bob")


@pytest.fixture
def victor(make_user):
    return make_user("victor")


@pytest.fixture
def team(alice, victor):
    """Team ``red``: alice owns it, victor is a viewer."""
    from auditweb.teams.models import Membership, Role, Team

    red = Team.objects.create(slug="red", name="Red")
    Membership.objects.create(team=red, user=alice, role=Role.OWNER)
    Membership.objects.create(team=red, user=victor, role=Role.VIEWER)
    return red


@pytest.fixture
def other_team(bob):
    """Team ``blue`` of the stranger."""
    from auditweb.teams.models import Membership, Role, Team

    blue = Team.objects.create(slug="blue", name="Blue")
    Membership.objects.create(team=blue, user=bob, role=Role.OWNER)
    return blue


@pytest.fixture
def signed_in(db):
    """``signed_in(alice)`` → a test client with her session."""
    from django.test import Client

    def sign_in(user, **kwargs) -> Client:
        client = Client(**kwargs)
        client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        return client

    return sign_in


@pytest.fixture
def alice_client(signed_in, alice, team):
    return signed_in(alice)


@pytest.fixture
def victor_client(signed_in, victor, team):
    return signed_in(victor)


@pytest.fixture
def bob_client(signed_in, bob, other_team):
    return signed_in(bob)


@pytest.fixture
def import_bytes(request):
    """``import_bytes(data, name="x.jsonl", team=…, **options)`` → the imported Dump, read to its last line."""

    def run(data: bytes, name: str = "dump.jsonl", team=None, **options):
        from auditweb.dumps import jobs, store

        dump = store.begin(team or request.getfixturevalue("team"), name, **options)
        for offset in range(0, len(data), 2**20):
            store.append_bytes(dump, offset, data[offset : offset + 2**20])
        dump, _ = store.finish(dump)
        jobs.run(dump.pk)
        dump.refresh_from_db()
        return dump

    request.getfixturevalue("team")
    return run


@pytest.fixture
def import_sample(import_bytes, sample):
    """``import_sample("roomkit_session/x.jsonl", team=…, zone=…)`` → the imported Dump."""

    def run(name: str, **options):
        path = sample(name)
        return import_bytes(path.read_bytes(), path.name, **options)

    return run


@pytest.fixture
def key_client(team):
    """``key_client("ingest")`` → a client that sends a key of team red with these scopes."""

    from django.test import Client

    from auditweb.teams import keys

    def make(*scopes):
        _, text = keys.create(team, "test", scopes)
        return Client(headers={"Authorization": f"Bearer {text}"})

    return make
