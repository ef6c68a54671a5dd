"""Drop-ins for RoomKit's auditors and for the backend of its status bus; RoomKit is imported here and nowhere else.

Sources: roomkit/orchestration/session_audit.py, tool_audit.py, status_bus.py, models/enums.py; written for 0.109.
"""

import asyncio
import logging
import os
from collections import deque
from typing import Any

from roomkit.models.enums import HookExecution, HookTrigger
from roomkit.orchestration import session_audit, tool_audit

from auditweb_client.lines import encoded, session_entry
from auditweb_client.roomkit_status import StatusBackend
from auditweb_client.stream import EXIT_SECONDS, Stream

__all__ = ["SessionAuditor", "StatusBackend", "ToolAuditor"]

log = logging.getLogger("auditweb_client")

KEPT = 10_000  # entries that ``entries`` and ``summary`` know; RoomKit's own auditors keep all, for ever


class _Sends:
    """An auditor whose lines go to ``stream``: one of its own, made from *options*, or one that it shares."""

    def __init__(
        self, url: str | None, key: str | None, agent: str, stream: Stream | None, keep: int, options: dict[str, Any]
    ):
        self._shares = stream is not None
        self.stream = stream or Stream(url, key, agent=agent, **options)
        self._entries: deque[Any] = deque(maxlen=keep)

    def record(self, entry: Any) -> None:
        try:
            line = encoded(entry.model_dump())
            self._entries.append(entry)
            self.stream.send(line)
        except Exception:
            log.exception("an entry was not taken")

    @property
    def entries(self) -> list[Any]:
        return list(self._entries)

    def _told_by(self, auditor: Any, title: str) -> str:
        """The summary of RoomKit's own *auditor*, which writes to nowhere."""
        for entry in self._entries:
            auditor.record(entry)
        return str(auditor.summary()).replace(f"({os.devnull})", f"({title})", 1)

    def close(self, timeout: float = EXIT_SECONDS) -> bool:
        """Send what is left and end the stream, unless it is shared; whether all was sent in *timeout* seconds."""
        return self.stream.flush(timeout) if self._shares else self.stream.close(timeout)

    async def aclose(self, timeout: float = EXIT_SECONDS) -> bool:
        """``close`` for a running event loop, which goes on meanwhile."""
        return await asyncio.to_thread(self.close, timeout)


class SessionAuditor(_Sends, session_audit.SessionAuditor):
    """RoomKit's session audit, live: what ``JSONLSessionAuditor`` writes to a file, byte for byte, and more.

    ``attach(kit)`` also records as lines of their own what that one drops: ``interrupted`` (the text that a barge-in
    cut, and ``audio_position_ms``), ``speech_start`` and ``speech_end`` where the channel tells them; and shows what
    is being said before it is final, if *partials*. ``entries`` and ``summary`` have RoomKit's own entries only, the
    last *keep*. *options* and *agent* as for ``Stream``; *stream* shares one with another auditor.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        agent: str = "roomkit",
        stream: Stream | None = None,
        partials: bool = True,
        keep: int = KEPT,
        **options: Any,
    ):
        _Sends.__init__(self, url, key, agent, stream, keep, options)
        self._partials = partials

    def summary(self) -> str:
        return self._told_by(session_audit.JSONLSessionAuditor(os.devnull), self.stream.name)

    def attach(self, kit: Any) -> None:
        super().attach(kit)
        self._observe(kit, "ON_BARGE_IN", self._interrupted)
        self._observe(kit, "ON_SPEECH_START", lambda event: self._speech("speech_start", "Speech started", event))
        self._observe(kit, "ON_SPEECH_END", lambda event: self._speech("speech_end", "Speech ended", event))
        if self._partials:
            self._observe(kit, "ON_PARTIAL_TRANSCRIPTION", self._partial)

    def _observe(self, kit: Any, trigger: str, note: Any) -> None:
        if not hasattr(HookTrigger, trigger):  # a version of RoomKit that does not know it yet
            return

        async def observe(event: Any, context: Any) -> None:
            try:
                note(event)
            except Exception:
                log.exception("%s was not recorded", trigger)

        name = f"auditweb_{trigger.lower()}_{id(self):x}"
        kit.hook(getattr(HookTrigger, trigger), execution=HookExecution.ASYNC, name=name)(observe)

    def _interrupted(self, event: Any) -> None:
        text, position = str(getattr(event, "interrupted_text", "") or ""), getattr(event, "audio_position_ms", None)
        if text or position:
            at = getattr(event, "timestamp", None)
            more = {"audio_position_ms": position, **_who(event)}
            ts = at.isoformat() if at is not None else ""
            self.stream.send(encoded(session_entry("interrupted", "assistant", text, more, ts)))

    def _speech(self, kind: str, words: str, event: Any) -> None:
        self.stream.send(encoded(session_entry(kind, "user", words, _who(event))))

    def _partial(self, event: Any) -> None:
        self.stream.provisional(str(getattr(event, "role", "user")), str(getattr(event, "text", "") or ""))


def _who(event: Any) -> dict[str, Any]:
    """The ids of the session that *event* is, or is about."""
    session, found = getattr(event, "session", None) or event, {}
    for name, attribute in (("session_id", "id"), ("channel_id", "channel_id"), ("participant_id", "participant_id")):
        value = getattr(session, attribute, None) or getattr(event, name, None)
        if isinstance(value, str) and value:
            found[name] = value
    return found


class ToolAuditor(_Sends, tool_audit.ToolAuditor):
    """RoomKit's tool audit, live: the lines of ``JSONLToolAuditor``. Parameters as for ``SessionAuditor``."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        agent: str = "roomkit tools",
        stream: Stream | None = None,
        keep: int = KEPT,
        **options: Any,
    ):
        _Sends.__init__(self, url, key, agent, stream, keep, options)

    def summary(self) -> str:
        return self._told_by(tool_audit.JSONLToolAuditor(os.devnull), self.stream.name)
