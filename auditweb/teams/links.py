"""Links that sign one person in once: the way in on the first start, and for whoever lost a password."""

import hashlib
import secrets
from datetime import timedelta

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from auditweb.teams.models import Membership, Role, SignInLink, Team

FIRST_TEAM, FIRST_USER = "default", "admin"


def make(user, minutes: float = 60 * 24) -> str:
    """The path of a new link that signs *user* in once within *minutes*. Only its hash is stored."""
    token = secrets.token_urlsafe(32)
    now = timezone.now()
    SignInLink.objects.filter(Q(expires_at__lt=now) | Q(used_at__isnull=False)).delete()
    SignInLink.objects.create(user=user, digest=_digest(token), expires_at=now + timedelta(minutes=minutes))
    return reverse("sign-in-link", args=[token])


def peek(token: str):
    """The person whom *token* would sign in, without using it up; None for a used, expired or unknown one."""
    link = _open(token).filter(user__is_active=True).select_related("user").first()
    return link.user if link else None


def use(token: str):
    """The person whom *token* signs in, once: of two at the same moment one gets None."""
    with transaction.atomic():
        user = peek(token)
        # No join in this condition: PostgreSQL would not look again at a row that somebody else just changed.
        if user is None or not _open(token).update(used_at=timezone.now()):
            return None
        return user


def first_run() -> str | None:
    """The path of a link for the first user as long as nobody has ever signed in; None afterwards.

    On a fresh database it makes the team ``default`` and its owner ``admin``, who has no password yet.
    """
    users = get_user_model().objects
    with transaction.atomic():
        people = users.filter(is_service=False)
        if people.filter(last_login__isnull=False).exists():
            return None
        admin = people.filter(username=FIRST_USER).first()
        if admin is None:
            if people.exists():
                return None
            admin = users.create_user(FIRST_USER)
        team, _ = Team.objects.get_or_create(slug=FIRST_TEAM, defaults={"name": FIRST_TEAM.capitalize()})
        Membership.objects.get_or_create(team=team, user=admin, defaults={"role": Role.OWNER})
        SignInLink.objects.filter(user=admin).delete()
        return make(admin)


def _open(token: str):
    return SignInLink.objects.filter(digest=_digest(token), used_at=None, expires_at__gt=timezone.now())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
