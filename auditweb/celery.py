"""The Celery application; tasks live in each app's ``tasks.py``. Messages only wake workers: rows say what is due."""

import logging
import os
import threading

from celery import Celery, Task
from django.conf import settings
from django.db import transaction

import auditweb.broker  # noqa: F401  registers files://
from auditweb import outage

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditweb.settings")

app = Celery("auditweb")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

logger = logging.getLogger(__name__)

alone = threading.local()  # ``alone.working`` is true in a worker's thread that does by itself what it would ask for


def send(task: Task, *args) -> None:
    """Ask a worker to run *task* once the transaction has committed; with the broker away, say so and go on."""

    def publish():
        if getattr(alone, "working", False):
            try:
                task.run(*args)
            except Exception:
                logger.exception("%s%r failed", task.name, args)
            return
        if not outage.redis.may_ask():  # an import of many sessions would wait for a frozen Redis at each of them
            return
        try:
            task.apply_async(args)
            outage.redis.ended()
        except Exception as e:
            if settings.REDIS_URL:
                outage.redis.began(e)
            logger.warning("no worker was told to run %s%r: %s", task.name, args, e)

    transaction.on_commit(publish)
