"""Who may see what, and what they did. Knows no session."""

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.utils import timezone
from knox.models import AbstractAuthToken, AuthTokenManager

from auditweb.ids import public_id


class User(AbstractUser):  # type: ignore[django-manager-missing]
    """A person, or the service user that stands behind an API key."""

    is_service = models.BooleanField(default=False)


class Role(models.TextChoices):
    """What a member may do: a viewer reads, a reviewer also judges and uploads, an owner also manages the team."""

    OWNER = "owner"
    REVIEWER = "reviewer"
    VIEWER = "viewer"


class Team(models.Model):  # type: ignore[django-manager-missing]
    """The tenant: everything that is stored belongs to one team."""

    public_id = models.CharField(max_length=22, unique=True, default=public_id, editable=False)
    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(max_length=120)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    members = models.ManyToManyField(User, through="Membership", related_name="teams")
    # {} = never had the demo; {"dumps": {public id: sha256}} = what was loaded as such, empty once it was removed
    demo = models.JSONField(default=dict, blank=True, editable=False)

    def __str__(self):
        return self.name


class Membership(models.Model):
    """One person's role in one team."""

    team = models.ForeignKey(Team, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.VIEWER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "user"], name="one_role_per_team")]


class OfTeam(models.QuerySet):
    """Rows that belong to a team; the base of every query that a person or a key causes."""

    def visible_to(self, user):
        """Only the rows of teams in which *user* is a member; nothing for an anonymous or disabled one.

        Asks the database whether the person is still active: sockets hold *user* for hours.
        """
        if not user.is_authenticated or not user.is_active:
            return self.none()
        return self.filter(team__in=Membership.objects.filter(user_id=user.pk, user__is_active=True).values("team"))


class ApiKey(AbstractAuthToken):
    """A hashed bearer key of a team. Its ``user`` is a service user who is a member of that team only."""

    objects = AuthTokenManager()

    public_id = models.CharField(max_length=22, unique=True, default=public_id, editable=False)
    team = models.ForeignKey(Team, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=120)
    scopes = models.CharField(max_length=60)  # words of: ingest read review
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    last_used_at = models.DateTimeField(null=True)

    def __str__(self):
        return self.name

    def has_scope(self, scope: str) -> bool:
        return scope in self.scopes.split()

    @property
    def expired(self) -> bool:
        return self.expiry is not None and self.expiry <= timezone.now()


class SignInLink(models.Model):
    """A link that signs one person in once. Only the SHA-256 of its token is stored."""

    user = models.ForeignKey(User, models.CASCADE, related_name="sign_in_links")
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)


class AppendOnly(TypeError):
    """Somebody tried to change or delete an audit record."""

    def __init__(self):
        super().__init__("Audit records are never changed or deleted.")


RATE_LIMITED = "rate_limited"  # the action of a refusal for too many requests


class AuditRecords(OfTeam):
    """Audit records, to be read only. Triggers in the database refuse what goes past this class."""

    def visible_to_owner(self, user, team):
        """What happened in *team*, and the sign-ins of its members, which belong to no team; newest first.

        Nothing unless *user* owns the team: members do not read about each other.
        """
        owns = Membership.objects.filter(user_id=user.pk, team=team, role=Role.OWNER, user__is_active=True)
        if not owns.exists():
            return self.none()
        people = team.memberships.values("user")
        names = team.memberships.values("user__username")
        outside = Q(actor__in=people) | Q(target_kind="user", target_name__in=names)
        return self.filter(Q(team=team) | Q(team=None) & outside).order_by("-id")

    def last_refusal(self):
        """A subquery for keys: when one was last told that it is too fast; recorded once an hour."""
        of_key = self.filter(target_id=models.OuterRef("public_id"), target_kind="apikey", action=RATE_LIMITED)
        return models.Subquery(of_key.order_by("-id").values("created_at")[:1])

    def update(self, **fields):
        raise AppendOnly

    def bulk_update(self, *args, **options):
        raise AppendOnly

    def delete(self):
        raise AppendOnly


class Result(models.TextChoices):
    OK = "ok"
    FAILED = "failed"
    DENIED = "denied"


class AuditRecord(models.Model):
    """What somebody did, written in the transaction of the act; never changed afterwards.

    Deleting a team or a person empties the reference to it and nothing else: the names stay.
    """

    team = models.ForeignKey(Team, models.SET_NULL, null=True, related_name="audit_records")
    actor = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    actor_name = models.CharField(max_length=200)
    action = models.CharField(max_length=40)
    target_kind = models.CharField(max_length=20, blank=True)
    target_id = models.CharField(max_length=22, blank=True)
    target_name = models.CharField(max_length=300, blank=True)
    result = models.CharField(max_length=6, choices=Result.choices, default=Result.OK)
    detail = models.TextField(blank=True)  # JSON, or nothing
    address = models.GenericIPAddressField(null=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = AuditRecords.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["team", "-id"], name="audit_by_team"),
            models.Index(fields=["target_id", "actor", "-id"], name="audit_by_target"),
        ]

    def __str__(self):
        return f"{self.actor_name} {self.action} {self.target_name}".rstrip()

    def save(self, *args, **options):
        if not self._state.adding:
            raise AppendOnly
        options["force_insert"] = True
        super().save(*args, **options)

    def delete(self, *args, **options):
        raise AppendOnly
