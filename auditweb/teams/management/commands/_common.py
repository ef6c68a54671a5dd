"""What the commands about people share: finding rows by the words that were typed."""

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import CommandError

from auditweb.teams.models import Team


def team(slug: str) -> Team:
    """The team with this short name or id. Raises CommandError."""
    found = Team.objects.filter(slug=slug).first() or Team.objects.filter(public_id=slug).first()
    if found is None:
        known = ", ".join(Team.objects.order_by("slug").values_list("slug", flat=True)[:20]) or "none yet"
        raise CommandError(f"There is no team {slug} (teams: {known}). `manage.py create_team {slug}` creates it.")
    return found


def person(username: str):
    """The person with this user name. Raises CommandError."""
    found = get_user_model().objects.filter(username=username, is_service=False).first()
    if found is None:
        raise CommandError(f"There is no user {username}. `manage.py add_member TEAM {username}` creates one.")
    return found


def address(path: str) -> str:
    """*path* as a whole address where the server's own address is known, else as it is."""
    return f"{settings.PUBLIC_URL}{path}"
