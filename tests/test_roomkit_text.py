"""The texts of RoomKit, against what the library itself printed for the sample dumps."""

import json
import tracemalloc
from datetime import UTC
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditweb.formats import roomkit_text as texts

SAMPLES = Path(__file__).parent / "samples"
MANIFEST = json.loads((SAMPLES / "manifest.json").read_text(encoding="utf-8"))
ROOMKIT = [f for f in MANIFEST["files"] if f["path"].startswith("roomkit_") and f.get("golden_text")]
GOLDEN = [(f["path"], golden) for f in ROOMKIT for golden in f["golden_text"]]
FILES = {f["path"]: f for f in ROOMKIT}


def read(path):
    return [json.loads(line) for line in (SAMPLES / path).read_bytes().split(b"\n") if line.strip()]


def sort_of(entry):
    """The key rules of the three RoomKit formats, in the order in which an import tries them."""
    if {"tool_name", "arguments", "result"} <= entry.keys():
        return "tool"
    if {"type", "content", "ts"} <= entry.keys():
        return "session"
    if {"action", "status", "agent_id"} <= entry.keys():
        return "status"
    raise AssertionError(f"no RoomKit line: {entry}")


def only(sort, entries):
    return [entry for entry in entries if sort_of(entry) == sort]


def said(ts, text="hello", role="user"):
    return {"ts": ts, "type": "speech", "role": role, "content": text, "duration_ms": None, "metadata": {}}


def started(ts):
    metadata = {"channel_id": "rt-voice", "participant_id": "user-1"}
    return {"ts": ts, "type": "session", "role": "system", "content": "Session started", "metadata": metadata}


def posted(second, detail="", status="ok", agent="exec", action="search", **metadata):
    ts = f"2026-06-01T09:00:{second:02d}.500000+00:00"
    return {"ts": ts, "agent_id": agent, "action": action, "status": status, "detail": detail, "metadata": metadata}


def joined(pieces):
    return "".join(pieces)


@pytest.mark.parametrize(("path", "golden"), GOLDEN)
def test_the_text_equals_what_the_library_printed(path, golden):
    entries, expected = read(path), (SAMPLES / path).with_name(golden).read_bytes()
    name, zone = Path(path).name, ZoneInfo(FILES[path]["tz"])
    if runs := FILES[path].get("runs"):  # the library sums up one run, however many the file holds
        run = runs[int(golden.split(".run")[1][0]) - 1]
        entries = entries[run["first_line"] - 1 : run["last_line"]]
    if golden.endswith(".recent_text.txt"):
        clock = texts.detect_clock(only("session", entries))
        text = texts.recent_text(only("status", entries), clock=clock)
    elif golden.endswith(".status_summary.txt") or path.startswith("roomkit_status/"):
        text = texts.status_text(only("status", entries))
    elif golden.endswith(".tool_summary.txt") or path.startswith("roomkit_tool/"):
        text = texts.tool_text(name, only("tool", entries))
    else:
        text = texts.session_text(name, only("session", entries), zone)
    assert texts.to_bytes(text) == expected


def test_every_golden_text_of_the_samples_is_compared():
    compared = {str(Path(path).with_name(golden)) for path, golden in GOLDEN}
    there = {str(p.relative_to(SAMPLES)) for d in SAMPLES.glob("roomkit_*") for p in d.glob("*.txt")}
    assert compared == there
    assert len(there) >= 40


def test_empty_dumps_have_the_fixed_sentences_of_the_library():
    assert joined(texts.session_text("a.jsonl", [])) == "\nNo session events recorded."
    assert joined(texts.tool_text("a.jsonl", [])) == "\nNo tool calls recorded."
    assert joined(texts.tool_text("a.jsonl", [], console=True)) == "\nNo tool calls recorded."
    assert joined(texts.status_text([])) == "No status entries."
    assert joined(texts.recent_text([])) == "No activity yet."
    assert texts.to_bytes("") == b"\n"


# Clocks


def test_old_hooks_show_their_own_wall_time_and_new_ones_the_readers():
    paris = ZoneInfo("Europe/Paris")
    old = [started("2026-05-08T15:05:11.4"), said("2026-05-08T15:05:12"), said("2026-05-08T13:05:13+00:00")]
    new = [started("2026-05-08T13:05:11.4+00:00"), said("2026-05-08T15:05:12"), said("2026-05-08T13:05:13+00:00")]
    assert joined(texts.session_text("x", old, paris)).count("[15:05:1") == 2
    assert "[13:05:13] USER" in joined(texts.session_text("x", old, paris))
    assert joined(texts.session_text("x", new, paris)).count("[15:05:1") == 3


def test_the_clock_can_be_told():
    entries = [said("2026-05-08T13:05:11+00:00")]
    toronto = ZoneInfo("America/Toronto")
    assert "[13:05:11]" in joined(texts.session_text("x", entries, toronto, clock="naive"))
    assert "[09:05:11]" in joined(texts.session_text("x", entries, toronto, clock="local"))
    assert "[13:05:11]" in joined(texts.session_text("x", entries, clock="local"))
    with pytest.raises(ValueError, match="clock must be one of"):
        texts.session_text("x", entries, clock="wall")


def test_the_hooks_own_session_line_outranks_lines_written_by_hand():
    by_hand = {"ts": "2026-05-08T13:09:00+00:00", "type": "session", "content": "Session ended", "metadata": {}}
    assert texts.detect_clock([started("2026-05-08T15:05:11"), by_hand]) == "naive"
    assert texts.detect_clock([by_hand, started("2026-05-08T15:05:11")]) == "naive"
    assert texts.detect_clock([said("2026-05-08T15:05:11"), by_hand]) == "local"
    assert texts.detect_clock([said("2026-05-08T15:05:11")]) == "naive"
    assert texts.detect_clock([{"ts": "2026-05-08T15:05:11", "type": "tool_call", "content": ""}]) == "local"
    assert texts.detect_clock([said("when?")]) == "local"


def test_finding_the_clock_reads_no_further_than_it_must():
    lines = iter([started("2026-05-08T15:05:11"), said("2026-05-08T15:05:12")])
    assert texts.detect_clock(lines) == "naive"
    assert len(list(lines)) == 1


@pytest.mark.parametrize("clock", ["auto", "naive"])
def test_a_sequence_a_callable_and_an_iterator_give_the_same_text(clock):
    entries = only("session", read("roomkit_mixed/v058_session_and_status_paris.jsonl"))
    expected = joined(texts.session_text("x", entries, clock=clock))
    assert joined(texts.session_text("x", lambda: iter(entries), clock=clock)) == expected
    assert joined(texts.session_text("x", iter(entries), clock=clock)) == expected
    undecided = [said("2026-05-08T15:05:11"), said("2026-05-08T15:05:13")]
    assert joined(texts.session_text("x", iter(undecided))) == joined(texts.session_text("x", undecided))


def test_a_wall_time_that_the_clocks_skipped_is_shown_an_hour_earlier():
    spring = [said("2026-03-29T02:30:00")]
    assert "[01:30:00]" in joined(texts.session_text("x", spring, ZoneInfo("Europe/Paris"), clock="local"))
    assert "[02:30:00]" in joined(texts.session_text("x", spring, ZoneInfo("Europe/Paris")))
    autumn = [said("2026-10-25T02:30:00")]
    assert "[02:30:00]" in joined(texts.session_text("x", autumn, ZoneInfo("Europe/Paris"), clock="local"))


@pytest.mark.parametrize(
    ("first", "last", "printed"),
    [
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00.4", "0s"),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:59.7", "60s"),
        ("2026-01-01T00:00:00", "2026-01-01T00:01:00", "1m 0s"),
        ("2026-01-01T00:00:00", "2026-01-01T00:01:40.9", "1m 40s"),
        ("2026-01-01T00:00:00", "2026-01-01T01:02:03", "1h 2m 3s"),
        ("2026-01-01T00:00:00", "2026-01-03T01:00:00", "49h 0m 0s"),
        ("2026-01-01T01:00:00+01:00", "2026-01-01T00:00:05Z", "5s"),
        ("2026-01-01T00:18:00", "2026-01-01T00:00:00", "-1080s"),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00", "?"),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:09Z", "?"),
        ("2026-01-01T00:00:00", "later", "?"),
        (None, "2026-01-01T00:00:00", "?"),
    ],
)
def test_the_duration_is_last_line_minus_first(first, last, printed):
    text = joined(texts.session_text("x", [said(first), said("2026-01-01T12:00:00"), said(last)]))
    assert f"\n\n  Duration: {printed} | Turns: 3 user, 0 assistant" in text


# The documentation's style


def test_the_style_of_the_documentation_counts_on_two_lines():
    entries = read("roomkit_session/tiny_doc_example.jsonl")
    upstream = joined(texts.session_text("session.jsonl", entries)).split("\n")
    docs = joined(texts.session_text("session.jsonl", entries, style="docs")).split("\n")
    assert docs[:-3] == upstream[:-2]
    assert docs[-3:] == [
        "  Duration: 1m 40s | Turns: 2 user, 2 assistant",
        "  Tool calls: 1 (5886ms) | Vision: 1 | Interruptions: 1",
        "  Tools: describe_screen(1)",
    ]
    assert joined(texts.session_text("x", [said("t")], style="docs")).endswith(
        "\n\n  Duration: ? | Turns: 1 user, 0 assistant"
    )
    with pytest.raises(ValueError, match="style must be one of"):
        texts.session_text("x", entries, style="upstraem")


def test_the_status_total_of_the_documentation_has_its_own_words():
    entries = [
        posted(1, "Found 15 text elements on results page", action="search_google"),
        posted(2, 'Clicked "roomkit.live" at (274,313)', action="click_result(118)"),
        posted(3, "Duration: 48303ms", "completed", "system", "task_completed"),
    ]
    docs = joined(texts.status_text(entries, style="docs"))
    assert docs.endswith("\n\n  Total: 3 entries (2 ok, 0 failed, 1 completed)")
    assert joined(texts.status_text(entries)).endswith("\n\n  Total: 3 entries (2 ok, 0 fail, 1 done)")
    assert "\n   3. [*] system task_completed\n      Duration: 48303ms\n" in docs
    with pytest.raises(ValueError, match="style must be one of"):
        texts.status_text(entries, style="plain")


# Tools


def test_the_console_auditor_prints_agents_and_no_results():
    entries = read("roomkit_tool/doc_example.jsonl")
    assert joined(texts.tool_text("audit.jsonl", entries, console=True)) == "\n".join(
        [
            "",
            "Tool Audit (console)",
            "=" * 60,
            "   1. [OK] exec.search_google  (9333ms)",
            "   2. [OK] exec.click_result  (5505ms)",
            "   3. [OK] exec.read_screen  (2729ms)",
            "",
            "  Total: 3 calls, 17567ms",
        ]
    )


# Status bus


def test_only_the_last_500_by_time_are_printed_and_counted():
    entries = [posted(i % 60, f"detail {i}") for i in range(60)] * 10
    text = joined(texts.status_text(entries))
    assert "\n  Total: 500 entries (500 ok, 0 fail, 0 done)" in text
    assert "\n   1. [+] exec   search\n      detail 10\n" in text
    assert joined(texts.recent_text(entries, 600)).count("\n") == 499


def test_newest_first_reads_like_oldest_first_also_where_times_are_equal():
    oldest_first = [posted(i // 3, f"detail {i}") for i in range(90)]
    for text in (texts.status_text, texts.recent_text):
        assert joined(text(oldest_first[::-1])) == joined(text(oldest_first))
    same_instant = [posted(1, "first"), posted(1, "second")]
    assert joined(texts.recent_text(same_instant)).index("first") < joined(texts.recent_text(same_instant)).index(
        "second"
    )


def test_a_status_line_without_a_time_stays_beside_the_line_before_it():
    lost = {**posted(0, "lost"), "ts": "yesterday"}
    text = joined(texts.recent_text([posted(5, "five"), lost, posted(4, "four"), posted(6, "six")]))
    assert [line.split("“")[1] for line in text.split("\n")] == ["four”", "five”", "lost”", "six”"]


def test_recent_text_takes_the_last_n():
    entries = [posted(i, f"detail {i}") for i in range(20)]
    assert joined(texts.recent_text(entries, 2)) == (
        "[09:00:18] exec: search → ok | “detail 18”\n[09:00:19] exec: search → ok | “detail 19”"
    )
    assert joined(texts.recent_text(entries, 1, "plain")) == "[09:00:19] exec: search → ok | detail 19"
    assert joined(texts.recent_text([posted(1)], 1)) == "[09:00:01] exec: search → ok"
    assert joined(texts.recent_text(entries, 0)) == "No activity yet."
    with pytest.raises(ValueError, match="style must be one of"):
        texts.recent_text(entries, 1, "curly")


def test_the_way_a_detail_was_cut_tells_the_style():
    hard, soft = "word " * 40, "word " * 30 + "word…"
    assert len(hard) == 200

    def style(*entries, clock="local"):
        return "quoted" if "“" in joined(texts.recent_text(entries, 1, clock=clock)) else "plain"

    assert style(posted(1, hard, room_id="r")) == "plain"
    assert style(posted(1, hard)) == "quoted"  # a post by hand may have any length
    assert style(posted(1, soft, "pending", room_id="r"), clock="naive") == "quoted"
    assert style(posted(1, soft, "completed", room_id="r", result="word " * 99), clock="naive") == "quoted"
    assert style(posted(1, soft, "completed", room_id="r"), clock="naive") == "plain"  # the author's own "…"
    assert style(posted(1, soft, "pending"), clock="naive") == "plain"
    assert style(posted(1, "short"), clock="naive") == "plain"
    # A bus that lived through the change: its newest sign counts, wherever it stands in the file.
    after = posted(9, soft, "pending", room_id="r")
    assert style(posted(1, hard, room_id="r"), after) == style(after, posted(1, hard, room_id="r")) == "quoted"


@pytest.mark.parametrize(
    ("raw", "printed"),
    [
        ("plain", "plain"),
        ("line\nbreak", "line-break"),
        ("a: b → c", "a-b-c"),
        ("--x--", "x"),
        ("user_1.2@home+x", "user_1.2@home+x"),
        ("Zoé", "Zoé"),
        ("Zoe\u0301", "Zoé"),
        ("注文", "注文"),
        ("a⑵b", "a-b"),
        ("admin\u02d0", "admin"),
        ("a\ud800b", "a-b"),
        ("x" * 70, "x" * 64),
        ("!!!", "action"),
        ("", "action"),
    ],
)
def test_a_quoted_line_has_clean_names(raw, printed):
    assert joined(texts.recent_text([posted(1, action=raw)], 1, "quoted")) == f"[09:00:01] exec: {printed} → ok"
    agent = "agent" if printed == "action" else printed
    assert joined(texts.recent_text([posted(1, agent=raw)], 1, "quoted")) == f"[09:00:01] {agent}: search → ok"


@pytest.mark.parametrize(
    ("raw", "printed"),
    [
        ("a\n\tb\u2028c  d", "a b c d"),
        ('say "hi" „so“ «x»', "say 'hi' 'so' 'x'"),
        ("left\u202egpj.exe", "leftgpj.exe"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 199 + "…"),
        ("word " * 41, "word " * 38 + "word…"),
        ("a " + "x" * 300, "a " + "x" * 197 + "…"),
        ("   ", ""),
        ("<task>do</task> short", "<task>do</task> short"),
        ("Your <task>" + "x" * 300 + "</task> then <VISION a='1'>b< / vision >!", "Your [task] then [vision]!"),
        ("see <context> " + "never closed " * 30, "see [context]"),
        ("<task_> <tasks> <task-list> " + "y" * 250, "<task_> <tasks> <task-list> " + "y" * 171 + "…"),
    ],
)
def test_a_quoted_detail_is_one_line_that_nothing_inside_can_end(raw, printed):
    assert joined(texts.recent_text([posted(1, raw)], 1, "quoted")).endswith(f" | “{printed}”")


# Odd values


def test_what_utf8_cannot_hold_is_written_as_escapes_and_the_file_ends_with_a_newline():
    assert texts.to_bytes("é \udce9 \x00") == "é \\udce9 \x00\n".encode()
    assert texts.to_bytes(["a", "\ud83d", "\ude00"]) == b"a\\ud83d\\ude00\n"
    assert b"".join(texts.byte_pieces(iter(["a", "b"]))) == b"ab\n"


def test_values_of_wrong_types_are_printed_sensibly():
    entries = [
        {"ts": 17, "type": "speech", "role": ["user"], "content": None, "metadata": None},
        {"ts": None, "type": "tool_call", "content": {"a": 1}, "duration_ms": "12", "metadata": {"tool_name": None}},
        {"type": "tool_call", "content": "", "duration_ms": True, "metadata": {"tool_name": [1], "status": 5}},
        {"ts": "t", "type": "tool_call", "content": "", "duration_ms": 10**400, "metadata": {"arguments": [1]}},
        {"ts": "t", "type": ["x"], "content": 5, "metadata": []},
    ]
    assert joined(texts.session_text("x", entries)).split("\n")[3:] == [
        '  [17] ASSISTANT: ""',
        "  [] TOOL None → OK",
        "           {'a': 1}",
        "  [] TOOL [1] → 5",
        "  [t] TOOL ? [1] → OK (infms)",
        "  [t] ['X'] 5",
        "",
        "  Duration: ? | Turns: 0 user, 1 assistant | Tool calls: 3 (infms)",
        "  Tools: ?(1), None(1), [1](1)",
    ]
    calls = [{"tool_name": {}, "result": None, "status": ["ok"], "duration_ms": None}, {"result": 1, "duration_ms": 2}]
    assert joined(texts.tool_text("x", calls)).split("\n")[3:] == [
        "   1. [FAIL] {}  (?ms)",
        "      → ",
        "   2. [FAIL] ?  (2ms)",
        "      → 1",
        "",
        "  Total: 2 calls, 2ms",
        "  Tools: ?(1), {}(1)",
    ]
    post = {"ts": {}, "agent_id": 7, "action": None, "status": ["ok"], "detail": 1.5, "metadata": "m"}
    assert joined(texts.status_text([post])).split("\n")[3:5] == ["   1. [?] 7      ", "      1.5"]
    assert joined(texts.recent_text([post], style="plain")) == "[] 7:  → ['ok'] | 1.5"


def test_times_at_the_ends_of_the_calendar_do_not_stop_the_text():
    entries = [said("0001-01-01T00:00:00+14:00"), said("9999-12-31T23:59:59-12:00")]
    text = joined(texts.session_text("x", entries, ZoneInfo("Asia/Tokyo"), clock="local"))
    assert "[00:00:00]" in text
    assert "[23:59:59]" in text
    posts = [{**posted(0), "ts": entry["ts"]} for entry in entries]
    assert joined(texts.status_text(posts)).startswith("\nStatus Log")


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def test_values_too_deep_or_too_long_to_print_do_not_stop_the_text():
    entries = [
        {"ts": "t", "type": "tool_call", "content": "", "metadata": {"arguments": deep(100_000)}},
        {"ts": "t", "type": "tool_call", "content": 10**5000, "metadata": {"arguments": [10**5000]}},
    ]
    text = joined(texts.session_text("x", entries))
    assert text.count("TOOL ? … → OK") == 2


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["ok", "failed", "speech", "tool_call", "vision", "session", "error", "user", "…", "\ud800"])
    | st.sampled_from(
        ["2026-05-08T15:05:11", "2026-05-08T13:05:11.5+00:00", "0001-01-01T00:00:00+23:59", "9999-12-31"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    *("ts", "type", "role", "content", "duration_ms", "metadata"),
    *("agent_id", "tool_name", "arguments", "result", "status", "action", "detail"),
]
META_KEYS = st.sampled_from(["tool_name", "arguments", "status", "room_id", "result", "channel_id", "participant_id"])
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            key: JSON_VALUES | st.dictionaries(META_KEYS, JSON_VALUES) if key == "metadata" else JSON_VALUES
            for key in KEYS
        },
    ),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(entries=ENTRIES, clock=st.sampled_from(["auto", "naive", "local"]), n=st.integers(-1, 4))
def test_any_json_objects_give_a_text(entries, clock, n):
    zone = ZoneInfo("America/Toronto")
    for pieces in (
        texts.session_text("x", entries, zone, clock),
        texts.session_text("x", iter(entries), UTC, clock, "docs"),
        texts.tool_text("x", entries),
        texts.tool_text("x", entries, console=True),
        texts.status_text(entries),
        texts.status_text(entries, "docs"),
        texts.recent_text(entries, n),
        texts.recent_text(entries, n, "quoted"),
        texts.recent_text(entries, n, "plain", "naive"),
    ):
        assert texts.to_bytes(pieces).decode("utf-8").endswith("\n")


def long_dump(kind):
    """5 000 lines, 20 MiB, of which only one exists at a time."""
    for i in range(5_000):
        words = f"line {i} " + "x" * 4000
        if kind == "session":
            yield {**started("2026-05-08T13:05:11+00:00"), "content": words}
        elif kind == "tool":
            yield {"tool_name": "t", "arguments": {}, "result": words, "status": "ok", "duration_ms": 1.0}
        else:
            yield posted(i % 60, words)


@pytest.mark.parametrize("kind", ["session", "tool", "status"])
def test_a_long_dump_is_never_held_in_memory(kind):
    make = {
        "session": partial(texts.session_text, "x"),
        "tool": partial(texts.tool_text, "x"),
        "status": texts.status_text,
    }
    tracemalloc.start()
    try:
        written = sum(len(piece) for piece in texts.byte_pieces(make[kind](long_dump(kind))))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written > 50_000
    assert peak < 2**20
