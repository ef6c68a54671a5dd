"""What processes that share one database tell each other about live logs. Nothing here is needed after a restart."""

from django.db import models


class Ring(models.Model):
    """A log changed: the newest ring of each, numbered as they came. The doorbell on SQLite; elsewhere it is Redis.

    ``note`` is what readers are told without it being in the log, as JSON; mostly there is none.
    """

    key = models.CharField(max_length=60, unique=True)
    note = models.TextField(blank=True)


class Watcher(models.Model):
    """A person who has a log open, through one process, until that process says so no more."""

    key = models.CharField(max_length=60)
    process = models.CharField(max_length=22)
    name = models.CharField(max_length=150)
    until = models.FloatField()  # seconds since the epoch

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key", "process", "name"], name="watcher_once")]
