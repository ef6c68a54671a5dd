"""Plays the call of ``call.py`` in real time into a site, through the same doors that any other producer takes."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urljoin

from auditweb.ids import public_id
from sessions_app.demo import PLAYED, call
from sessions_app.demo.producer import Producer, Refused

LEAVE_SECONDS = 15.0  # for the last lines, when the site is slow or away

ICONS = {"ok": "+", "failed": "x", "info": "~", "completed": "*", "pending": "?"}


def play(site: str, key: str, seed: str, speed: float, minutes: float, tell: Callable[[str], None]) -> None:
    """Play the call into *site*, whatever breaks meanwhile.

    *tell* gets the address of the session first, then what happens, line by line, at last how it ended. What
    interrupts the call (^C) ends its stream too, and goes on. Raises producer.Refused.
    """
    moments = call.tell(datetime.now(UTC), seed, speed, minutes)
    producer = Producer(site, key, PLAYED + public_id(), {"title": call.TITLE}, tell)
    try:
        _perform(moments, producer, tell)
    finally:
        ended = producer.close(LEAVE_SECONDS)
    if producer.refused:
        raise Refused(producer.refused)
    said = f"{producer.accepted} lines, all of them acknowledged." if ended else f"{site} has not confirmed all of it."
    tell(f"The call is over: {said}")


def _perform(moments: list[call.Line | call.Words], producer: Producer, tell: Callable[[str], None]) -> None:
    start, began = moments[0].at, time.monotonic()
    for moment in moments:
        time.sleep(max(0.0, began + (moment.at - start).total_seconds() - time.monotonic()))
        if producer.refused:
            return
        if isinstance(moment, call.Words):
            producer.words(moment.role, moment.text)
            continue
        producer.line(moment.raw)
        if moment is moments[0]:
            producer.first_answer.wait()
            if producer.sessions:
                tell(f"open {urljoin(producer.site, producer.sessions[0]['url'])} and watch")
        tell(shown(moment))


def shown(line: call.Line) -> str:
    """A line as one of a terminal: ``14:03:07  user       Closed.``"""
    entry = json.loads(line.raw)
    if "action" in entry:
        who = ICONS[entry["status"]] + " " + entry["agent_id"]
        what = f"{entry['action']}: {entry['detail']}"
    elif entry["type"] == "tool_call":
        tool = entry["metadata"]
        who, what = "tool", f"{tool['tool_name']} → {tool['status']} ({entry['duration_ms']:.0f} ms)"
    else:
        who = entry["role"] if entry["type"] == "speech" else entry["type"]
        what = entry["content"]
    return f"{line.at.astimezone():%H:%M:%S}  {who:<10}  {what}"
