"""API keys: made once, stored hashed, checked on every request."""

import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.utils import timezone
from knox.auth import TokenAuthentication
from knox.crypto import hash_token
from rest_framework.authentication import get_authorization_header
from rest_framework.exceptions import AuthenticationFailed

from auditweb.teams import audit
from auditweb.teams.models import ApiKey, Membership, Role, Team

SCOPES = {"ingest": "send dumps and live lines", "read": "read what the team sees", "review": "comment and judge"}
PREFIX = "awk_"
SHAPE = re.compile(PREFIX + r"[0-9a-f]{64}\Z")
SEEN_EVERY = timedelta(minutes=1)


def create(team: Team, name: str, scopes, by=None, days: int | None = None) -> tuple[ApiKey, str]:
    """A new key of *team* with the given *scopes* and its text, which is not stored and cannot be shown again.

    *by*: as in ``audit.record``. *days*: until it expires; None for never. Raises ValueError with a sentence.
    """
    scopes = [scope for scope in SCOPES if scope in set(scopes)] if set(scopes) <= set(SCOPES) else []
    if not scopes:
        raise ValueError(f"A key needs scopes: one or more of {', '.join(SCOPES)}.")
    if days is not None and not 1 <= days <= 3650:
        raise ValueError("A key lasts between 1 and 3650 days.")
    name = audit.storable(name).strip()[:120]
    if not name:
        raise ValueError("A key needs a name.")
    with transaction.atomic():
        service = get_user_model().objects.create_user(f"key-{secrets.token_hex(8)}", is_service=True)
        role = Role.VIEWER if scopes == ["read"] else Role.REVIEWER
        Membership.objects.create(team=team, user=service, role=role)
        person = by if by is None or not hasattr(by, "META") else by.user
        key, text = ApiKey.objects.create(
            service,
            expiry=timedelta(days=days) if days else None,
            team=team,
            name=name,
            scopes=" ".join(scopes),
            created_by=person,
        )
        audit.record(by, "create_key", key, scopes=scopes, days=days)
    return key, text


def revoke(key: ApiKey, by=None) -> None:
    """End *key* at once. Its service user stays, disabled, so that what it did keeps a name."""
    with transaction.atomic():
        audit.record(by, "revoke_key", key)
        Membership.objects.filter(user=key.user).delete()
        get_user_model().objects.filter(pk=key.user_id).update(is_active=False)
        key.delete()


def is_meant(text: str) -> bool:
    """Whether a Bearer header's *text* is to be one of our keys; AUDITWEB_AUTH_CALLBACK may know other kinds."""
    return text.startswith(PREFIX) or not settings.AUTH_CALLBACK


def find(text: str) -> ApiKey | None:
    """The key that *text* is: stored, unexpired, of an active user; else None. Notes that it was used."""
    if not SHAPE.match(text):
        return None
    # The digest of 256 random bits is looked up as a whole: there is nothing to guess prefix by prefix.
    key = ApiKey.objects.select_related("user", "team").filter(digest=hash_token(text)).first()
    if key is None or key.expired or not key.user.is_active:
        return None
    now = timezone.now()
    if key.last_used_at is None or now - key.last_used_at > SEEN_EVERY:
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
        key.last_used_at = now
    return key


class Sender(NamedTuple):
    """Whose key it is that may send: the service user behind it, its team."""

    user_id: int
    team_id: int


def sender(text: str) -> Sender | None:
    """Who sends with the key *text*; None when it may not, or when it takes ``find`` to tell.

    One statement past the query builder: of twenty live lines, what a request asks about its key would be a fifth.
    """
    if not SHAPE.match(text):
        return None
    with connection.cursor() as cursor:
        cursor.execute(_SENDER, [hash_token(text)])
        row = cursor.fetchone()
    if row is None:
        return None
    user_id, team_id, scopes, expiry, used_at, role = row
    if expiry is not None or "ingest" not in scopes.split() or role not in (Role.OWNER, Role.REVIEWER):
        return None
    seen = used_at if used_at is None or not isinstance(used_at, str) else datetime.fromisoformat(used_at)
    if seen is None or timezone.now() - (seen if seen.tzinfo else seen.replace(tzinfo=UTC)) > SEEN_EVERY:
        return None  # ``find`` notes that it was used
    return Sender(user_id, team_id)


_SENDER = (
    f"SELECT k.user_id, k.team_id, k.scopes, k.expiry, k.last_used_at, m.role FROM {ApiKey._meta.db_table} k "  # noqa: S608
    f"JOIN {get_user_model()._meta.db_table} u ON u.id = k.user_id AND u.is_active "
    f"JOIN {Membership._meta.db_table} m ON m.user_id = k.user_id AND m.team_id = k.team_id WHERE k.digest = %s"
)


class ApiKeyAuthentication(TokenAuthentication):
    """``Authorization: Bearer awk_…`` → (service user, ApiKey). Anything wrong with a key is the same 401."""

    def authenticate(self, request):
        words = get_authorization_header(request).split()
        if not words or words[0].lower() != b"bearer":
            return None
        token = words[1] if len(words) == 2 else b""
        return self.authenticate_credentials(token) if is_meant(token.decode("latin-1")) else None

    def authenticate_credentials(self, token: bytes):
        key = find(token.decode("latin-1"))
        if key is None:
            raise AuthenticationFailed("This key is unknown, expired or revoked.")
        return key.user, key


def schema_extension():
    """Tell drf-spectacular how the header looks; called once all apps are loaded."""
    from drf_spectacular.extensions import OpenApiAuthenticationExtension

    class ApiKeyScheme(OpenApiAuthenticationExtension):
        target_class = ApiKeyAuthentication
        name = "apiKey"
        priority = 1  # before the library's own extension for knox, which also matches subclasses

        def get_security_definition(self, auto_schema):
            return {"type": "http", "scheme": "bearer", "description": "A key of a team: awk_…"}

    return ApiKeyScheme
