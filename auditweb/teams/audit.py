"""Who did what, when, from where, with what result: written in the transaction of the act, or the act fails."""

import ipaddress
import json
from datetime import timedelta

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import transaction
from django.utils import timezone

from auditweb.teams.models import ApiKey, AuditRecord, Result, Team

VIEW_AGAIN = timedelta(minutes=15)  # a person who keeps reading one thing is recorded once per this time
COMMAND_LINE = "command line"


def record(actor, action: str, target=None, team: Team | None = None, result: str = Result.OK, **detail) -> AuditRecord:
    """One new audit record, written in the caller's transaction.

    *actor*: a request (Django's or DRF's: person or key and address are taken from it), a User, or None for the command
    line. *target*: a model instance, or a tuple ``(kind, id, name)``. *team*: by default the target's, else the key's.
    *detail*: what else is worth knowing, as JSON; never secrets, never transcript text.
    """
    user, name, key, where = _actor(actor)
    kind, target_id, target_name = _target(target)
    if team is None:
        team = target if isinstance(target, Team) else getattr(target, "team", None) or (key.team if key else None)
    return AuditRecord.objects.create(
        team=team,
        actor=user,
        actor_name=name[:200],
        action=action,
        target_kind=kind,
        target_id=target_id,
        target_name=target_name,
        result=result,
        detail=json.dumps(detail, default=str, sort_keys=True) if detail else "",
        address=where,
    )


def viewed(request, target, team: Team | None = None) -> AuditRecord | None:
    """Record that the caller looked at *target*; None when that was recorded within the last 15 minutes.

    Arguments as in ``record``.
    """
    user = request.user
    kind, target_id, _ = _target(target)
    recent = AuditRecord.objects.filter(
        target_id=target_id,
        actor_id=user.pk,
        action="view",
        target_kind=kind,
        created_at__gt=timezone.now() - VIEW_AGAIN,
    )
    if recent.exists():
        return None
    with transaction.atomic():
        # A page and its API calls arrive together: the second one waits here and finds the record of the first.
        get_user_model().objects.select_for_update().get(pk=user.pk)
        return None if recent.exists() else record(request, "view", target, team)


def address(request) -> str | None:
    """The network address of the caller; None when there is none (a Unix socket).

    Behind a proxy (``PUBLIC_URL`` is set) it is the last entry of X-Forwarded-For, the one that the proxy itself wrote;
    without one that header is a claim of the client and is ignored.
    """
    meta = request.META
    claims = [meta.get("REMOTE_ADDR")]
    if settings.PUBLIC_URL and "HTTP_X_FORWARDED_FOR" in meta:
        claims.insert(0, meta["HTTP_X_FORWARDED_FOR"].rpartition(",")[2])
    for claim in claims:
        try:
            return str(ipaddress.ip_address((claim or "").strip()))
        except ValueError:
            continue
    return None


def storable(text: str) -> str:
    """*text* as both databases can hold it: a NUL becomes U+2400, a lone surrogate ``?``."""
    return text.replace("\0", "\u2400").encode("utf-8", "replace").decode()


def connect() -> None:
    """Record sign-in, failed sign-in and sign-out, and changes of passwords."""
    from allauth.account.signals import password_changed, password_set

    user_logged_in.connect(_signed_in, dispatch_uid="audit")
    user_login_failed.connect(_sign_in_failed, dispatch_uid="audit")
    user_logged_out.connect(_signed_out, dispatch_uid="audit")
    password_changed.connect(_password_changed, dispatch_uid="audit")
    password_set.connect(_password_changed, dispatch_uid="audit")


def _signed_in(sender, request, user, **kwargs):
    by = getattr(request, "signed_in_by", "password")
    record(_As(request, user), "sign_in", team=_only_team(user), by=by)


def _sign_in_failed(sender, credentials, request=None, **kwargs):
    typed = credentials.get("username") or credentials.get("email") or credentials.get("login") or ""
    known = get_user_model().objects.filter(username=storable(str(typed))).first() if typed else None
    # A name that nobody has may be a password typed into the wrong field: it is not kept.
    target = ("user", "", known.get_username()) if known else None
    record(_As(request, None), "sign_in_failed", target, team=_only_team(known), result=Result.FAILED)


def _signed_out(sender, request, user, **kwargs):
    if user is not None and user.is_authenticated:
        by = getattr(request, "signed_out_by", "person")
        record(_As(request, user), "sign_out", team=_only_team(user), by=by)


def _password_changed(sender, request, user, **kwargs):
    record(_As(request, user), "change", ("user", "", user.get_username()), team=_only_team(user), what="password")


class _As:
    """A request whose user is given: around a sign-in the request itself still (or already) has another."""

    def __init__(self, request, user):
        self.META = request.META if request is not None else {}
        self.user = user
        self.auth = None


def _only_team(user) -> Team | None:
    teams = list(user.teams.all()[:2]) if user is not None else []
    return teams[0] if len(teams) == 1 else None


def _actor(by):
    """→ (user or None, name, key or None, address or None)."""
    if by is None:
        return None, COMMAND_LINE, None, None
    if not hasattr(by, "META"):
        return by, by.get_username(), None, None
    user = by.user if by.user is not None and by.user.is_authenticated else None
    key = getattr(by, "auth", None)
    if isinstance(key, ApiKey):
        return user, f"key {key.name}", key, address(by)
    return user, user.get_username() if user else "anonymous", None, address(by)


def _target(target):
    if target is None:
        return "", "", ""
    if not isinstance(target, tuple):
        target = (target._meta.model_name, getattr(target, "public_id", ""), str(target))
    kind, target_id, name = (storable(str(part)) for part in target)
    return kind[:20], target_id[:22], name[:300]
