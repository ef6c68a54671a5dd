"""A database of 100,000 sessions and 1,000,000 events, written past the import, to measure lists and searches in.

``python bench/big_database.py [--sessions 100000] [--events 1000000]`` fills the database of the settings
(``AUDITWEB_DATA`` or ``DATABASE_URL``), which must be empty, and prints how long it took. ``fill`` does the same from
another benchmark. One session has a tenth of all events; the others share the rest. Words are drawn from a vocabulary
of 50,000 as words of a language are: the n-th is n times rarer than the first.
"""

import argparse
import itertools
import json
import os
import random
import sys
import time
from datetime import timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LETTERS = "etaoinshrdlucmfwypvbgkqjxz"
AGENTS = ("travel", "billing", "concierge", "planner", "screen-assistant")
TOOLS = tuple(f"search_{n}" for n in range(7))
START_US = 1_767_225_600_000_000  # 2026-01-01
DAY_US = 86_400_000_000


def vocabulary(size: int = 50_000) -> list[str]:
    """Made-up words, the most frequent first; the same ones in every run."""
    chance = random.Random(7)
    words = ("".join(chance.choice(LETTERS) for _ in range(chance.randint(2, 9))) for _ in range(2 * size))
    return list(dict.fromkeys(words))[:size]


def texts(words: list[str], count: int = 20_000, length: int = 30) -> list[str]:
    chance = random.Random(8)
    weights = list(itertools.accumulate(1 / n for n in range(1, len(words) + 1)))
    return [" ".join(chance.choices(words, cum_weights=weights, k=length)) for _ in range(count)]


def fill(team, sessions: int = 100_000, events: int = 1_000_000) -> None:
    """Write them for *team*, index included. The large session is in the middle."""
    from django.db import connection, transaction
    from django.utils import timezone

    from auditweb import log
    from auditweb.ids import public_id
    from sessions_app import fulltext
    from sessions_app.models import EVENT_COLUMNS, Event, Session

    said = texts(vocabulary())
    chance = random.Random(9)
    now = timezone.now()
    long = events // 10
    each = max(1, (events - long) // max(1, sessions - 1))
    for start in range(0, sessions, 500):
        rows, entries, heads, facets, event_rows = [], [], [], [], []
        for number in range(start, min(sessions, start + 500)):
            pk = number + 1
            count = long if number == sessions // 2 else each
            agent, began = chance.choice(AGENTS), START_US + chance.randrange(300 * DAY_US)
            tools: dict[str, int] = {}
            statuses: dict[str, int] = {}
            kinds: dict[str, int] = {}
            for seq in range(1, count + 1):
                text = f"{said[chance.randrange(len(said))]} {number}-{seq}"
                kind, lane, tool, status, extra = "speech", ("assistant", "user")[seq % 2], "", "", ""
                if seq % 10 == 8:
                    kind, lane, tool = "tool_call", "tool", chance.choice(TOOLS)
                    status = "failed" if chance.random() < 0.05 else "ok"
                    extra = json.dumps({"arguments": {"q": text[:60]}}, separators=(",", ":"))
                    tools[tool] = tools.get(tool, 0) + 1
                    statuses[status] = statuses.get(status, 0) + 1
                elif seq % 10 == 9 and chance.random() < 0.3:
                    kind, lane = chance.choice((("vision", "vision"), ("barge_in", "interruption"), ("error", "error")))
                kinds[kind] = kinds.get(kind, 0) + 1
                at = began + seq * 1_000_000
                values = {
                    "ts_text": "", "at_us": at, "sort_us": at, "ts_quality": "aware", "kind": kind, "lane": lane,
                    "role": "", "agent": agent, "tool": tool, "status": status, "duration_ms": None, "text": text,
                    "visibility": "", "extra": extra, "cut": None, "flags": "", "dump_id": 0, "line": seq,
                    "ref": "", "severity": "",
                }  # fmt: skip
                event_rows.append((log.entry_id(pk, seq), *(values[name] for name in EVENT_COLUMNS)))
                entries.append(
                    (log.entry_id(pk, seq), fulltext._entry(team.pk, kind, agent, status, tool, text, extra))
                )
            session = Session(
                pk=pk, public_id=public_id(), team=team, key=f"big-{number}", title=f"Session {number} of {agent}",
                last_seq=count, event_count=count, turn_count=count * 8 // 10, tool_calls=sum(tools.values()),
                tool_failures=statuses.get("failed", 0), vision_count=kinds.get("vision", 0),
                interruptions=kinds.get("barge_in", 0), errors=kinds.get("error", 0), first_us=began,
                last_us=began + count * 1_000_000, agents={agent: count}, tools=tools, tool_statuses=statuses,
                kinds=kinds, opening=said[number % len(said)][:200], live=number % 2000 == 0,
                updated_at=now - timedelta(seconds=sessions - number),
            )  # fmt: skip
            face = fulltext.face(session)
            heads.append((log.entry_id(pk, 0), fulltext._head(team.pk, face.text)))
            facets += [(team.pk, *facet, pk) for facet in face.facets]
            rows.append(session)
        with transaction.atomic():
            Session.objects.bulk_create(rows)
            log.insert(Event, ["id", *EVENT_COLUMNS], event_rows)
            fulltext._insert(heads + entries)
            with connection.cursor() as cursor:
                cursor.executemany(f"INSERT INTO {fulltext.FACETS} VALUES (%s, %s, %s, %s)", facets)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    os.environ["DJANGO_SETTINGS_MODULE"] = "auditweb.settings"
    sys.path.insert(0, str(ROOT))
    import django

    django.setup()
    from django.core.management import call_command

    from auditweb.teams.models import Team

    call_command("migrate", verbosity=0)
    team, _ = Team.objects.get_or_create(slug="bench", defaults={"name": "Bench"})
    begin = time.perf_counter()
    fill(team, options.sessions, options.events)
    print(f"{options.sessions} sessions and {options.events} events in {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
