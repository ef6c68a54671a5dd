"""The dump that everything is measured with: RoomKit lines of about 330 bytes in ten sessions, the same for a number.

``python bench/dump.py 100000 > some.jsonl``. Of ten lines eight are speech, one is a tool call and one a status post.
Words are drawn as in a language, a few often and most of them seldom, so that compression and full text see what they
would see; ``COMMON`` stands in most lines, ``MIDDLING`` in one of about 500 and ``RARE`` in one of 20,000.
"""

import itertools
import json
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

SESSIONS = 10
PAUSE = timedelta(hours=5)  # between sessions; four hours end one
COMMON, MIDDLING, RARE = "the", "violet", "quixotic"
RARE_EVERY, MIDDLING_EVERY = 20_000, 500
WORDS_PER_TEXT = 29

_STARTS = ("b", "br", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "pr", "r", "s", "st", "t", "tr", "v", "w")
_MIDDLES = ("a", "e", "i", "o", "u", "ai", "ea", "ou")
_ENDS = ("", "n", "r", "l", "s", "t", "nd", "ng", "ck")


def vocabulary() -> list[str]:
    """5,000 made-up words, the common ones short as in a language; ``COMMON`` comes first."""
    syllables = ["".join(parts) for parts in itertools.product(_STARTS, _MIDDLES, _ENDS)]
    draw = random.Random(1)
    draw.shuffle(syllables)
    longer = ["".join(draw.sample(syllables, 2)) for _ in range(4500)]
    return [COMMON, *dict.fromkeys([*syllables[:499], *longer])]


def lines(count: int, seed: int = 0, naive: bool = False, sessions: int = SESSIONS) -> Iterator[bytes]:
    """*count* lines with their newlines. Another *seed* makes other bytes: what a database has is not imported again.

    *naive*: speech is stamped without an offset, as RoomKit before 0.108 did.
    """
    words = vocabulary()
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(len(words))))
    draw = random.Random(seed)
    step, now = timedelta(microseconds=250_000), datetime(2026, 1, 5, 8, tzinfo=UTC) + timedelta(milliseconds=seed)
    each = max(1, count // sessions)
    for n in range(count):
        now += step
        text = " ".join(draw.choices(words, cum_weights=weights, k=WORDS_PER_TEXT))
        if n % RARE_EVERY == RARE_EVERY // 2:
            text += " " + RARE
        if n % MIDDLING_EVERY == MIDDLING_EVERY // 2:
            text += " " + MIDDLING
        at = now.isoformat(timespec="microseconds")
        if n % each == 0 and n < each * sessions:
            now += PAUSE if n else timedelta(0)
            entry = {"ts": now.isoformat(timespec="microseconds"), "type": "session", "role": "system"}
            entry |= {"content": "Session started", "duration_ms": None, "metadata": {"channel_id": "voice"}}
        elif n % 10 == 8:
            entry = {"ts": at, "type": "tool_call", "role": None, "content": text[:60], "duration_ms": 12.5 + n % 300}
            arguments = {"q": text[60:110], "limit": n % 50}
            entry["metadata"] = {"tool_name": f"search_{n % 7}", "status": "ok" if n % 30 else "failed"}
            entry["metadata"] |= {"agent_id": f"travel-{n % 3}", "arguments": arguments}
        elif n % 10 == 9:
            entry = {"ts": at, "agent_id": f"travel-{n % 3}", "action": "rebook", "status": "completed", "detail": text}
            entry["metadata"] = {"step": n}
        else:
            ts = at.removesuffix("+00:00") if naive else at
            entry = {"ts": ts, "type": "speech", "role": "assistant" if n % 2 else "user", "content": text}
            entry |= {"duration_ms": None, "metadata": {"participant": "p-1"}}
        yield json.dumps(entry).encode() + b"\n"


def parts(count: int, seed: int = 0, naive: bool = False, size: int = 4 * 2**20) -> Iterator[bytes]:
    """The same in pieces of whole lines of about *size* bytes."""
    held: list[bytes] = []
    length = 0
    for line in lines(count, seed, naive):
        held.append(line)
        length += len(line)
        if length >= size:
            yield b"".join(held)
            held, length = [], 0
    if held:
        yield b"".join(held)


if __name__ == "__main__":
    for part in parts(int(sys.argv[1])):
        sys.stdout.buffer.write(part)
