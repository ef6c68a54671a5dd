"""People: one-time links, passwords, how long a sign-in lasts, roles, the pages and commands of a team."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
import time_machine
from django.contrib.sessions.models import Session as StoredSession
from django.core.cache import cache
from django.core.exceptions import BadRequest, PermissionDenied
from django.core.management import CommandError, call_command
from django.db import connection
from django.http import Http404
from django.test import Client, RequestFactory

from auditweb.teams import access, links, members
from auditweb.teams.models import AuditRecord, Membership, Role, SignInLink, Team, User


@pytest.fixture(autouse=True)
def fresh_limits():
    cache.clear()
    yield
    cache.clear()


def signed_in_as(client):
    return client.session.get("_auth_user_id")


# --- one-time links ------------------------------------------------------------------------------------------------


def test_opening_a_link_asks_and_pressing_the_button_signs_in_once(client, alice, team):
    path = links.make(alice)
    for _ in range(3):  # mail scanners, previews
        assert client.get(path).status_code == 200
        assert client.head(path).status_code == 200
    assert signed_in_as(client) is None
    assert client.post(path).status_code == 302
    assert signed_in_as(client) == str(alice.pk)
    assert Client().post(path).status_code == 404
    assert json.loads(AuditRecord.objects.get(action="sign_in").detail) == {"by": "link"}


def test_used_expired_and_unknown_links_get_the_same_page(alice):
    used, expired = links.make(alice), links.make(alice, minutes=-1)
    Client().post(used)
    unknown = "/signin/" + "x" * 43 + "/"
    for method in ("get", "post"):
        pages = [getattr(Client(), method)(path) for path in (used, expired, unknown, "/signin/%00/", "/signin/é/")]
        assert {page.status_code for page in pages} == {404}
        assert len({page.content for page in pages}) == 1
        assert b"manage.py sign_in_link USER" in pages[0].content


def test_a_link_is_not_stored_in_clear(alice):
    token = links.make(alice).split("/")[2]
    assert token not in " ".join(str(value) for value in SignInLink.objects.values_list().get())


def test_a_link_starts_a_new_session(client, alice, bob):
    client.force_login(bob)
    before = client.session.session_key
    client.post(links.make(alice))
    assert client.session.session_key != before
    assert signed_in_as(client) == str(alice.pk)
    assert not StoredSession.objects.filter(session_key=before).exists()


def test_a_link_of_a_disabled_person_does_not_work(client, alice):
    path = links.make(alice)
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert client.post(path).status_code == 404
    assert signed_in_as(client) is None


@pytest.mark.django_db(transaction=True)
def test_of_two_presses_at_the_same_moment_one_signs_in(alice):
    token = links.make(alice).split("/")[2]

    def press(_):
        try:
            return links.use(token)
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        assert [user for user in pool.map(press, range(8)) if user] == [alice]


def test_a_link_needs_the_button_of_our_own_page(alice):
    strict = Client(enforce_csrf_checks=True)
    path = links.make(alice)
    assert strict.post(path).status_code == 403
    token = re.search(rb'name="csrfmiddlewaretoken" value="([^"]+)"', strict.get(path).content)[1].decode()
    assert strict.post(path, {"csrfmiddlewaretoken": token}).status_code == 302


def test_after_a_link_a_person_without_password_can_set_one_and_use_it(client, db):
    path = links.first_run()
    client.post(path)
    password = "twelve-chars-" + "x" * 130
    answer = client.post("/accounts/password/set/", {"password1": password, "password2": password})
    assert answer.status_code == 302
    assert signed_in_as(client)
    assert Client().post("/accounts/login/", {"login": "admin", "password": password}).status_code == 302


# --- the first run -------------------------------------------------------------------------------------------------


def test_the_first_run_makes_a_team_and_its_owner_and_a_link(client, db):
    path = links.first_run()
    admin = User.objects.get()
    assert (admin.username, admin.has_usable_password(), admin.is_staff, admin.is_superuser) == (
        "admin", False, False, False,
    )  # fmt: skip
    assert access.role_of(admin, Team.objects.get(slug="default")) == "owner"
    client.post(path)
    assert signed_in_as(client) == str(admin.pk)


def test_a_later_start_gives_a_fresh_link_only_while_nobody_has_signed_in(client, db):
    first, second = links.first_run(), links.first_run()
    assert client.get(first).status_code == 404
    client.post(second)
    assert signed_in_as(client)
    assert links.first_run() is None
    assert (User.objects.count(), Team.objects.count()) == (1, 1)


def test_a_database_with_other_people_gets_no_admin(alice, team):
    assert links.first_run() is None
    assert not User.objects.filter(username="admin").exists()


def test_a_team_that_a_command_made_before_the_first_start_is_used(db):
    call_command("create_team", "default", "--name", "Ours", stdout=StringIO())
    assert links.first_run()
    assert Team.objects.get().name == "Ours"
    assert Membership.objects.get().role == Role.OWNER


# --- passwords and sessions ----------------------------------------------------------------------------------------


def test_signing_in_changes_the_session_id_and_get_does_not_sign_out(client, alice, team):
    client.get("/accounts/login/")
    session = client.session
    session["planted"] = 1
    session.save()
    planted = session.session_key
    client.cookies["auditweb"] = planted
    client.post("/accounts/login/", {"login": "alice", "password": "alice-correct-horse"})
    assert signed_in_as(client)
    assert client.session.session_key != planted
    client.get("/accounts/logout/")
    assert signed_in_as(client)
    answer = client.post("/accounts/logout/")
    assert signed_in_as(client) is None
    assert answer.headers["Clear-Site-Data"] == '"cache"'


def test_nobody_signs_up(client, db):
    for path in ("signup", "password/reset", "email"):
        assert client.post(f"/accounts/{path}/", {"username": "eve"}).status_code == 404
    assert not User.objects.exists()


def test_guessing_is_slowed_down_and_names_are_not_told(alice):
    pages = {}
    for name in ("alice", "nobody"):
        cache.clear()
        client = Client()
        for _ in range(14):
            page = client.post("/accounts/login/", {"login": name, "password": "wrong"})
        pages[name] = page.content
        page = client.post("/accounts/login/", {"login": "alice", "password": "alice-correct-horse"})
        if name == "alice":
            assert signed_in_as(client) is None, "the right password, too, has to wait"
    assert b"Too many" in pages["alice"]
    hide = lambda page, name: re.sub(rb'value="[^"]*"', b"", page.replace(name, b"NAME"))  # noqa: E731
    assert hide(pages["alice"], b"alice") == hide(pages["nobody"], b"nobody")


def test_an_address_that_tries_many_names_has_to_wait(db):
    pages = [Client().post("/accounts/login/", {"login": f"name{n}", "password": "wrong"}) for n in range(32)]
    assert pages[0].status_code == 200
    assert pages[-1].status_code == 429
    assert b"Too many tries" in pages[-1].content


def test_wrong_name_and_wrong_password_look_alike(alice):
    pages = []
    for name in (b"alice", b"nobody"):
        page = Client().post("/accounts/login/", {"login": name.decode(), "password": "wrong"}).content
        pages.append(re.sub(rb'value="[^"]*"', b"", page.replace(name, b"NAME")))
    assert pages[0] == pages[1]


@pytest.mark.parametrize("password, kept", [("eleven-char", False), ("password1234", False), ("x-7" * 50, True)])
def test_short_and_common_passwords_are_refused_and_long_ones_are_not(alice_client, password, kept):
    data = {"oldpassword": "alice-correct-horse", "password1": password, "password2": password}
    alice_client.post("/accounts/password/change/", data)
    assert User.objects.get(username="alice").check_password(password) is kept


def test_changing_the_password_asks_for_the_old_one_and_ends_other_sessions(alice, alice_client, signed_in):
    elsewhere = signed_in(alice)
    new = {"password1": "a-brand-new-horse", "password2": "a-brand-new-horse"}
    alice_client.post("/accounts/password/change/", {"oldpassword": "wrong", **new})
    assert elsewhere.get("/team/").status_code == 200
    alice_client.post("/accounts/password/change/", {"oldpassword": "alice-correct-horse", **new})
    assert alice_client.get("/team/").status_code == 200
    assert elsewhere.get("/team/").status_code == 302
    assert AuditRecord.objects.filter(action="change", target_name="alice").exists()


def test_doing_nothing_for_eight_hours_ends_a_sign_in(alice, team, signed_in):
    with time_machine.travel("2026-03-01T08:00:00Z", tick=False) as clock:
        client = signed_in(alice)
        for _ in range(3):
            clock.shift(7 * 3600)
            assert client.get("/team/").status_code == 200
        clock.shift(8 * 3600 + 61)
        assert client.get("/team/").status_code == 302
        assert json.loads(AuditRecord.objects.get(action="sign_out").detail) == {"by": "timeout"}


def test_a_page_that_polls_alone_does_not_keep_its_person_signed_in(alice, team, signed_in):
    with time_machine.travel("2026-03-01T08:00:00Z", tick=False) as clock:
        client = signed_in(alice)
        for _ in range(4):
            clock.shift(2 * 3600 - 60)
            assert client.get("/team/", headers={"X-Background": "1"}).status_code == 200
        clock.shift(300)
        assert client.get("/team/", headers={"X-Background": "1"}).status_code == 302


def test_after_seven_days_everybody_signs_in_again(alice, team, signed_in):
    with time_machine.travel("2026-03-01T08:00:00Z", tick=False) as clock:
        client = signed_in(alice)
        for _ in range(7 * 4):
            assert client.get("/team/").status_code == 200
            clock.shift(6 * 3600)
        clock.shift(1)
        assert client.get("/team/").status_code == 302


def test_a_disabled_person_is_out_at_once(alice, alice_client):
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert alice_client.get("/team/").status_code == 302


# --- whose team, which role ----------------------------------------------------------------------------------------


def request_of(user, **query):
    request = RequestFactory().get("/", query)
    request.user = user
    return request


def test_the_team_is_the_named_one_or_the_only_one(alice, team, bob, other_team, make_user):
    assert access.team_of(request_of(alice)) == team
    Membership.objects.create(team=other_team, user=alice, role=Role.VIEWER)
    with pytest.raises(BadRequest, match="Say which team"):
        access.team_of(request_of(alice))
    assert access.team_of(request_of(alice, team="blue")) == other_team
    assert access.team_of(request_of(alice, team=team.public_id)) == team
    assert access.team_of(request_of(alice), "red") == team
    with pytest.raises(BadRequest, match="no team"):
        access.team_of(request_of(make_user("carol")))
    for name in ("red", "none", "\0", team.public_id):
        with pytest.raises(Http404):
            access.team_of(request_of(bob, team=name))


@pytest.mark.parametrize(
    "role, allowed",
    [
        (Role.VIEWER, {"read"}),
        (Role.REVIEWER, {"read", "upload", "review"}),
        (Role.OWNER, {"read", "upload", "review", "manage"}),
        (None, set()),
    ],
)
def test_roles(role, allowed, make_user, team):
    carol = make_user("carol")
    if role:
        Membership.objects.create(team=team, user=carol, role=role)
    assert {act for act in access.ACTS if access.may(carol, team, act)} == allowed
    for act in access.ACTS.keys() - allowed:
        with pytest.raises(PermissionDenied if role else Http404):
            access.require(carol, team, act)


def test_whoever_was_disabled_or_removed_sees_nothing_even_in_a_long_lived_object(alice, victor, team):
    AuditRecord.objects.create(team=team, actor_name="x", action="x")
    assert AuditRecord.objects.visible_to(alice).exists()
    assert AuditRecord.objects.visible_to(victor).exists()
    User.objects.filter(pk=alice.pk).update(is_active=False)
    members.remove(victor.memberships.get())
    assert alice.is_active
    assert not AuditRecord.objects.visible_to(alice).exists()
    assert not AuditRecord.objects.visible_to(victor).exists()
    assert access.role_of(alice, team) is None


# --- the pages of a team -------------------------------------------------------------------------------------------


def test_an_owner_adds_changes_and_removes_members(alice_client, team, bob):
    assert alice_client.post("/team/members/add/", {"username": "bob", "role": "viewer"}).status_code == 302
    assert access.role_of(bob, team) == "viewer"
    alice_client.post("/team/members/change/", {"username": "bob", "role": "reviewer"})
    assert access.role_of(bob, team) == "reviewer"
    alice_client.post("/team/members/remove/", {"username": "bob"})
    assert access.role_of(bob, team) is None
    told = list(AuditRecord.objects.filter(target_name="bob").order_by("id").values_list("action", flat=True))
    assert told == ["member_added", "member_changed", "member_removed"]


def test_a_new_person_gets_a_link_and_a_known_one_does_not(alice_client, bob, other_team):
    page = alice_client.post("/team/members/add/", {"username": "carol", "role": "viewer"})
    path = re.search(r"http://testserver(/signin/[^/]+/)", page.content.decode())[1]
    newcomer = Client()
    newcomer.post(path)
    assert signed_in_as(newcomer) == str(User.objects.get(username="carol").pk)
    page = alice_client.post("/team/members/add/", {"username": "bob", "role": "viewer"}, follow=True)
    assert b"/signin/" not in page.content


@pytest.mark.parametrize("name", ["", " ", "a b", "x" * 151, "key\0", "<b>"])
def test_an_impossible_name_is_refused_with_a_sentence(alice_client, name):
    answer = alice_client.post("/team/members/add/", {"username": name, "role": "viewer"})
    assert answer.status_code == 400
    assert b"errorlist" in answer.content


def test_the_last_owner_stays(alice_client, alice, victor, team):
    for path, data in (("remove", {}), ("change", {"role": "viewer"})):
        page = alice_client.post(f"/team/members/{path}/", {"username": "alice", **data}, follow=True)
        assert b"at least one owner" in page.content
    assert access.role_of(alice, team) == "owner"
    members.change(victor.memberships.get(), Role.OWNER)
    assert alice_client.post("/team/members/remove/", {"username": "alice"}).status_code == 302
    assert access.role_of(alice, team) is None


@pytest.mark.django_db(transaction=True)
def test_two_owners_who_remove_each_other_leave_one(alice, victor, team):
    members.change(victor.memberships.get(), Role.OWNER)

    def leave(membership):
        try:
            members.remove(membership)
        except members.LastOwner:
            pass
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(leave, list(team.memberships.all())))
    assert team.memberships.count() == 1


def test_a_viewer_sees_the_members_and_neither_keys_nor_forms(victor_client):
    page = victor_client.get("/team/")
    assert b"alice" in page.content
    assert b"API keys" not in page.content
    assert b'action="/team/' not in page.content


def test_service_users_are_no_members_to_manage(alice_client, team):
    from auditweb.teams import keys

    key, _ = keys.create(team, "ci", ["read"])
    assert key.user.username.encode() not in alice_client.get("/team/").content
    data = {"username": key.user.username, "role": "owner"}
    assert alice_client.post("/team/members/change/", data).status_code == 404
    alice_client.post("/team/members/add/", data)
    assert access.role_of(key.user, team) == "viewer"


def test_whoever_is_in_several_teams_or_none_is_asked_which(alice_client, alice, other_team, signed_in, make_user):
    Membership.objects.create(team=other_team, user=alice, role=Role.OWNER)
    for path in ("/team/", "/team/audit/"):
        page = alice_client.get(path)
        assert page.status_code == 200
        assert b"?team=red" in page.content
        assert b"?team=blue" in page.content
        assert b"no team" in signed_in(make_user(f"carol{len(path)}")).get(path).content
    page = alice_client.post("/team/members/add/", {"username": "eve", "role": "viewer"})
    assert page.status_code == 400
    assert b"Say which team" in page.content


# --- commands ------------------------------------------------------------------------------------------------------


def run(*arguments):
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def test_the_commands_make_a_team_a_member_and_a_link(client, db):
    made = json.loads(run("create_team", "green", "--name", "Green team", "--json"))
    assert Team.objects.get(public_id=made["id"]).name == made["name"] == "Green team"
    told = run("add_member", "green", "carol", "--role", "reviewer", "--email", "carol@example.org")
    client.post(re.search(r"/signin/\S+", told)[0])
    carol = User.objects.get(email="carol@example.org")
    assert signed_in_as(client) == str(carol.pk)
    assert access.role_of(carol, Team.objects.get()) == "reviewer"
    assert "/signin/" not in run("add_member", "green", "carol", "--role", "owner")
    assert "/signin/" in run("add_member", "green", "carol", "--role", "owner", "--link")
    again = Client()
    again.post(run("sign_in_link", "carol").strip())
    assert signed_in_as(again) == str(carol.pk)


@pytest.mark.parametrize(
    "arguments",
    [
        ("create_team", "red"),
        ("create_team", "not a slug"),
        ("create_team", "x" * 61),
        ("add_member", "none", "carol", "--role", "owner"),
        ("add_member", "red", "not a name", "--role", "owner"),
        ("add_member", "red", "alice", "--role", "viewer"),
        ("sign_in_link", "nobody"),
        ("sign_in_link", "alice", "--minutes", "0"),
    ],
)
def test_the_commands_refuse_with_a_sentence(team, arguments):
    before = (Team.objects.count(), User.objects.count(), Membership.objects.filter(role="owner").count())
    with pytest.raises(CommandError, match=r"\w+ \w+ \w+"):
        run(*arguments)
    assert (Team.objects.count(), User.objects.count(), Membership.objects.filter(role="owner").count()) == before


# --- errors --------------------------------------------------------------------------------------------------------


def test_every_error_of_the_api_has_one_shape(alice_client, client):
    answers = [
        (client.get("/api/v1/sessions/"), 401, "not_authenticated"),
        (alice_client.get("/api/v1/nowhere/"), 404, "not_found"),
        (alice_client.delete("/api/v1/sessions/"), 405, "method_not_allowed"),
        (alice_client.get("/api/v1/sessions/?team=nowhere"), 404, "not_found"),
    ]
    for answer, status, code in answers:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (status, code)
        assert set(error) == {"code", "message", "detail"}
        assert error["message"]


def test_the_handler_translates_what_views_raise(rf):
    from django.db import OperationalError
    from rest_framework import exceptions, serializers

    from auditweb.errors import ApiError, handler

    def told(exc):
        request = rf.get("/")
        request.user = None
        response = handler(exc, {"request": request, "view": None})
        return response.status_code, response.data["error"], response.headers

    assert told(BadRequest("Say which team."))[:2] == (
        400, {"code": "bad_request", "message": "Say which team.", "detail": None},
    )  # fmt: skip
    assert told(ApiError(409, "offset", "Too early.", {"expected": 7}))[:2] == (
        409, {"code": "offset", "message": "Too early.", "detail": {"expected": 7}},
    )  # fmt: skip
    assert told(serializers.ValidationError({"size": ["Too small."]}))[:2] == (
        400, {"code": "invalid", "message": "size: Too small.", "detail": {"size": ["Too small."]}},
    )  # fmt: skip
    assert told(exceptions.UnsupportedMediaType("x/y"))[0] == 415
    status, error, headers = told(exceptions.Throttled(wait=9))
    assert (status, error["code"], headers["Retry-After"]) == (429, "throttled", "9")
    status, error, headers = told(OperationalError("database is locked"))
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "locked" not in error["message"]
    assert handler(ZeroDivisionError(), {"request": rf.get("/"), "view": None}) is None


def test_pages_and_api_answer_503_when_the_database_is_busy_and_500_for_a_fault(alice_client, monkeypatch):
    from django.db import OperationalError

    alice_client.raise_request_exception = False
    for exc, status in ((OperationalError("locked"), 503), (ZeroDivisionError("secret words"), 500)):

        def fail(*args, exc=exc, **kwargs):
            raise exc

        monkeypatch.setattr(access, "team_of", fail)
        answer = alice_client.get("/team/")
        assert answer.status_code == status
        assert b"secret" not in answer.content
        assert b"locked" not in answer.content
        assert ("Retry-After" in answer.headers) is (status == 503)


def test_errors_carry_the_security_headers(client, db):
    answer = client.get("/nowhere/at/all/")
    assert answer.status_code == 404
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert client.get("/team/", headers={"Host": "evil.example"}).status_code == 400
    assert "Access-Control-Allow-Origin" not in client.get("/healthz", headers={"Origin": "https://evil.example"})


def test_a_form_without_csrf_token_is_refused(alice, team):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice)
    for path in ("/team/members/add/", "/team/keys/create/", "/accounts/logout/", "/accounts/login/"):
        answer = strict.post(path, {"username": "eve", "role": "owner"})
        assert answer.status_code == 403
        assert b"Not allowed" in answer.content
    assert signed_in_as(strict)
