"""The audit log: complete, honest about who and from where, and kept as it was written."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import time_machine
from django.db import DatabaseError, connection, transaction
from django.test import RequestFactory
from django.utils import timezone

from auditweb.teams import audit, guard, keys
from auditweb.teams.models import AppendOnly, AuditRecord


def request_of(user, auth=None, **meta):
    request = RequestFactory().get("/x/", **meta)
    request.user, request.auth = user, auth
    return request


def test_a_record_says_who_what_when_from_where_and_with_what_result(alice, team):
    made = audit.record(request_of(alice, REMOTE_ADDR="192.0.2.7"), "delete", team, reason="asked to")
    kept = AuditRecord.objects.get(pk=made.pk)
    assert (kept.actor, kept.actor_name, kept.action, kept.address, kept.result) == (
        alice, "alice", "delete", "192.0.2.7", "ok",
    )  # fmt: skip
    assert (kept.team, kept.target_kind, kept.target_id, kept.target_name) == (team, "team", team.public_id, "Red")
    assert json.loads(kept.detail) == {"reason": "asked to"}
    assert abs(kept.created_at - timezone.now()) < timedelta(seconds=10)


def test_keys_and_the_command_line_have_names_too(team):
    key, _ = keys.create(team, "nightly", ["read"])
    by_key = audit.record(request_of(key.user, key), "export", ("session", "x" * 22, "A session"))
    assert (by_key.actor_name, by_key.team) == ("key nightly", team)
    assert audit.record(None, "upload", team).actor_name == "command line"


def test_text_that_a_database_refuses_does_not_fail_the_act(alice, team):
    kept = audit.record(alice, "upload", ("dump", "id", "a\0b\ud800" + "c" * 999), name="\0\ud800")
    kept.refresh_from_db()
    assert kept.target_name.startswith("a\u2400b?ccc")
    assert len(kept.target_name) == 300


def test_behind_a_proxy_the_proxys_word_counts_and_otherwise_no_header_does(alice, settings):
    forged = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "1.2.3.4, 198.51.100.9"}
    settings.PUBLIC_URL = ""
    assert audit.address(request_of(alice, **forged)) == "127.0.0.1"
    settings.PUBLIC_URL = "https://audit.example.org"
    assert audit.address(request_of(alice, **forged)) == "198.51.100.9"
    assert audit.address(request_of(alice, REMOTE_ADDR="", HTTP_X_FORWARDED_FOR="<script>")) is None


def test_an_act_that_is_rolled_back_leaves_no_record(alice, team):
    with transaction.atomic():
        audit.record(alice, "delete", team)
        transaction.set_rollback(True)
    assert not AuditRecord.objects.exists()


def test_viewing_is_recorded_once_in_15_minutes_per_person_and_thing(alice, victor, team, other_team):
    with time_machine.travel("2026-03-01T12:00:00Z", tick=False) as clock:
        assert audit.viewed(request_of(alice), team)
        clock.shift(timedelta(minutes=14, seconds=59))
        assert audit.viewed(request_of(alice), team) is None
        assert audit.viewed(request_of(victor), team)
        assert audit.viewed(request_of(alice), other_team)
        clock.shift(timedelta(seconds=2))
        assert audit.viewed(request_of(alice), team)
    assert AuditRecord.objects.filter(actor=alice, target_id=team.public_id, action="view").count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_page_and_its_calls_at_the_same_moment_are_one_view(alice, team):
    def look(_):
        try:
            return audit.viewed(request_of(alice), team)
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as pool:
        made = [record for record in pool.map(look, range(12)) if record]
    assert len(made) == AuditRecord.objects.filter(action="view").count() == 1


def test_through_the_orm_records_are_only_added(alice, team):
    kept = audit.record(alice, "view", team)
    kept.action = "nothing"
    for change in (
        kept.save,
        kept.delete,
        AuditRecord.objects.all().delete,
        lambda: AuditRecord.objects.update(action="nothing"),
        lambda: AuditRecord.objects.bulk_update([kept], ["action"]),
        lambda: AuditRecord.objects.visible_to(alice).delete(),
    ):
        with pytest.raises(AppendOnly):
            change()
    assert AuditRecord.objects.get().action == "view"


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM teams_auditrecord",
        "UPDATE teams_auditrecord SET team_id = team_id + 1",
        *(
            f"UPDATE teams_auditrecord SET {column} = {value}"
            for column, value in {
                "id": "id + 1000", "actor_name": "'x'", "action": "'x'", "target_kind": "'x'", "target_id": "'x'",
                "target_name": "'x'", "result": "'x'", "detail": "'x'", "address": "NULL",
                "created_at": "'2001-01-01 00:00:00'",
            }.items()
        ),
    ],
)  # fmt: skip
def test_past_the_orm_the_database_refuses(alice, team, statement):
    audit.record(request_of(alice, REMOTE_ADDR="192.0.2.7"), "view", team)
    before = list(AuditRecord.objects.values_list())
    with pytest.raises(DatabaseError, match=guard.REFUSAL), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert list(AuditRecord.objects.values_list()) == before


def test_every_column_of_a_record_is_guarded():
    assert {field.column for field in AuditRecord._meta.fields} == {*guard.KEPT, *guard.EMPTIED}


def test_deleting_a_team_or_a_person_keeps_what_they_did(alice, victor, team):
    audit.record(victor, "view", team)
    team.delete()
    victor.delete()
    kept = AuditRecord.objects.get()
    assert (kept.team, kept.actor, kept.actor_name, kept.target_name) == (None, None, "victor", "Red")


@pytest.mark.django_db(transaction=True)
def test_the_triggers_come_back_after_a_migrate(db):
    from django.core.management import call_command

    guard.remove(connection)
    call_command("migrate", verbosity=0)
    audit.record(None, "view")
    with pytest.raises(DatabaseError), transaction.atomic():
        AuditRecord.objects.all()._raw_delete("default")


def test_signing_in_failing_to_and_signing_out_are_recorded(client, alice, team):
    client.post("/accounts/login/", {"login": "alice", "password": "wrong"}, REMOTE_ADDR="192.0.2.7")
    client.post("/accounts/login/", {"login": "alice", "password": "alice-correct-horse"}, REMOTE_ADDR="192.0.2.7")
    client.post("/accounts/logout/", REMOTE_ADDR="192.0.2.7")
    told = [(r.actor_name, r.action, r.result, r.address, r.team) for r in AuditRecord.objects.order_by("id")]
    assert told == [
        ("anonymous", "sign_in_failed", "failed", "192.0.2.7", team),
        ("alice", "sign_in", "ok", "192.0.2.7", team),
        ("alice", "sign_out", "ok", "192.0.2.7", team),
    ]


def test_a_password_typed_as_user_name_is_not_kept(client, alice, team):
    client.post("/accounts/login/", {"login": "my secret 123", "password": "alice"})
    kept = AuditRecord.objects.get(action="sign_in_failed")
    assert "my secret" not in " ".join(str(value) for value in AuditRecord.objects.values_list().get(pk=kept.pk))


def test_what_was_refused_is_recorded(victor_client, victor):
    assert (
        victor_client.post("/team/members/add/", {"team": "red", "username": "eve", "role": "owner"}).status_code == 403
    )
    kept = AuditRecord.objects.get(result="denied")
    assert (kept.actor, kept.target_name) == (victor, "POST /team/members/add/")


def test_owners_read_the_log_and_reading_it_is_recorded(alice_client, victor_client, bob_client, alice, team):
    assert alice_client.get("/team/audit/").status_code == 200
    kept = AuditRecord.objects.get(action="view")
    assert (kept.actor, kept.target_kind, kept.team) == (alice, "audit_log", team)
    assert victor_client.get("/team/audit/").status_code == 403
    foreign, missing = (bob_client.get(f"/team/audit/?team={name}") for name in ("red", "none"))
    assert foreign.status_code == missing.status_code == 404


def test_the_log_of_a_team_holds_its_members_sign_ins_and_nothing_of_others(alice_client, team, bob, other_team, alice):
    audit.record(bob, "upload", other_team)
    audit.record(bob, "sign_in")
    shared = [r.actor_name for r in alice_client.get("/team/audit/").context["records"]]
    assert "bob" not in shared
    assert "alice" in shared


def test_the_log_is_filtered_and_paged(alice_client, alice, victor, team):
    for n in range(230):
        audit.record(alice if n % 2 else victor, "upload", team, n=n)
    numbers, address = [], "/team/audit/?action=upload&person=victor"
    while address:
        context = alice_client.get(address).context
        numbers += [json.loads(r.detail)["n"] for r in context["records"]]
        address = context["older"] and f"/team/audit/{context['older']}"
    assert numbers == list(range(228, -1, -2))


@pytest.mark.parametrize(
    "query", ["before=x", "before=%00", "person=%00", "before=" + "9" * 50, "before=-1", "before=²"]
)
def test_odd_queries_of_the_log_are_refused_calmly(alice_client, query):
    assert alice_client.get(f"/team/audit/?{query}").status_code in (200, 404)


def test_a_sign_in_that_cannot_be_recorded_fails(client, alice, monkeypatch):
    def fail(*args, **kwargs):
        raise DatabaseError("disk full")

    monkeypatch.setattr(AuditRecord.objects, "create", fail)
    client.raise_request_exception = False
    answer = client.post("/accounts/login/", {"login": "alice", "password": "alice-correct-horse"})
    assert answer.status_code == 500
    assert "_auth_user_id" not in client.session
