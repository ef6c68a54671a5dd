"""Whose team a request is about, and what the caller may do there."""

from django.contrib.auth import get_user_model
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import Http404
from rest_framework.permissions import BasePermission

from auditweb.teams import timeout
from auditweb.teams.models import ApiKey, Membership, Role, Team

# act → (roles of people, scope of keys); no key manages a team
ACTS: dict[str, tuple[set[str], str | None]] = {
    "read": ({Role.OWNER, Role.REVIEWER, Role.VIEWER}, "read"),
    "upload": ({Role.OWNER, Role.REVIEWER}, "ingest"),
    "review": ({Role.OWNER, Role.REVIEWER}, "review"),
    "manage": ({Role.OWNER}, None),
}


def teams_of(user):
    """The teams of *user*, by name."""
    if not user.is_authenticated or not user.is_active:
        return Team.objects.none()
    return Team.objects.filter(memberships__user_id=user.pk, memberships__user__is_active=True).order_by("name", "id")


def team_of(request, named: str | None = None) -> Team:
    """The team that *request* is about: the key's, else the *named* or ``?team=`` one, else the only one.

    A team is named by slug or public id. Raises Http404 for a team that is missing or not the caller's, BadRequest when
    it takes a name to know which.
    """
    named = named or request.GET.get("team") or ""
    if not named and isinstance(key := getattr(request, "auth", None), ApiKey):
        return key.team
    mine = teams_of(request.user)
    if named:
        found = None if "\0" in named else mine.filter(slug=named).first() or mine.filter(public_id=named).first()
        if found is None:
            raise Http404("No such team.")
        return found
    first = list(mine[:2])
    if len(first) != 1:
        raise BadRequest("Say which team: add ?team= with its short name." if first else "You are in no team.")
    return first[0]


def role_of(user, team: Team) -> str | None:
    """The role of *user* in *team*; None for a stranger."""
    if not user.is_authenticated:
        return None
    found = Membership.objects.filter(user_id=user.pk, team=team, user__is_active=True).values_list("role", flat=True)
    return found.first()


def may(by, team: Team, act: str) -> bool:
    """Whether *by* (a user, or a request: then the scopes of its key count too) may *act* in *team*; see ACTS."""
    roles, scope = ACTS[act]
    key = getattr(by, "auth", None)
    if isinstance(key, ApiKey) and (scope is None or not key.has_scope(scope)):
        return False
    return role_of(getattr(by, "user", by), team) in roles


def require(by, team: Team, act: str) -> None:
    """Raise unless *by* may *act* in *team*: Http404 to strangers, PermissionDenied to members."""
    if may(by, team, act):
        return
    if role_of(getattr(by, "user", by), team) is None:
        raise Http404("No such team.")
    raise PermissionDenied("You may not do this here.")


class MayRead(BasePermission):
    """People of any role; keys with the scope ``read``."""

    act = "read"
    code: str | None = None  # what the refusal says, for DRF
    message: str | None = None

    def has_permission(self, request, view):
        if not request.user.is_authenticated:
            return False
        scope = ACTS[self.act][1]
        if not isinstance(request.auth, ApiKey) or (scope is not None and request.auth.has_scope(scope)):
            return True
        self.code, self.message = "missing_scope", f"This key may not do that: it lacks the scope {scope}."
        return False

    def has_object_permission(self, request, view, obj):
        return may(request, obj if isinstance(obj, Team) else obj.team, self.act)


class MayIngest(MayRead):
    """Owners and reviewers of the object's team; keys with the scope ``ingest``."""

    act = "upload"


class MayReview(MayRead):
    """Owners and reviewers of the object's team; keys with the scope ``review``."""

    act = "review"


def still_signed_in(scope) -> bool:
    """Whether the person or key of a socket's *scope* was not signed out, disabled, revoked or expired since.

    Asks the database (blocking: call it in a thread). What they may see is another question: ``visible_to``.
    """
    user, key = scope["user"], scope.get("auth")
    if not user.is_authenticated:
        return False
    if key is not None:
        fresh = ApiKey.objects.filter(pk=key.pk, user__is_active=True).first()
        return fresh is not None and not fresh.expired
    fresh = get_user_model().objects.filter(pk=user.pk, is_active=True).first()
    return fresh is not None and timeout.holds(timeout.stored(scope["session"].session_key), fresh)
