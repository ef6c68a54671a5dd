"""API keys: shown once, hashed, scoped, ended at once."""

import json
from datetime import timedelta
from io import StringIO

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.test import RequestFactory
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework.test import APIClient
from rest_framework.views import APIView

from auditweb.teams import access, keys
from auditweb.teams.models import ApiKey, AuditRecord, User


def bearer(text):
    request = Request(RequestFactory().get("/api/v1/x/", headers={"Authorization": f"Bearer {text}"}))
    return keys.ApiKeyAuthentication().authenticate(request)


def test_a_key_is_256_bits_with_a_prefix_and_only_its_hash_is_stored(team, alice):
    key, text = keys.create(team, "ci", ["ingest"], by=alice)
    assert keys.SHAPE.match(text)
    stored = " ".join(str(value) for value in ApiKey.objects.values_list().get(pk=key.pk))
    assert text not in stored
    assert text[16:] not in stored
    assert bearer(text) == (key.user, key)
    assert not AuditRecord.objects.filter(detail__contains=text[:12]).exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "awk_",
        "awk_" + "0" * 64,
        "awk_" + "é" * 64,
        "awk_\0" + "0" * 63,
        "x y",
        "awk_" + "0" * 5000,
        "AWK_" + "0" * 64,
    ],
)
def test_no_text_but_a_key_gets_in_and_none_breaks_anything(db, text):
    with pytest.raises(AuthenticationFailed):
        bearer(text)


def test_an_expired_a_revoked_and_a_disabled_key_are_the_same_401(team, alice):
    client = APIClient()
    answers = []
    for spoil in (
        lambda key: ApiKey.objects.filter(pk=key.pk).update(expiry=timezone.now() - timedelta(seconds=1)),
        lambda key: keys.revoke(key, by=alice),
        lambda key: User.objects.filter(pk=key.user_id).update(is_active=False),
    ):
        key, text = keys.create(team, "k", ["read"], by=alice)
        assert client.get("/api/v1/sessions/", headers={"Authorization": f"Bearer {text}"}).status_code == 200
        spoil(key)
        answer = client.get("/api/v1/sessions/", headers={"Authorization": f"Bearer {text}"})
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        answers.append(answer.content)
    assert len(set(answers)) == 1
    assert json.loads(answers[0])["error"]["code"] == "authentication_failed"


def test_an_expired_key_stays_in_the_list_of_its_team(team, alice, alice_client):
    key, text = keys.create(team, "last year's", ["read"], by=alice, days=1)
    ApiKey.objects.filter(pk=key.pk).update(expiry=timezone.now() - timedelta(days=1))
    assert keys.find(text) is None
    assert b"last year&#x27;s" in alice_client.get("/team/").content


def test_last_use_is_written_at_most_once_a_minute(team, django_assert_num_queries):
    key, text = keys.create(team, "k", ["read"])
    with django_assert_num_queries(2):
        keys.find(text)
    used = ApiKey.objects.get(pk=key.pk).last_used_at
    assert used is not None
    with django_assert_num_queries(1):
        keys.find(text)
    ApiKey.objects.filter(pk=key.pk).update(last_used_at=used - timedelta(seconds=61))
    keys.find(text)
    assert ApiKey.objects.get(pk=key.pk).last_used_at > used - timedelta(seconds=61)


@pytest.mark.parametrize(
    "scope, permission, method, allowed",
    [
        ("read", access.MayRead, "get", True),
        ("read", access.MayIngest, "post", False),
        ("ingest", access.MayIngest, "post", True),
        ("ingest", access.MayRead, "get", False),
        ("review", access.MayReview, "post", True),
        ("review", access.MayIngest, "post", False),
    ],
)
def test_a_key_does_what_its_scopes_say_and_no_more(team, scope, permission, method, allowed):
    key, _text = keys.create(team, "k", [scope])
    request = APIView().initialize_request(RequestFactory().generic(method.upper(), "/"))
    request.user, request.auth = key.user, key
    assert permission().has_permission(request, None) is allowed
    assert permission().has_object_permission(request, None, team) is allowed


@pytest.mark.parametrize(
    "scopes, method, path, needed",
    [
        (["ingest"], "get", "/api/v1/sessions/", "read"),
        (["ingest"], "get", "/api/v1/dumps/", "read"),
        (["review"], "get", "/api/v1/status/", "read"),
        (["read", "review"], "post", "/api/v1/dumps/", "ingest"),
        (["read"], "put", "/api/v1/dumps/x.jsonl", "ingest"),
        (["read"], "delete", f"/api/v1/dumps/{'z' * 22}", "ingest"),
    ],
)
def test_a_key_without_the_scope_is_told_which_one_it_needs(team, scopes, method, path, needed):
    key, text = keys.create(team, "k", scopes)
    answer = getattr(APIClient(), method)(path, headers={"Authorization": f"Bearer {text}"})
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert error["code"] == "missing_scope"
    assert error["message"] == f"This key may not do that: it lacks the scope {needed}."
    assert AuditRecord.objects.get(result="denied").actor == key.user


def test_an_expired_key_is_refused_with_a_sentence_and_one_that_expires_later_is_not(team):
    _key, text = keys.create(team, "k", ["read"], days=1)
    client, bearer_of = APIClient(), {"Authorization": f"Bearer {text}"}
    with time_machine.travel(timezone.now() + timedelta(hours=23, minutes=59)):
        assert client.get("/api/v1/sessions/", headers=bearer_of).status_code == 200
    with time_machine.travel(timezone.now() + timedelta(hours=24, seconds=1)):
        answer = client.get("/api/v1/sessions/", headers=bearer_of)
    assert answer.status_code == 401
    assert answer.json()["error"]["message"] == "This key is unknown, expired or revoked."


def test_owners_see_when_a_key_was_last_used_and_when_it_expires(team, alice_client):
    key, text = keys.create(team, "k", ["read"], days=30)
    page = alice_client.get("/team/")
    assert page.context["api_keys"][0].last_used_at is None
    assert b">never</td>" in page.content
    APIClient().get("/api/v1/sessions/", headers={"Authorization": f"Bearer {text}"})
    page = alice_client.get("/team/")
    assert timezone.now() - page.context["api_keys"][0].last_used_at < timedelta(minutes=1)
    assert b">never</td>" not in page.content
    assert f"{key.expiry:%Y-%m-%d}".encode() in page.content


def test_no_key_manages_a_team(team):
    key, _ = keys.create(team, "k", ["ingest", "read", "review"])
    request = Request(RequestFactory().get("/"))
    request.user, request.auth = key.user, key
    assert not access.may(request, team, "manage")
    assert not access.may(key.user, team, "manage")


def test_a_key_names_its_own_team_or_none(team, other_team):
    key, _text = keys.create(team, "k", ["read"])

    def of(query):
        request = Request(RequestFactory().get("/", query))
        request.user, request.auth = key.user, key
        return access.team_of(request)

    assert of({}) == of({"team": "red"}) == of({"team": team.public_id}) == team
    with pytest.raises(access.Http404):
        of({"team": "blue"})


def test_a_service_user_cannot_sign_in_on_the_page(team, client):
    key, text = keys.create(team, "k", ["read"])
    client.post("/accounts/login/", {"login": key.user.username, "password": text})
    assert "_auth_user_id" not in client.session


def test_the_command_prints_a_working_key_once(team):
    out = StringIO()
    call_command("create_api_key", "--team", "red", "--scopes", "ingest,read", "--json", "--days", "30", stdout=out)
    made = json.loads(out.getvalue())
    key = keys.find(made["key"])
    assert key.team == team
    assert key.scopes == "ingest read"
    assert made["scopes"] == ["ingest", "read"]
    assert abs(key.expiry - timezone.now() - timedelta(days=30)) < timedelta(minutes=1)
    assert AuditRecord.objects.get(action="create_key").actor_name == "command line"
    plain = StringIO()
    call_command("create_api_key", "--team", "red", "--scopes", "read", stdout=plain)
    assert keys.find(plain.getvalue().strip()).expiry is None


@pytest.mark.parametrize("arguments", [("--team", "none"), ("--scopes", "admin"), ("--scopes", ""), ("--days", "0")])
def test_the_command_refuses_with_a_sentence(team, arguments):
    given = {"--team": "red", "--scopes": "read"} | {arguments[0]: arguments[1]}
    with pytest.raises(CommandError, match=r"\w+ \w+"):
        call_command("create_api_key", *(word for pair in given.items() for word in pair))
    assert not ApiKey.objects.exists()


def test_the_page_shows_a_new_key_once_and_revokes_it(team, alice_client):
    answer = alice_client.post("/team/keys/create/", {"name": "ci", "scopes": ["ingest"], "days": ""})
    key = ApiKey.objects.get()
    text = answer.context["new_key_text"]
    assert text.encode() in answer.content
    assert keys.find(text) == key
    assert text.encode() not in alice_client.get("/team/").content
    assert alice_client.post(f"/team/keys/{key.public_id}/revoke/").status_code == 302
    assert keys.find(text) is None
    assert [r.action for r in AuditRecord.objects.filter(target_kind="apikey")] == ["create_key", "revoke_key"]


def test_only_owners_make_or_revoke_keys(team, victor_client, bob_client):
    key, _ = keys.create(team, "k", ["read"])
    for client, status in ((victor_client, 403), (bob_client, 404)):
        assert client.post("/team/keys/create/", {"team": "red", "name": "x", "scopes": ["read"]}).status_code == status
        assert client.post(f"/team/keys/{key.public_id}/revoke/", {"team": "red"}).status_code == status
    assert bob_client.post(f"/team/keys/{key.public_id}/revoke/").status_code == 404
    assert ApiKey.objects.count() == 1
