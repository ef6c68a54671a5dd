"""What was received: uploads, their numbered lines, how far each import got, and the lines that could not be read."""

from django.db import models
from django.utils import timezone

from auditweb.ids import public_id
from auditweb.teams.models import OfTeam, Team, User


class Upload(models.Model):
    """Bytes as received. The same bytes exist once per team: a second arrival points to the first.

    A file that grew is one upload for each length at which it arrived: ``grew_into`` is the dump that these bytes are
    the beginning of, once a longer file is what that dump holds.
    """

    public_id = models.CharField(max_length=22, unique=True, default=public_id, editable=False)
    team = models.ForeignKey(Team, models.CASCADE, related_name="uploads")
    name = models.CharField(max_length=300)
    size = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    grew_into = models.ForeignKey("Dump", models.CASCADE, null=True, related_name="earlier_uploads")
    skipped = models.JSONField(default=list)  # members of an archive that are no dumps: [{"name", "reason"}]

    objects = OfTeam.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["team", "sha256"], condition=~models.Q(sha256=""), name="same_bytes_once_per_team"
            )
        ]


class State(models.TextChoices):
    """Where a dump stands; ``live`` is a growing one."""

    RECEIVING = "receiving"
    QUEUED = "queued"
    IMPORTING = "importing"
    LIVE = "live"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Stamp(models.TextChoices):
    """What the time of a tool call means, where somebody told it: "" is as its format says."""

    START = "start"
    END = "end"


class Unpacked(models.TextChoices):
    """How much of an archive's content became the lines of its dump; "" = nothing yet, or it is no archive."""

    WHOLE = "whole"
    BROKEN = "broken"  # what could be read before the damage; waits until somebody says that it may be imported
    ANYWAY = "anyway"  # somebody did


class Layer(models.IntegerChoices):
    """Which bytes a chunk holds. Of a plain file they are the same, and stored once, as received."""

    RECEIVED = 0
    LINES = 1  # what was in the archive, one object per line


class Dump(models.Model):
    """One sequence of lines numbered from 1, and the job that imports it.

    ``container`` names what its lines were in, outermost first: gzip, zip, array, objects, sequence, cr ("gzip array");
    ``member`` is the position in a zip. Until such a dump is ``unpacked``, ``size``, ``newlines`` and ``chunk_count``
    count its bytes as received, afterwards its lines; ``sha256`` is always that of the bytes as received.

    The row is the queue: ``lease_token`` names the worker that owns the import until ``lease_until`` (seconds since the
    epoch); every batch renews the lease and moves the checkpoint in the transaction of its rows, so a worker that lost
    the lease cannot commit. ``attempts`` counts the starts since the checkpoint last moved.
    """

    public_id = models.CharField(max_length=22, unique=True, default=public_id, editable=False)
    team = models.ForeignKey(Team, models.CASCADE, related_name="dumps")
    upload = models.ForeignKey(Upload, models.CASCADE, null=True, related_name="dumps")
    name = models.CharField(max_length=300)
    stream = models.CharField(max_length=200, blank=True)  # what its producer calls it; "" = no producer, an upload
    state = models.CharField(max_length=10, choices=State.choices, default=State.RECEIVING)
    error = models.TextField(blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    # bytes and lines as received
    size = models.BigIntegerField(default=0)
    declared_size = models.BigIntegerField(null=True)
    newlines = models.BigIntegerField(default=0)
    chunk_count = models.IntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    head = models.CharField(max_length=64, blank=True)  # SHA-256 of line 1 of a plain file: finds what a file grew from
    container = models.CharField(max_length=40, blank=True)
    member = models.IntegerField(null=True)
    unpacked = models.CharField(max_length=6, choices=Unpacked.choices, blank=True)

    # how its lines are read
    zone = models.CharField(max_length=60, blank=True)
    zone_source = models.CharField(max_length=10, blank=True)  # told, inferred, assumed
    offset_ms = models.BigIntegerField(default=0)
    stamp = models.CharField(max_length=5, choices=Stamp.choices, blank=True)
    join = models.BooleanField(default=False)  # the producers' own session ids mean the same session in other dumps
    session_key = models.CharField(max_length=200, blank=True)
    bus_name = models.CharField(max_length=200, blank=True)

    # how far the import got
    lines = models.BigIntegerField(default=0)
    bytes_read = models.BigIntegerField(default=0)
    blank_lines = models.BigIntegerField(default=0)
    bad_line_count = models.BigIntegerField(default=0)
    naive_lines = models.BigIntegerField(default=0)
    events = models.BigIntegerField(default=0)
    records = models.JSONField(default=dict)
    checkpoint = models.JSONField(default=dict)
    lease_token = models.CharField(max_length=22, blank=True)
    lease_until = models.FloatField(default=0)
    heartbeat_at = models.DateTimeField(null=True)
    attempts = models.IntegerField(default=0)

    objects = OfTeam.as_manager()

    grown = False  # no column: whether the bytes that were just finished made this dump longer (store.finish)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "stream"], condition=~models.Q(stream=""), name="stream_in_team")
        ]
        indexes = [
            models.Index(fields=["team", "-id"], name="dumps_by_team"),
            models.Index(fields=["heartbeat_at"], condition=models.Q(state="live"), name="dumps_live"),
            models.Index(fields=["team", "head"], condition=~models.Q(head=""), name="dumps_by_head"),
            models.Index(fields=["created_at"], condition=models.Q(state="receiving"), name="dumps_unfinished"),
            models.Index(
                fields=["lease_until"], condition=models.Q(state__in=["queued", "importing"]), name="dumps_to_run"
            ),
        ]

    def __str__(self):
        return self.name

    @property
    def active(self) -> bool:
        return self.state in (State.RECEIVING, State.QUEUED, State.IMPORTING)

    @property
    def layer(self) -> Layer:
        """Which of its chunks hold its lines, or its bytes as received as long as there are no others."""
        return Layer.LINES if self.unpacked else Layer.RECEIVED

    @property
    def packed(self) -> bool:
        """Whether its lines have yet to be taken out of an archive."""
        return bool(self.container) and self.unpacked not in (Unpacked.WHOLE, Unpacked.ANYWAY)

    @property
    def waits_for_consent(self) -> bool:
        """Whether it is a damaged archive of which a part can be imported, if somebody says so."""
        return self.state == State.FAILED and self.unpacked == Unpacked.BROKEN

    @property
    def progress(self) -> float:
        """Share of the bytes that were imported, 0 to 1."""
        if self.state == State.DONE:
            return 1.0
        if self.packed:
            return 0.0
        return min(1.0, self.bytes_read / self.size) if self.size else 0.0

    @property
    def lines_per_s(self) -> float | None:
        """Average speed of the import so far; None before there is one."""
        end = self.finished_at or self.heartbeat_at
        lines = self.lines - self.checkpoint.get("before", 0)  # of a file that grew, only the rest was read now
        if not self.started_at or not end or lines <= 0:
            return None
        seconds = (end - self.started_at).total_seconds()
        return lines / seconds if seconds > 0 else None


class DumpChunk(models.Model):
    """A run of bytes of a dump, zlib-compressed. ``first_line``: number of the line that its first byte is in."""

    dump = models.ForeignKey(Dump, models.CASCADE, related_name="chunks")
    layer = models.SmallIntegerField(choices=Layer.choices, default=Layer.RECEIVED)
    number = models.IntegerField()
    offset = models.BigIntegerField()
    size = models.IntegerField()
    first_line = models.BigIntegerField()
    newlines = models.IntegerField()
    data = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["dump", "layer", "number"], name="chunk_number")]
        indexes = [models.Index(fields=["dump", "layer", "first_line"], name="chunk_by_line")]


class BadLine(models.Model):
    """A line that could not be read: where it is and why. Its bytes stay in the dump."""

    dump = models.ForeignKey(Dump, models.CASCADE, related_name="bad_lines")
    line = models.BigIntegerField()
    offset = models.BigIntegerField()
    size = models.BigIntegerField()
    reason = models.CharField(max_length=300)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["dump", "line"], name="bad_line_once")]
