"""The shared status log of agents: a bus and what was posted to it. Knows nothing of sessions."""

from django.db import models
from django.db.models import Q
from django.utils import timezone

from auditweb.dumps.models import Dump
from auditweb.ids import public_id
from auditweb.log import EntryKey, Log, id_range, seq_of
from auditweb.teams.models import OfTeam, Team


class StatusBuses(OfTeam):
    def called(self, word: str, team: str = "") -> "StatusBuses":
        """The bus with the public id *word*, else those of this name: at most one of each team. *team*: slug or id."""
        if "\0" in word + team:
            return self.none()
        by_id = self.filter(public_id=word)
        if by_id.exists():
            return by_id
        named = self.filter(name=word)
        return named.filter(Q(team__slug=team) | Q(team__public_id=team)) if team else named


class StatusBus(Log):
    """A log of status posts; named by the dump that it came from, or as told."""

    public_id = models.CharField(max_length=22, unique=True, default=public_id, editable=False)
    team = models.ForeignKey(Team, models.CASCADE, related_name="status_buses")
    name = models.CharField(max_length=200)
    title = models.CharField(max_length=300, blank=True)
    dumps = models.ManyToManyField(Dump, related_name="status_buses")
    entry_count = models.BigIntegerField(default=0)
    levels = models.JSONField(default=dict)  # status word → entries
    agents = models.JSONField(default=dict)  # agent → entries
    first_us = models.BigIntegerField(null=True)
    last_us = models.BigIntegerField(null=True)

    objects = StatusBuses.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "name"], name="bus_name_in_team")]

    def __str__(self):
        return self.title or self.name

    @property
    def entries(self):
        """The entries of this log, oldest ``seq`` first."""
        return StatusEntry.objects.filter(id__range=id_range(self.pk)).order_by("id")


class StatusEntry(models.Model):
    """One post. ``id`` is ``bus.pk * 2**32 + seq``; times as on sessions' events."""

    id = EntryKey(primary_key=True)
    ts_text = models.CharField(max_length=200)
    at_us = models.BigIntegerField(null=True)
    sort_us = models.BigIntegerField(default=0)
    ts_quality = models.CharField(max_length=8)
    agent = models.CharField(max_length=200)
    action = models.CharField(max_length=200)
    status = models.CharField(max_length=200)
    detail = models.TextField()
    extra = models.TextField()
    cut = models.IntegerField(null=True)
    flags = models.CharField(max_length=200)
    # No index: sinks forget a dump by ranges of keys, a cascade would read the whole table whenever a dump goes.
    dump = models.ForeignKey(Dump, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False)
    line = models.BigIntegerField()

    @property
    def seq(self) -> int:
        return seq_of(self.id)


ENTRY_COLUMNS = (
    "ts_text", "at_us", "sort_us", "ts_quality", "agent", "action", "status", "detail", "extra", "cut", "flags",
    "dump_id", "line",
)  # fmt: skip


class StatusSummary(models.Model):
    """The text that the producer itself would print of a bus, as of ``seq`` and ``revision``; zlib-compressed."""

    bus = models.OneToOneField(StatusBus, models.CASCADE, related_name="summary")
    seq = models.BigIntegerField()
    revision = models.IntegerField()
    text = models.BinaryField()


class PostKey(models.Model):
    """An ``Idempotency-Key`` that posts came with: which lines of their stream they became."""

    dump = models.ForeignKey(Dump, models.CASCADE, related_name="+")
    key = models.CharField(max_length=200)
    digest = models.CharField(max_length=64)  # SHA-256 of the body
    first = models.BigIntegerField()
    last = models.BigIntegerField()
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["dump", "key"], name="post_key_once")]
