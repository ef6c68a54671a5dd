"""A real RoomKit agent whose providers are RoomKit's own mocks; run by a Python that has RoomKit, not by the site's.

``python -m tests.roomkit_agent checks`` runs the checks below; ``… call URL KEY SPOOL`` is on the telephone: it reads
``talk N`` (so many rounds), ``post``, ``hang up`` from standard input and answers each with a line of JSON.
"""

import asyncio
import contextlib
import json
import logging
import sys
import tempfile
import time
import traceback
from pathlib import Path

from auditweb_client import roomkit_status
from auditweb_client.roomkit import SessionAuditor, StatusBackend, ToolAuditor
from roomkit import RoomKit
from roomkit.channels.realtime_voice import RealtimeVoiceChannel
from roomkit.channels.video import VideoChannel
from roomkit.channels.voice import VoiceChannel
from roomkit.models.enums import HookTrigger
from roomkit.orchestration.session_audit import JSONLSessionAuditor, SessionAuditEntry
from roomkit.orchestration.status_bus import StatusBus, StatusEntry, StatusLevel
from roomkit.orchestration.tool_audit import JSONLToolAuditor, ToolAuditEntry, audit_tool_handler
from roomkit.video.backends.mock import MockVideoBackend
from roomkit.video.video_frame import VideoFrame
from roomkit.video.vision.mock import MockVisionProvider
from roomkit.voice.audio_frame import AudioFrame
from roomkit.voice.backends.mock import MockVoiceBackend
from roomkit.voice.interruption import InterruptionConfig, InterruptionStrategy
from roomkit.voice.pipeline import AudioPipelineConfig
from roomkit.voice.pipeline.vad.base import VADEvent, VADEventType
from roomkit.voice.pipeline.vad.mock import MockVADProvider
from roomkit.voice.realtime.mock import MockRealtimeProvider, MockRealtimeTransport
from roomkit.voice.stt.mock import MockSTTProvider
from roomkit.voice.testing import VOICE_TRIGGERS, VoiceTrace
from roomkit.voice.tts.mock import MockTTSProvider

from tests.desk import Desk
from tests.site import until

ROOM = "room-1"
PAUSE = 0.02  # seconds; what people do takes longer
WAIT = 30  # seconds that a hook may take on a busy machine
ROUND = 11  # lines of a round


class Call:
    """One person on the telephone with a realtime model, which has a tool that works, one that fails, and a camera."""

    def __init__(self, auditor, *others, bus: StatusBus | None = None):
        self.kit = RoomKit(status_bus=bus) if bus else RoomKit()
        for one in (auditor, *others):
            one.attach(self.kit)
        self.trace = VoiceTrace(self.kit, triggers=(*VOICE_TRIGGERS, HookTrigger.ON_VISION_RESULT))
        self.model, self.line, self.camera = MockRealtimeProvider(), MockRealtimeTransport(), MockVideoBackend()
        tools = [{"name": n, "description": n, "parameters": {"type": "object"}} for n in ("look_up", "pay")]
        handler = audit_tool_handler(self._serve, auditor.tool_auditor, "voice-7")
        channel = RealtimeVoiceChannel(
            "voice-1", provider=self.model, transport=self.line, tools=tools, tool_handler=handler
        )
        video = VideoChannel(
            "camera-1", backend=self.camera, vision=MockVisionProvider(["A menu on a table"]), vision_interval_ms=0
        )
        self.channels = (channel, video)
        self.calls = 0

    async def _serve(self, name: str, arguments: dict):
        await asyncio.sleep(PAUSE)
        if name == "pay":
            raise RuntimeError("the card was declined")
        return {"status": "ok", "asked": arguments}

    async def begin(self):
        await self.kit.create_room(room_id=ROOM)
        for channel in self.channels:
            self.kit.register_channel(channel)
            await self.kit.attach_channel(ROOM, channel.channel_id)
        self.session = await self.kit.join(ROOM, "voice-1", participant_id="ann", connection="telephone")
        self.seen = await self.kit.join(ROOM, "camera-1", participant_id="ann")

    async def _told(self, trigger: HookTrigger, after: float):
        """Hooks of *trigger* have run since *after*: what is done next comes behind them."""
        await self.trace.wait_for(trigger, after=after, timeout=WAIT)

    async def user_begins(self, text: str):
        await self.model.simulate_transcription(self.session, text, "user", False)

    async def user_says(self, text: str):
        begun = time.monotonic()
        await self.model.simulate_speech_start(self.session)
        for end in range(5, len(text), 5):
            await self.user_begins(text[:end])
            await asyncio.sleep(PAUSE)
        await self.model.simulate_speech_end(self.session)
        await self.model.simulate_transcription(self.session, text, "user", True)
        await self._told(HookTrigger.ON_SPEECH_END, begun)
        await self._told(HookTrigger.ON_TRANSCRIPTION, begun)

    async def assistant_says(self, text: str):
        begun, played = time.monotonic(), len(self.line.sent_audio)
        await self.model.simulate_transcription(self.session, text[: len(text) // 2], "assistant", False)
        await self.model.simulate_audio(self.session, b"\1\0" * 480)
        await self.model.simulate_transcription(self.session, text, "assistant", True)
        await self._told(HookTrigger.ON_TRANSCRIPTION, begun)
        while len(self.line.sent_audio) == played:
            await asyncio.sleep(PAUSE)

    async def interrupt(self):
        begun = time.monotonic()
        await self.model.simulate_speech_start(self.session)
        await self._told(HookTrigger.ON_BARGE_IN, begun)
        await self.model.simulate_speech_end(self.session)
        await self._told(HookTrigger.ON_SPEECH_END, begun)

    async def tool(self, name: str, **arguments):
        self.calls += 1
        answered = len(self.model.tool_results)
        await self.model.simulate_tool_call(self.session, f"call-{self.calls}", name, arguments)
        while len(self.model.tool_results) == answered:
            await asyncio.sleep(PAUSE)

    async def show(self):
        begun = time.monotonic()
        frame = VideoFrame(data=b"\0" * 12, codec="raw_rgb24", width=2, height=2)
        await self.camera.simulate_video_received(self.seen, frame)
        await self._told(HookTrigger.ON_VISION_RESULT, begun)

    async def round(self, number: int):
        """A question, an answer that is cut off, two tool calls and a look: ROUND lines."""
        await self.user_says(f"Question {number}: is there a table tonight?")
        await self.assistant_says(f"Answer {number}: let me look that up for you.")
        await self.interrupt()
        await self.tool("look_up", what="table", number=number)
        await self.tool("pay", number=number)
        await self.show()

    async def hang_up(self):
        await self.channels[0].end_session(self.session)
        await self.kit.close()


@contextlib.contextmanager
def desk_and(make, **options):
    """A desk, and ``make(url, key, spool=…)`` that sends to it; its lines are all there when the block ends."""
    desk = Desk()
    with tempfile.TemporaryDirectory() as spool:
        made = make(desk.url, "k", spool=spool, **options)
        try:
            yield desk, made
        finally:
            desk.stop()


def without_time(line: dict) -> dict:
    return {name: value for name, value in line.items() if name != "ts"}


async def check_entries_are_the_bytes_that_roomkit_writes():
    entries = [
        SessionAuditEntry(
            ts="2026-03-01T10:00:00.5+00:00", type="speech", role="user", content="Grüße \u0000 \ud83d\ude00"
        ),
        SessionAuditEntry(
            ts="x", type="odd", content="", duration_ms=float("nan"), metadata={"a": {1, 2}, "b": Path("p")}
        ),
    ]
    made = {"ts": "t", "agent_id": "a", "tool_name": "n", "arguments": {"q": [1]}, "metadata": {"status": "over"}}
    tools = [ToolAuditEntry(**made, result="r" * 900, status="failed", duration_ms=5885.999999999967)]
    with desk_and(SessionAuditor) as (desk, ours), tempfile.TemporaryDirectory() as place:
        theirs = JSONLSessionAuditor(f"{place}/session.jsonl")
        for auditor in (ours, theirs):
            for entry in entries:
                auditor.record(entry)
            for entry in tools:
                auditor.tool_auditor.record(entry)
        assert await ours.aclose(20)
        assert desk.streams[ours.stream.name] == Path(f"{place}/session.jsonl").read_bytes().splitlines()
        assert ours.entries == theirs.entries and ours.tool_auditor.entries == theirs.tool_auditor.entries
        assert ours.summary().splitlines()[2:] == theirs.summary().splitlines()[2:]
    with desk_and(ToolAuditor) as (desk, ours), tempfile.TemporaryDirectory() as place:
        theirs = JSONLToolAuditor(f"{place}/tools.jsonl")
        for auditor in (ours, theirs):
            for entry in tools:
                auditor.record(entry)
        assert ours.close(20)
        assert desk.streams[ours.stream.name] == Path(f"{place}/tools.jsonl").read_bytes().splitlines()
        assert ours.summary().splitlines()[2:] == theirs.summary().splitlines()[2:]


async def check_attached_it_records_what_roomkit_records_and_what_that_drops():
    with desk_and(SessionAuditor, agent="voice-7") as (desk, ours), tempfile.TemporaryDirectory() as place:
        theirs = JSONLSessionAuditor(f"{place}/session.jsonl")
        call = Call(ours, theirs)
        await call.begin()
        assert await asyncio.to_thread(ours.stream.flush, 20)
        await call.user_begins("Is th")
        await asyncio.to_thread(until, lambda: desk.said, "what is being said")
        assert desk.said[0][:2] == ("user", "Is th")
        await call.round(1)
        await call.hang_up()
        assert await ours.aclose(20)
        lines = desk.lines()
        extra = [line for line in lines if line["type"] in ("interrupted", "speech_start", "speech_end")]
        rest = [without_time(line) for line in lines if line not in extra]
        hooks = [without_time(e.model_dump()) for e in theirs.entries]
        assert [line for line in rest if line["type"] != "tool_call"] == hooks
        assert [line["metadata"]["status"] for line in rest if line["type"] == "tool_call"] == ["ok", "error"]
        assert [e.type for e in ours.entries] == [line["type"] for line in rest]
        kinds = [line["type"] for line in extra]
        assert sorted(kinds) == ["interrupted", *["speech_end"] * 2, *["speech_start"] * 2], kinds
        assert all(list(line) == ["ts", "type", "role", "content", "duration_ms", "metadata"] for line in lines)
        cut = extra[kinds.index("interrupted")]
        assert cut["content"] == "Answer 1: let me look that up for you." and cut["role"] == "assistant"
        assert cut["metadata"]["participant_id"] == "ann" and "audio_position_ms" in cut["metadata"]
        assert len(lines) == 1 + ROUND


async def check_a_cut_speech_says_how_much_of_it_was_heard():
    class Speaker(MockVoiceBackend):
        """Speaks for as long as nobody interrupts."""

        async def send_audio(self, session, audio):
            async for chunk in audio:
                self.sent_audio.append((session.id, chunk.data))
                await asyncio.sleep(PAUSE if len(self.sent_audio) < 5 else WAIT)

    start, end = VADEventType.SPEECH_START, VADEventType.SPEECH_END
    heard = [VADEvent(type=start), VADEvent(type=end, audio_bytes=b"\0\0" * 160), VADEvent(type=start)]
    with desk_and(SessionAuditor) as (desk, ours):
        kit, speaker = RoomKit(), Speaker()
        ours.attach(kit)
        channel = VoiceChannel(
            "voice-1",
            stt=MockSTTProvider(["Book a table"]),
            tts=MockTTSProvider(),
            backend=speaker,
            pipeline=AudioPipelineConfig(vad=MockVADProvider(heard)),
            interruption=InterruptionConfig(strategy=InterruptionStrategy.IMMEDIATE),
        )
        kit.register_channel(channel)
        await kit.create_room(room_id=ROOM)
        await kit.attach_channel(ROOM, "voice-1")
        session = await kit.join(ROOM, "voice-1", participant_id="ann")

        async def hear(kind: str):
            await speaker.simulate_audio_received(session, AudioFrame(data=b"\0\0" * 160))
            await asyncio.to_thread(until, lambda: kind in [line["type"] for line in desk.lines()], kind)

        await hear("speech_start")
        await hear("speech")
        text = "I would gladly book the table by the window for you right now"
        saying = asyncio.create_task(channel.say(session, text))
        while len(speaker.sent_audio) < 5:
            await asyncio.sleep(PAUSE)
        await hear("interrupted")
        saying.cancel()
        await kit.close()
        assert await ours.aclose(20)
        (cut,) = [line for line in desk.lines() if line["type"] == "interrupted"]
        assert cut["content"] == text
        assert isinstance(cut["metadata"]["audio_position_ms"], int)


async def check_nothing_of_it_reaches_the_agent():
    """No server, a disk that is none, an entry that cannot be written: hooks run through and the call goes on."""
    with tempfile.NamedTemporaryFile() as file:
        ours = SessionAuditor("http://127.0.0.1:9", "k", spool=f"{file.name}/spool")
        theirs = JSONLSessionAuditor(f"{tempfile.mkdtemp()}/session.jsonl")
        bus = StatusBus(backend=StatusBackend("http://127.0.0.1:9", "k", bus="house", spool=f"{file.name}/spool"))
        told = []
        await bus.subscribe(told.append)
        call = Call(ours, theirs, bus=bus)
        await call.begin()
        ours.record(None)
        await call.round(1)
        await bus.post_async("voice-7", "search", "ok", detail="found")
        assert [entry.detail for entry in told] == ["found"], "the agents of this process still hear each other"
        assert [entry.detail for entry in await bus.recent(5)] == ["found"]
        await call.hang_up()
        assert len(theirs.entries) >= 5
        assert not ours.close(0.1)


CHECKS = [check for name, check in globals().items() if name.startswith("check_")]


async def check_agents_on_two_hosts_share_a_bus(url: str, key: str, extra: str):
    """Needs the real server: what one posts reaches the other, once, and both read the same history."""
    assert roomkit_status.connect is not None
    if extra == "without":
        roomkit_status.connect = None
    seconds = 0.1 if extra == "without" else 600  # so late that only the socket can have told
    with tempfile.TemporaryDirectory() as place:
        backends = [
            StatusBackend(url, key, bus=f"house {extra}", agent=name, spool=f"{place}/{name}", poll_seconds=seconds)
            for name in ("one", "two")
        ]
        one, two = (StatusBus(backend=backend) for backend in backends)
        await one.post_async("exec", "before", "info")
        assert await asyncio.to_thread(backends[0].stream.flush, 20)
        heard = {"one": [], "two": []}

        async def hear(entry):
            heard["two"].append(entry)

        await one.subscribe(heard["one"].append)
        await two.subscribe(hear)
        for n in range(20):
            await (one, two)[n % 2].post_async(
                f"agent-{n % 2}", "step", StatusLevel.OK, detail=f"{n}", metadata={"n": n}
            )
        for name in heard:
            await asyncio.to_thread(until, lambda name=name: len(heard[name]) >= 20, f"all posts at {name}")
        await asyncio.sleep(0.5)  # for what might come twice
        for name, entries in heard.items():
            assert sorted(int(e.detail) for e in entries) == list(range(20)), name
            assert all(isinstance(e, StatusEntry) and e.metadata == {"n": int(e.detail)} for e in entries)
        for bus in (one, two):
            assert [e.detail for e in await bus.recent(30)] == ["", *map(str, range(20))]
            assert [e.detail for e in await bus.recent(3, agent_id="agent-1")] == ["15", "17", "19"]
            assert await bus.recent_text(1) == await one.recent_text(1)
        await one.unsubscribe(heard["one"].append)
        await asyncio.gather(one.close(), two.close())


async def on_the_telephone(url: str, key: str, spool: str):
    auditor = SessionAuditor(url, key, agent="voice-7", bus="house", title="A table for two", spool=spool)
    bus = StatusBus(backend=StatusBackend(bus="house", stream=auditor.stream))
    call = Call(auditor, bus=bus)
    await call.begin()
    number = 0
    while command := (await asyncio.to_thread(sys.stdin.readline)).split():
        if command[0] == "talk":
            for _ in range(int(command[1])):
                number += 1
                await call.round(number)
                bus.post("voice-7", "table", "completed" if number % 2 else "pending", detail=f"round {number}")
        elif command[0] == "flush":
            await asyncio.to_thread(auditor.stream.flush, 60)
        elif command[0] == "hang":
            await call.hang_up()
            await auditor.aclose(30)
        entries = {
            "accepted": auditor.stream.accepted,
            "sessions": auditor.stream.sessions,
            "lost": auditor.stream.lost,
        }
        print(json.dumps({**entries, "waiting": not auditor.stream.flush(0)}), flush=True)


def main(what: str, *args: str) -> int:
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("roomkit").setLevel(logging.CRITICAL)  # the tool that fails does so on purpose
    if what == "call":
        asyncio.run(on_the_telephone(*args))
        return 0
    checks = CHECKS if what == "checks" else [globals()[what]]
    failed = 0
    for check in checks:
        try:
            asyncio.run(check(*args))
            print(f"{check.__name__}: ok", flush=True)
        except Exception:
            traceback.print_exc()
            failed += 1
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
