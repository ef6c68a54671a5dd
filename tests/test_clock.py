"""Times: what can be read, in which zone, and where a line stands among its neighbours."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditweb.formats import BadLine, Record, read_line
from auditweb.formats.clock import HIGHEST_US, Clock, ZoneEvidence, parse_time, zone_of

SAMPLES = Path(__file__).parent / "samples"
MANIFEST = json.loads((SAMPLES / "manifest.json").read_text())
ROOMKIT = [f for f in MANIFEST["files"] if f["path"].startswith("roomkit_")]


def us(text):
    """Microseconds of an ISO time; a naive one is the wall clock read as if it were UTC."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def at(text):
    """A Record that carries this time."""
    ts_us, aware, _ = parse_time(text)
    return Record(ts_text=text or "", ts_us=ts_us, ts_aware=aware)


def records_of(path):
    found = []
    for number, raw in enumerate((SAMPLES / path).read_bytes().split(b"\n"), 1):
        try:
            found += read_line(raw, first=number == 1) or []
        except BadLine:
            continue
    return found


def inferred_zone(records):
    evidence = ZoneEvidence()
    for record in records:
        evidence.see(record)
    return evidence.zone()


# Reading


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-04-16T08:00:00+00:00", "2026-04-16T08:00:00+00:00"),
        ("2026-04-07T13:05:11Z", "2026-04-07T13:05:11+00:00"),
        ("2026-04-07T13:05:12.123456789Z", "2026-04-07T13:05:12.123456+00:00"),
        ("2026-04-07 13:05:13+00", "2026-04-07T13:05:13+00:00"),
        ("20260407T130514Z", "2026-04-07T13:05:14+00:00"),
        ("20260407T002414Z", "2026-04-07T00:24:14+00:00"),
        ("2026-04-07T13:05:15+0530", "2026-04-07T07:35:15+00:00"),
        ("2026-04-07T13:05:16,5-04:00", "2026-04-07T17:05:16.5+00:00"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00+00:00"),
        ("2200-12-31T23:59:59.999999Z", "2200-12-31T23:59:59.999999+00:00"),
    ],
)
def test_a_time_with_an_offset_is_read_to_the_microsecond(text, same):
    assert parse_time(text) == (us(same), True, "")


def test_a_time_without_an_offset_is_the_wall_clock():
    assert parse_time("2026-04-07T13:05:24.5") == (us("2026-04-07T13:05:24.5"), False, "")


@pytest.mark.parametrize(
    "value",
    [
        *("", "t", "yesterday", "2026-04-07", "20260407", "13:05:17", "Tue, 07 Apr 2026 13:05:18 GMT", "1775567119"),
        *(1775567120, 1775567121.25, 1775567122000, True, [], {}, b"2026-04-07T13:05:11Z", float("nan"), 10**400),
        *("2026-02-30T00:00:00Z", "2026-04-07T13:05:60Z", "2026-04-07T24:00:00Z", "20260407T240000Z"),
        *("2024-W01-1", "2026-W15-2T13:05:23Z", "2026W152T130523Z", "12026-01-01T00:00:00Z", "2026-04-07T13:05\ud800"),
        *(" 2026-04-07T13:05:11Z", "2026-04-07T13:05:11Z\n"),
    ],
)
def test_what_is_no_date_with_a_time_is_not_guessed(value):
    assert parse_time(value) == (None, False, "bad_time")


@pytest.mark.parametrize(
    "text",
    [
        *("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999+00:00"),
        *("9999-12-31T23:59:59-12:00", "1969-12-31T23:59:59Z", "2201-01-01T00:00:00Z", "1969-12-31T23:59:59"),
        *("1970-01-01T00:00:00+01:00", "2200-12-31T23:00:00-02:00"),
    ],
)
def test_a_time_that_no_session_can_have_is_out_of_range(text):
    assert parse_time(text) == (None, False, "time_range")


def test_no_time_is_said_to_be_none():
    assert parse_time(None) == (None, False, "no_time")


@given(st.one_of(st.text(), st.datetimes().map(str), st.none() | st.integers() | st.floats(), st.lists(st.text())))
def test_reading_a_time_never_raises(value):
    ts_us, aware, flag = parse_time(value)
    assert (ts_us is None) == bool(flag)
    assert ts_us is None or 0 <= ts_us < HIGHEST_US
    assert aware is False or ts_us is not None


# Zones


def test_zones_have_names_or_offsets():
    summer = datetime(2026, 7, 1)
    assert zone_of("") is None
    assert zone_of("UTC").utcoffset(summer) == timedelta(0)
    assert zone_of("Europe/Paris").utcoffset(summer) == timedelta(hours=2)
    assert zone_of("+02:00").utcoffset(summer) == timedelta(hours=2)
    assert zone_of("-04:00").utcoffset(summer) == timedelta(hours=-4)
    assert zone_of("+05:45").utcoffset(summer) == timedelta(hours=5, minutes=45)


@pytest.mark.parametrize(
    "name",
    [
        *("Europe/Pariss", "Europe", "../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000, "+2:00", "+02:60", "+15:00"),
        *("-14:15", "\ud800", " ", "٠٢:٠٠"),
    ],
)
def test_a_zone_that_does_not_exist_is_refused_with_a_sentence(name):
    with pytest.raises(ValueError, match=r"^(There is no time zone|No clock runs) .*\.$"):
        zone_of(name)


# The clock of one dump


def test_a_time_with_an_offset_stands_where_it_says():
    assert Clock("Europe/Paris").place(at("2026-05-07T13:05:11+00:00")) == (
        us("2026-05-07T13:05:11"),
        us("2026-05-07T13:05:11"),
        "aware",
    )


def test_a_naive_time_is_read_in_the_zone_of_the_dump():
    there = us("2026-05-07T13:05:11")
    assert Clock("Europe/Paris").place(at("2026-05-07T15:05:11")) == (there, there, "inferred")
    assert Clock("+02:00").place(at("2026-05-07T15:05:11")) == (there, there, "inferred")


def test_a_naive_time_without_a_zone_is_assumed_to_be_utc():
    there = us("2026-05-07T15:05:11")
    assert Clock().place(at("2026-05-07T15:05:11")) == (there, there, "assumed")


def test_the_offset_of_a_dump_moves_all_its_lines():
    clock = Clock("+02:00", offset_ms=-1500)
    assert clock.place(at("2026-05-07T13:05:11Z"))[0] == us("2026-05-07T13:05:09.5")
    assert clock.place(at("2026-05-07T15:05:11"))[0] == us("2026-05-07T13:05:09.5")
    assert clock.place(at(None)) == (None, us("2026-05-07T13:05:09.5"), "missing")


def test_a_line_without_a_time_stands_with_the_line_before_it():
    clock = Clock()
    assert clock.place(at("yesterday")) == (None, 0, "missing")
    clock.place(at("2026-05-07T13:05:11Z"))
    assert clock.place(at(None)) == (None, us("2026-05-07T13:05:11"), "missing")


def test_the_hour_that_is_lived_twice_follows_the_file():
    clock, offsets = Clock("America/Toronto"), []
    for record in records_of("roomkit_session/v058_dst_fall_back_toronto.jsonl"):
        place, _, _ = clock.place(record)
        offsets.append((record.ts_us - place) // 3_600_000_000)
    assert offsets == [-4, -4, -4, -5, -5, -5, -5]


def test_lines_that_cross_by_a_moment_stay_in_the_same_hour():
    clock = Clock("America/Toronto")
    clock.place(at("2026-11-01T01:40:00.700000"))
    assert clock.place(at("2026-11-01T01:39:58"))[0] == us("2026-11-01T05:39:58")


def test_the_repeated_hour_is_told_apart_with_a_corrected_clock_too():
    clock = Clock("America/Toronto", offset_ms=3_600_000)
    clock.place(at("2026-11-01T01:54:00"))
    assert clock.place(at("2026-11-01T01:58:00"))[0] == us("2026-11-01T06:58:00")
    assert clock.place(at("2026-11-01T01:01:00"))[0] == us("2026-11-01T07:01:00")


def test_the_hour_that_nobody_lived_is_read_like_the_one_before():
    assert Clock("Europe/Paris").place(at("2026-03-29T02:30:00"))[0] == us("2026-03-29T01:30:00")


def test_naive_lines_never_pass_each_other():
    clock = Clock("Europe/Paris")
    first = clock.place(at("2026-05-07T15:05:11"))
    second = clock.place(at("2026-05-07T15:05:10"))
    assert second == (us("2026-05-07T13:05:10"), first[1], "inferred")
    assert clock.place(at("2026-05-07T13:05:09Z"))[1] == us("2026-05-07T13:05:09")
    assert clock.place(at("2026-05-07T15:05:10.5"))[1] == first[1]


@pytest.mark.parametrize("sample", ROOMKIT, ids=lambda f: f["path"])
def test_every_sample_lies_where_the_manifest_says(sample):
    reading = sample["reading"]["timestamps"]
    records = records_of(sample["path"])
    clock = Clock(reading.get("naive_read_as", ""))
    places = [clock.place(record)[0] for record in records]
    known = [place for place in places if place is not None]
    assert (min(known), max(known)) == (us(reading["utc_min"]), us(reading["utc_max"]))
    assert len(places) - len(known) == reading["bad"] + reading["missing"]
    assert sum(r.ts_aware for r in records) == reading["aware"]
    assert sum(r.ts_us is not None and not r.ts_aware for r in records) == reading["naive"]


# The zone that the neighbours prove


@pytest.mark.parametrize("sample", ROOMKIT, ids=lambda f: f["path"])
def test_the_zone_found_in_a_sample_puts_it_where_the_manifest_says(sample):
    reading = sample["reading"]["timestamps"]
    records = records_of(sample["path"])
    zone = inferred_zone(records)
    if not (reading["naive"] and reading["aware"]):
        assert zone == ""
        return
    clock = Clock(zone)
    known = [place for place in (clock.place(record)[0] for record in records) if place is not None]
    assert (min(known), max(known)) == (us(reading["utc_min"]), us(reading["utc_max"]))


@pytest.mark.parametrize(
    ("path", "zone"),
    [
        ("roomkit_session/v058_tiny_toronto.jsonl", "-04:00"),
        ("roomkit_session/v058_call_60_paris.jsonl", "+02:00"),
        ("roomkit_session/v058_tool_last_paris.jsonl", "+02:00"),
        ("roomkit_mixed/v058_session_and_status_paris.jsonl", "+02:00"),
        ("roomkit_session/manual_entries.jsonl", "+02:00"),
        ("roomkit_session/v058_dst_fall_back_toronto.jsonl", ""),
        ("roomkit_session/support_call_60.jsonl", ""),
        ("dirty/mixed_timezones.jsonl", "UTC"),
    ],
)
def test_the_offset_of_naive_lines_shows_in_their_aware_neighbours(path, zone):
    assert inferred_zone(records_of(path)) == zone


@given(
    st.integers(-14 * 4, 14 * 4),
    st.lists(st.tuples(st.booleans(), st.integers(0, 590)), min_size=2, max_size=60),
)
def test_any_offset_is_found_when_an_aware_line_is_near(quarters, lines):
    moment, records = us("2026-05-07T13:05:11"), []
    for aware, seconds in lines:
        moment += seconds * 1_000_000
        records.append(Record(ts_us=moment if aware else moment + quarters * 900_000_000, ts_aware=aware))
    adjacent = any(a.ts_aware != b.ts_aware for a, b in pairwise(records))
    minutes = abs(quarters) * 15
    name = f"{'-' if quarters < 0 else '+'}{minutes // 60:02d}:{minutes % 60:02d}" if quarters else "UTC"
    assert inferred_zone(records) == (name if adjacent else "")


def test_an_aware_line_on_one_side_is_enough_when_it_is_near():
    assert inferred_zone([at("2026-05-07T15:05:11"), at("2026-05-07T13:14:00Z")]) == "+02:00"
    assert inferred_zone([at("2026-05-07T13:05:11Z"), at("2026-05-07T09:14:00")]) == "-04:00"
    assert inferred_zone([at("2026-05-07T15:05:11"), at("2026-05-07T13:17:00Z")]) == ""


def test_neighbours_that_crossed_by_a_second_do_not_mislead():
    assert inferred_zone([at("2026-05-07T15:05:11"), at("2026-05-07T13:05:10Z")]) == "+02:00"
    assert inferred_zone([at("2026-05-07T13:05:11Z"), at("2026-05-07T15:05:10")]) == "+02:00"


def test_one_stray_line_does_not_outvote_the_others():
    lines = ["2026-05-07T15:05:11", "2026-05-07T13:05:12Z", "2026-05-07T15:05:13", "2026-05-07T13:05:14Z"]
    assert inferred_zone([*map(at, lines), at("2026-05-07T13:05:15"), at("2026-05-07T13:05:16Z")]) == "+02:00"


def test_naive_lines_days_apart_from_aware_ones_prove_nothing():
    assert inferred_zone([at("2026-05-07T15:05:11"), at("2026-05-12T13:05:12Z")]) == ""


# Going on after a break


def times():
    aware = st.builds(lambda s: Record(ts_us=s * 1_000_000, ts_aware=True), st.integers(1_793_500_000, 1_793_520_000))
    naive = st.builds(lambda s: Record(ts_us=s * 1_000_000), st.integers(1_793_490_000, 1_793_510_000))
    return st.lists(st.one_of(aware, naive, naive, st.just(Record())), max_size=120)  # around 2026-11-01 in Toronto


@given(times(), st.sets(st.integers(0, 120)), st.sampled_from(["", "America/Toronto", "+02:00"]))
def test_a_clock_that_was_put_away_goes_on_exactly(records, breaks, zone):
    whole, parts = Clock(zone, 250), Clock(zone, 250)
    for number, record in enumerate(records):
        if number in breaks:
            parts = Clock(zone, 250, json.loads(json.dumps(parts.state())))
        assert parts.place(record) == whole.place(record)
    assert parts.state() == whole.state()


@given(times(), st.sets(st.integers(0, 120)))
def test_evidence_that_was_put_away_goes_on_exactly(records, breaks):
    whole, parts = ZoneEvidence(), ZoneEvidence()
    for number, record in enumerate(records):
        if number in breaks:
            parts = ZoneEvidence(json.loads(json.dumps(parts.state())))
        whole.see(record)
        parts.see(record)
        assert parts.zone() == whole.zone()
    assert parts.state() == whole.state()


def test_many_naive_lines_leave_a_small_state():
    evidence = ZoneEvidence()
    for second in range(2000):
        evidence.see(Record(ts_us=1_700_000_000_000_000 + second * 1_000_000))
    assert len(json.dumps(evidence.state())) < 1000


@given(times(), st.sampled_from(["", "America/Toronto"]))
def test_naive_lines_keep_the_order_of_the_file(records, zone):
    clock = Clock(zone)
    placed = [(record, clock.place(record)) for record in records]
    naive = [sort for record, (_, sort, _) in placed if record.ts_us is not None and not record.ts_aware]
    assert naive == sorted(naive)
