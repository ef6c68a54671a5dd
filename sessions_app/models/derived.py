"""What reviewers count: derived from events, deleted and rebuilt at will, so nothing a person wrote hangs here."""

from django.db import models

from auditweb.log import seq_of
from sessions_app.models.log import Session


class Turn(models.Model):
    """One utterance and what followed it, up to the next one. ``id`` is ``session.pk * 2**32 + number``."""

    id = models.BigIntegerField(primary_key=True)
    role = models.CharField(max_length=200)
    first_seq = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    started_us = models.BigIntegerField(null=True)

    @property
    def number(self) -> int:
        return seq_of(self.id)


class ToolCall(models.Model):
    """One call of a tool. ``id`` is that of the first event of the call.

    ``stamp`` says what the producer's stamp meant (``end``: the call ended then); the other end follows from the
    duration. Times are UTC microseconds, null when unknown.
    """

    id = models.BigIntegerField(primary_key=True)
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
