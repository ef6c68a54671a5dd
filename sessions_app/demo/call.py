"""The call that ``demo --live`` plays: somebody's boiler went out, and two agents bring the heating back.

It is told at the moment when it is played, so that its stamps are the time on the wall.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

from sessions_app.demo.stories import MARK
from sessions_app.demo.writers import RoomKit, Tape

TITLE = f"{MARK}Cold boiler"  # of the session and of its status log
HEARD_EVERY = 0.35  # seconds between two partial transcripts of one utterance
THOUGHT = 0.35  # of the time that an answer is spoken: its words are known that soon


class Line(NamedTuple):
    """A line that is written at a moment."""

    at: datetime
    raw: bytes


class Words(NamedTuple):
    """What has been heard of an utterance at a moment, before its line is written."""

    at: datetime
    role: str
    text: str


class Script(Tape):
    """A tape that keeps what happens when, in ``moments``. At *speed* 2 everything takes half as long."""

    def __init__(self, seed: str, start: datetime, speed: float = 1):
        super().__init__(seed, start)
        self.start = start
        self.speed = speed
        self.moments: list[Line | Words] = []

    @property
    def minutes(self) -> float:
        """How long the call has gone on, as it would at speed 1."""
        return (self.now - self.start) / timedelta(minutes=1) * self.speed

    def pass_ms(self, ms: float) -> None:
        super().pass_ms(ms / self.speed)

    def write(self, obj: dict, ascii: bool = True, compact: bool = False) -> None:
        super().write(obj, ascii, compact)
        self.moments.append(Line(self.now, self.lines.pop()))


class VoiceCall(RoomKit):
    """A RoomKit session of which partial transcripts are heard too, and in which people talk while a tool runs."""

    tape: Script

    def user(self, text: str, after: float = 1.0) -> None:
        self.tape.wait(after)
        began = self.tape.now
        self.tape.speak(text)
        self._hear("user", text, began, self.tape.now)
        self._entry("speech", "user", text)

    def assistant(self, text: str, after: float = 0.8) -> None:
        self.tape.wait(after)
        began = self.tape.now
        self.tape.speak(text)
        ended = self.tape.now
        self.tape.now = began + (ended - began) * THOUGHT
        self._hear("assistant", text, began, self.tape.now)
        self._entry("speech", "assistant", text)
        self.tape.now = ended

    def slow_tool(self, name: str, arguments: dict, result: Any, ms: float, agent: str, meanwhile: Callable[[], None]):
        """A call that takes *ms*, or longer when what is done *meanwhile* does."""
        began = self.tape.now
        self.tape.wait(ms / 3000)
        meanwhile()
        gone = (self.tape.now - began) / timedelta(milliseconds=1) * self.tape.speed
        if gone < ms:
            self.tape.pass_ms(ms - gone)
        took = round((self.tape.now - began) / timedelta(milliseconds=1), 3)
        self._called(name, arguments, result, took, "ok", agent)

    def task(self, agent: str, action: str, detail: str, run: Callable[[], str], level: str = "completed") -> None:
        """Post that *agent* begins, *run* it, and post what came of it."""
        self.post(agent, action, "pending", detail, room_id="boiler-call")
        self.post(agent, action, level, run(), room_id="boiler-call")

    def _run(self, ms: float) -> float:
        return round(super()._run(ms) / self.tape.speed, 3)

    def _hear(self, role: str, text: str, began: datetime, ended: datetime) -> None:
        """The beginnings of *text* that are heard before all of it is, word by word."""
        words = text.split(" ")
        steps = min(len(words) - 1, int((ended - began).total_seconds() / HEARD_EVERY))
        for step in range(1, steps + 1):
            heard = " ".join(words[: len(words) * step // (steps + 1)])
            if heard:
                self.tape.moments.append(Words(began + (ended - began) * step / (steps + 1), role, heard))


def tell(start: datetime, seed: str, speed: float = 1, minutes: float = 0) -> list[Line | Words]:
    """The call from *start* on, oldest moment first: about two minutes, or *minutes* if that is longer.

    At *speed* 2 it takes half of that. The same for one *seed* and *start*.
    """
    script = Script(seed, start, speed)
    call = VoiceCall(script, "helpline")
    _what_is_wrong(call)
    _water(call)
    for room in count():
        if script.minutes + 0.4 >= minutes:
            break
        _radiator(call, ROOMS[room % len(ROOMS)])
    _goodbye(call)
    return script.moments


def _what_is_wrong(call: VoiceCall) -> None:
    call.start("rt-voice", "caller-31")
    call.post("helpline", "greet", "info", "call accepted")
    call.assistant("Good evening, the heating helpline. Is it cold at your place?", after=2)
    call.user("Freezing. The boiler went out an hour ago, and I have a baby here.")

    def find() -> str:
        call.tool("find_customer", {"phone": "555 0163"}, {"name": "Ines", "boiler": "Lumen 24", "built": 2019}, 700)
        return "Ines, Lumen 24"

    call.task("helpline", "find_customer", "by telephone number", find)
    call.assistant("I'm sorry, Ines. Could you hold the camera to the boiler's display?")
    call.user("One second, I'm on the stairs. There, can you see it?", after=1.5)

    def look() -> str:
        call.tool("look_at_camera", {"of": "boiler"}, "Picture taken", 2100, agent="workshop")
        call.vision("Boiler display: E 118 is blinking; the needle stands in the red, at about 0.4 bar")
        return "E 118, 0.4 bar"

    call.task("workshop", "look", "the boiler's display", look)
    call.assistant("I see it: E one one eight. The water pressure is too low, which happens when over the years some")
    call.interrupt()
    call.user("Is that dangerous? Should I open a window?", after=0.2)
    call.assistant("No, it is only water. I am reading the boiler's log, to be sure.")

    def read_log() -> str:
        def wait():
            call.user("Hello? Are you still there?", after=1.5)
            call.assistant("I am. The log is long, a moment more.", after=0.5)

        found = {"code": "E118", "bar": 0.4, "leak": False, "days_since_service": 412}
        call.slow_tool("read_boiler_log", {"boiler": "Lumen 24", "days": 30}, found, 11_500, "workshop", wait)
        return "no leak, last service 412 days ago"

    call.task("workshop", "read_log", "30 days of a Lumen 24", read_log)


def _water(call: VoiceCall) -> None:
    call.assistant("Good news, nothing leaks. I'll try to start it from here.")

    def start_dry() -> str:
        error = {"error": "locked: pressure below 0.8 bar"}
        call.tool("start_boiler", {"boiler": "Lumen 24"}, error, 3100, status="failed", agent="workshop")
        return "locked: pressure below 0.8 bar"

    call.task("workshop", "start_boiler", "from afar", start_dry, level="failed")
    call.assistant("It will not start on so little water. There is a small tap under the boiler, please open it.")
    call.user("The black one, or the one with the blue handle?")
    call.tool("search_manual", {"model": "Lumen 24", "words": "filling tap"}, "Page 14: filling tap, blue handle", 900)
    call.assistant("The blue handle. Turn it slowly, and I will watch the needle until it", after=0.5)
    call.interrupt()
    call.user("It's hissing! Is it supposed to hiss?", after=0.1)
    call.assistant("It is, that is the water running in.", after=0.5)
    call.tool("look_at_camera", {"of": "needle"}, "Picture taken", 1800, agent="workshop")
    call.vision("The needle moves up: 1.2 bar, the green part begins at 1.0")
    call.assistant("One point two, that is plenty. Close it, please.", after=0.4)
    call.user("Closed.")

    def start() -> str:
        result = {"flame": True, "bar": 1.2}
        call.tool("start_boiler", {"boiler": "Lumen 24"}, result, 2600, agent="workshop")
        return "flame burns, 1.2 bar"

    call.task("workshop", "start_boiler", "second attempt", start)
    call.assistant("It burns. The first radiator should be warm in ten minutes.", after=0.4)
    call.user("I can hear it. Oh, thank you!")


ROOMS = ("kitchen", "hall", "bathroom", "bedroom", "study", "attic")


def _radiator(call: VoiceCall, room: str) -> None:
    """What makes a call longer: one radiator after the other has its air let out."""
    random = call.tape.random
    call.user(
        random.choice((f"The one in the {room} stays cold at the top.", f"And the {room}? Nothing happens there."))
    )

    def measure() -> str:
        where, degrees = {"room": room}, random.randint(15, 24)
        if random.random() < 0.3:
            call.tool("read_radiator", where, "no answer within 4 s: sensor asleep", 4000, "error", "workshop")
        call.tool("read_radiator", where, {"degrees": degrees}, 650, agent="workshop")
        return f"{degrees} °C"

    call.task("workshop", "read_radiator", room, measure)
    if random.random() < 0.4:
        call.assistant("There is air in it. At one end you find a small square valve, and if you take the key that")
        call.interrupt()
        call.user("I have the key here. Left or right?", after=0.2)
        call.assistant("To the left, half a turn.", after=0.5)
    else:
        call.assistant("There is air in it. Please open its small valve until water comes.")
    call.user(random.choice(("It gurgles. Now there is water.", "Done, and my sleeve is wet.")), after=3)
    if random.random() < 0.3:
        call.vision(f"Radiator in the {room}: the valve is closed, a few drops on the floor")


def _goodbye(call: VoiceCall) -> None:
    call.assistant("One more thing: it is due for a service. Would Thursday between ten and twelve suit you?")
    call.user("Yes, but please ring softly, that is when the baby sleeps.")

    def book() -> str:
        visit = {"day": "Thursday", "from": "10:00", "to": "12:00", "note": "ring softly"}
        call.tool("book_visit", visit, {"visit": "HV-2093", "technician": "Jonas"}, 1300)
        return "HV-2093, Thursday, Jonas"

    call.task("helpline", "book_visit", "service of a Lumen 24", book)
    call.assistant("Done. Jonas comes on Thursday and rings softly. Stay warm!", after=0.5)
    call.user("Good night, and thanks again.")
    call.post("helpline", "call", "completed", "heating on, 1 visit booked", after=0.5)
