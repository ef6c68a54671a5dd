"""The Celery application; tasks live in each app's ``tasks.py``."""

import os

from celery import Celery

import auditweb.broker  # noqa: F401  registers files://

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auditweb.settings")

app = Celery("auditweb")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
