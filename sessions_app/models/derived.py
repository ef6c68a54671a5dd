"""What reviewers count: derived from events, deleted and rebuilt at will, so nothing a person wrote hangs here."""

from django.db import models

from auditweb.log import EntryKey, seq_of
from sessions_app.models.log import Session


class Turn(models.Model):
    """One turn; ``id`` is ``session.pk * 2**32 + number``, and numbers follow the display order.

    A turn without ``ref`` begins with an utterance and holds all that follows it in display order, up to the next
    one. A turn with ``ref``, the producer's own id of it, holds the events that carry this id: such turns overlap when
    agents work side by side.
    """

    id = EntryKey(primary_key=True)
    role = models.CharField(max_length=200)  # user, assistant; agent for a turn from prompt to reply
    ref = models.CharField(max_length=200, default="")
    first_seq = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    started_us = models.BigIntegerField(null=True)
    ended_us = models.BigIntegerField(null=True)  # only when its producer wrote an end
    failed = models.BooleanField(default=False)  # an error with its id, and no end
    # where it begins in display order
    sort_us = models.BigIntegerField(default=0)
    dump_id = models.BigIntegerField(default=0)
    line = models.BigIntegerField(default=0)

    class Meta:
        indexes = [models.Index(fields=["ref", "id"], condition=~models.Q(ref=""), name="turns_by_ref")]

    @property
    def number(self) -> int:
        return seq_of(self.id)


class ToolCall(models.Model):
    """One call of a tool. ``id`` is that of its attempt, or of its outcome when no attempt was written.

    ``stamp`` says what the producer's stamps meant: "end" or "start" of a call that is one line (the other end follows
    from the duration), "both" when attempt and outcome are lines of their own, which ``inferred`` says were paired by
    their order. Times are UTC microseconds, null when unknown. ``duration_ms`` is only what the producer measured.
    """

    id = EntryKey(primary_key=True)
    number = models.BigIntegerField()
    turn = models.BigIntegerField(null=True)  # number of the turn it belongs to
    last_seq = models.BigIntegerField()
    tool = models.CharField(max_length=200)
    agent = models.CharField(max_length=200)
    status = models.CharField(max_length=200)
    failed = models.BooleanField()
    started_us = models.BigIntegerField(null=True)
    ended_us = models.BigIntegerField(null=True)
    duration_ms = models.FloatField(null=True)
    stamp = models.CharField(max_length=5)
    inferred = models.BooleanField(default=False)

    @property
    def seq(self) -> int:
        return seq_of(self.id)

    @property
    def last_id(self) -> int:
        """The key of its last event."""
        return self.id - self.seq + self.last_seq


class ToolStep(models.Model):
    """One event of a call that has several: ``id`` is the event's, ``call`` that of the call, ``stage`` what it was:
    attempt, policy, sandbox, permission, hook, loop or result."""

    id = EntryKey(primary_key=True)
    call = models.BigIntegerField(db_index=True)
    stage = models.CharField(max_length=10)

    @property
    def seq(self) -> int:
        return seq_of(self.id)


class AgentRun(models.Model):
    """One run of an agent, written when it had ended and stamped when it began. ``id`` is that of its event.

    Run ids repeat: the line is the run. Which run it belongs to follows from the ids (``runs.tree``).
    """

    id = EntryKey(primary_key=True)
    run_id = models.CharField(max_length=200)
    caller = models.CharField(max_length=200)
    agent = models.CharField(max_length=200)
    decision = models.CharField(max_length=200)  # the word of its decision; "" when it came to none
    started_us = models.BigIntegerField(null=True)
    dump_id = models.BigIntegerField()
    line = models.BigIntegerField()

    class Meta:
        indexes = [models.Index(fields=["dump_id", "line"], name="runs_by_line")]

    @property
    def seq(self) -> int:
        return seq_of(self.id)


class Task(models.Model):
    """A task of a room as one line tells it; ``id`` is that of the event. The latest line of a ``task_id`` counts."""

    id = EntryKey(primary_key=True)
    task_id = models.CharField(max_length=200)
    title = models.TextField()
    status = models.CharField(max_length=200)
    assigned_to = models.CharField(max_length=200)
    created_us = models.BigIntegerField(null=True)

    @property
    def seq(self) -> int:
        return seq_of(self.id)


class Observation(models.Model):
    """What an intelligence channel noticed; ``id`` is that of the event. ``confidence``: 0 to 1, null when not told."""

    id = EntryKey(primary_key=True)
    channel = models.CharField(max_length=200)
    category = models.CharField(max_length=200)
    content = models.TextField()
    confidence = models.FloatField(null=True)
    created_us = models.BigIntegerField(null=True)

    @property
    def seq(self) -> int:
        return seq_of(self.id)


class Summary(models.Model):
    """The text that the producer itself would print, as of ``seq`` and ``revision``; zlib-compressed UTF-8."""

    session = models.ForeignKey(Session, models.CASCADE, related_name="summaries")
    of = models.CharField(max_length=10)  # session, tool, status
    seq = models.BigIntegerField()
    revision = models.IntegerField()
    text = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["session", "of"], name="one_summary_of_each_kind")]
