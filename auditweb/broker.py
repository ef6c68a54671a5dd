"""Celery's messages as files: kombu's filesystem transport without its two races.

kombu writes a message in place, where a worker may read half of it, and a message that is no JSON ends the worker.
Here a message appears whole or not at all, and one that cannot be read is dropped: the rows of the dumps say what is to
be done, a message only wakes a worker.
"""

import contextlib
import logging
import os
import time
import uuid
from queue import Empty

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

logger = logging.getLogger(__name__)


class Channel(filesystem.Channel):
    def _put(self, queue, payload, **kwargs):  # type: ignore[override]
        name = f"{time.time_ns():020}_{uuid.uuid4()}.{queue}.msg"
        draft = os.path.join(self.processed_folder, name + ".draft")
        with open(draft, "w") as f:
            f.write(dumps(payload))
        os.replace(draft, os.path.join(self.data_folder_out, name))

    def _get(self, queue):  # type: ignore[override]
        for name in sorted(os.listdir(self.data_folder_in)):
            if name.partition(".")[2] != f"{queue}.msg":
                continue
            claimed = os.path.join(self.processed_folder, name)
            try:
                os.rename(os.path.join(self.data_folder_in, name), claimed)
            except FileNotFoundError:  # another worker was faster
                continue
            try:
                with open(claimed) as f:
                    payload = loads(f.read())
                if "properties" in payload and "body" in payload:
                    return payload
                logger.warning("dropped a message that is not one of Celery's: %s", name)
            except (TypeError, ValueError) as e:
                logger.warning("dropped a broken message: %s: %s", name, e)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(claimed)
        raise Empty


def tidy(folder: str, older_than_seconds: float = 600) -> None:
    """Remove from *folder* what killed processes left there: drafts, and messages claimed and never read."""
    limit = time.time() - older_than_seconds
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):
            if entry.stat().st_mtime < limit:
                os.unlink(entry.path)


class Transport(filesystem.Transport):
    Channel = Channel


TRANSPORT_ALIASES["files"] = "auditweb.broker:Transport"
