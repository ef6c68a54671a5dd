"""The truth: sessions and their numbered events."""

from django.db import models

from auditweb.dumps.models import Dump
from auditweb.ids import public_id
from auditweb.log import EntryKey, Log, id_range, seq_of
from auditweb.teams.models import OfTeam, Team
from status_app.models import StatusBus


class Session(Log):
    """One conversation or run. Everything but the identity is counted from its events and can be rebuilt."""

    public_id = models.CharField(max_length=22, unique=True, default=public_id, editable=False)
    team = models.ForeignKey(Team, models.CASCADE, related_name="sessions")
    key = models.CharField(max_length=230)  # the id of a dump and a name of 200 characters
    title = models.CharField(max_length=300)
    dumps = models.ManyToManyField(Dump, related_name="sessions")
    status_bus = models.ForeignKey(StatusBus, models.SET_NULL, null=True, related_name="sessions")
    live = models.BooleanField(default=False)  # a stream that feeds it has not ended
    heard_at = models.DateTimeField(null=True)  # the last heartbeat of a producer that had nothing to say
    ended_at = models.DateTimeField(null=True)  # when the last of its streams did

    # counted by projection.py
    opening = models.CharField(max_length=200, blank=True)  # first words of the first user turn
    channel = models.CharField(max_length=200, blank=True)
    participant = models.CharField(max_length=200, blank=True)
    agents = models.JSONField(default=dict)  # agent → events
    tools = models.JSONField(default=dict)  # tool → calls
    tool_statuses = models.JSONField(default=dict)  # status word → calls
    kinds = models.JSONField(default=dict)  # kind → events
    event_count = models.BigIntegerField(default=0)
    user_turns = models.BigIntegerField(default=0)
    assistant_turns = models.BigIntegerField(default=0)
    turn_count = models.BigIntegerField(default=0)
    tool_calls = models.BigIntegerField(default=0)
    tool_failures = models.BigIntegerField(default=0)
    tool_ms = models.FloatField(default=0)
    vision_count = models.BigIntegerField(default=0)
    interruptions = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    status_count = models.BigIntegerField(default=0)
    severities = models.JSONField(default=dict)  # severity → events
    run_count = models.BigIntegerField(default=0)
    denials = models.BigIntegerField(default=0)  # decisions that forbade something
    loops = models.BigIntegerField(default=0)  # loop warnings and blocks that mean something
    memory_count = models.BigIntegerField(default=0)
    task_count = models.BigIntegerField(default=0)
    observation_count = models.BigIntegerField(default=0)
    first_us = models.BigIntegerField(null=True)
    last_us = models.BigIntegerField(null=True)
    duration_us = models.GeneratedField(
        expression=models.F("last_us") - models.F("first_us"),
        output_field=models.BigIntegerField(null=True),
        db_persist=True,
    )

    # how far projection.py is: the last event in display order, and what waits for its end
    order_us = models.BigIntegerField(null=True)
    order_dump = models.BigIntegerField(default=0)
    order_line = models.BigIntegerField(default=0)
    unordered = models.BooleanField(default=False)
    unfinished = models.TextField(default="", blank=True)  # JSON whose order counts: jsonb would lose it

    objects = OfTeam.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "key"], name="session_key_in_team")]
        indexes = [
            models.Index(fields=["team", "first_us", "id"], name="sessions_by_start"),
            models.Index(fields=["team", "updated_at", "id"], name="sessions_by_update"),
            models.Index(fields=["team", "title", "id"], name="sessions_by_title"),
            models.Index(fields=["team", "duration_us", "id"], name="sessions_by_duration"),
            models.Index(fields=["team", "event_count", "id"], name="sessions_by_events"),
            models.Index(fields=["team", "turn_count", "id"], name="sessions_by_turns"),
            models.Index(fields=["team", "tool_calls", "id"], name="sessions_by_tools"),
            models.Index(fields=["team", "tool_failures", "id"], name="sessions_by_failures"),
            models.Index(fields=["team", "interruptions", "id"], name="sessions_by_interruptions"),
            models.Index(fields=["team", "vision_count", "id"], name="sessions_by_vision"),
            models.Index(fields=["team", "errors", "id"], name="sessions_by_errors"),
            models.Index(fields=["team", "status_count", "id"], name="sessions_by_status"),
            models.Index(fields=["team", "id"], condition=models.Q(live=True), name="sessions_live"),
        ]

    def __str__(self):
        return self.title

    @property
    def events(self):
        """The events of this session, oldest ``seq`` first."""
        return Event.objects.filter(id__range=id_range(self.pk)).order_by("id")

    @property
    def duration_s(self) -> float | None:
        """Latest minus earliest readable time, in seconds; None when no event has one."""
        if self.first_us is None or self.last_us is None:
            return None
        return (self.last_us - self.first_us) / 1e6


class Event(models.Model):
    """One thing that happened, written once. ``id`` is ``session.pk * 2**32 + seq``: there is no other key.

    ``at_us`` (UTC microseconds) and ``sort_us`` (its place in display order) follow from ``ts_text`` and the zone,
    offset and fold of its dump: the only columns that may be computed again. ``extra`` is JSON text of what has no
    column; the whole object is the line of the dump.
    """

    id = EntryKey(primary_key=True)
    ts_text = models.CharField(max_length=200)
    at_us = models.BigIntegerField(null=True)
    sort_us = models.BigIntegerField(default=0)
    ts_quality = models.CharField(max_length=8)  # aware, inferred, assumed, missing
    kind = models.CharField(max_length=200)
    lane = models.CharField(max_length=12)
    role = models.CharField(max_length=200)
    agent = models.CharField(max_length=200)
    tool = models.CharField(max_length=200)
    status = models.CharField(max_length=200)
    duration_ms = models.FloatField(null=True)
    text = models.TextField()
    visibility = models.CharField(max_length=200)
    ref = models.CharField(max_length=200, default="")  # its producer's id of the turn or run that it belongs to
    severity = models.CharField(max_length=200, default="")
    extra = models.TextField()
    cut = models.IntegerField(null=True)
    flags = models.CharField(max_length=200)
    # No index: sinks forget a dump by ranges of keys, a cascade would read the whole table whenever a dump goes.
    dump = models.ForeignKey(Dump, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False)
    line = models.BigIntegerField()

    @property
    def seq(self) -> int:
        return seq_of(self.id)

    @property
    def flag_list(self) -> list[str]:
        return self.flags.split()


# The order in which ingest stores and projection reads; without the id.
EVENT_COLUMNS = (
    "ts_text", "at_us", "sort_us", "ts_quality", "kind", "lane", "role", "agent", "tool", "status", "duration_ms",
    "text", "visibility", "ref", "severity", "extra", "cut", "flags", "dump_id", "line",
)  # fmt: skip
