"""Who belongs to a team: adding, changing and removing people; a team always keeps an owner."""

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import transaction

from auditweb.teams import audit
from auditweb.teams.models import Membership, Role, Team


class LastOwner(ValueError):
    """The act would leave a team that nobody can manage."""

    def __init__(self):
        super().__init__("A team keeps at least one owner: make somebody else an owner first.")


def create_team(slug: str, name: str = "", by=None) -> Team:
    """A new team. Raises ValueError with a sentence when the short name is taken or is none."""
    team = Team(slug=slug, name=name or slug)
    with transaction.atomic():
        try:
            team.full_clean()
        except ValidationError as e:
            raise ValueError(" ".join(e.messages)) from e
        team.save()
        audit.record(by, "create_team", team)
    return team


def add(team: Team, username: str, role: str, by=None, email: str = "") -> tuple[Membership, bool]:
    """Make *username* a member of *team* with *role*, or change the role; → (membership, whether the person is new).

    A person who does not exist yet is created without a password: a sign-in link lets them in. Raises ValueError with a
    sentence for an impossible name, LastOwner.
    """
    users = get_user_model().objects
    with transaction.atomic():
        person = users.filter(username=username, is_service=False).first()
        created = person is None
        if created:
            person = get_user_model()(username=username, email=email)
            person.set_unusable_password()
            try:
                person.full_clean()
            except ValidationError as e:
                raise ValueError(" ".join(e.messages)) from e
            person.save()
            audit.record(by, "create_user", ("user", "", username), team=team)
        membership, added = Membership.objects.get_or_create(team=team, user=person, defaults={"role": role})
        if added:
            audit.record(by, "member_added", ("user", "", username), team=team, role=role)
        elif membership.role != role:
            change(membership, role, by)
    return membership, created


def change(membership: Membership, role: str, by=None) -> None:
    """Give a member another role. Raises LastOwner."""
    with transaction.atomic():
        _keep_an_owner(membership, role)
        was, membership.role = membership.role, role
        membership.save(update_fields=["role"])
        person = ("user", "", membership.user.get_username())
        audit.record(by, "member_changed", person, team=membership.team, role=role, was=was)


def remove(membership: Membership, by=None) -> None:
    """End a membership. Raises LastOwner."""
    with transaction.atomic():
        _keep_an_owner(membership, None)
        person = ("user", "", membership.user.get_username())
        audit.record(by, "member_removed", person, team=membership.team, was=membership.role)
        membership.delete()


def _keep_an_owner(membership: Membership, role: str | None) -> None:
    # Two owners who remove each other at the same moment: the lock on the team lets the second one see the first.
    Team.objects.select_for_update().get(pk=membership.team_id)
    if role == Role.OWNER or membership.role != Role.OWNER:
        return
    owners = Membership.objects.filter(team=membership.team_id, role=Role.OWNER, user__is_active=True)
    if not owners.exclude(pk=membership.pk).exists():
        raise LastOwner
