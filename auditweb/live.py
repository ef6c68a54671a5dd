"""Doorbell and catch-up: whoever watches a log hears that it grew. Knows no model by name."""

import asyncio
import logging

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings

logger = logging.getLogger(__name__)

GROUP = "auditweb.logs"


def key_of(kind: str, pk: int) -> str:
    """The name of a log on the doorbell: ``session:12``, ``statusbus:3``."""
    return f"{kind}:{pk}"


def announce(key: str) -> None:
    """Tell every process that the log *key* changed. Carries no content; a lost ring costs one poll, never an event.

    Without Redis there is nothing to do: SQLite's ``data_version`` is the doorbell across processes.
    """
    if not settings.REDIS_URL:
        return
    try:
        async_to_sync(_ring)(key)
    except Exception as e:  # the log is committed; watchers find it by polling
        logger.warning("doorbell not rung for %s: %s", key, e)


async def _ring(key: str) -> None:
    layer = get_channel_layer()
    await asyncio.wait_for(layer.group_send(GROUP, {"type": "log.grew", "log": key}), timeout=1.5)
