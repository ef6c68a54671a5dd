"""How times, durations, sizes and raw text look on pages."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from auditweb.templatetags import words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0 ms"),
        (0.85, "850 ms"),
        (1.84, "1.8 s"),
        (40, "40 s"),
        (9.96, "9.9 s"),
        (0.57, "570 ms"),
        (59.6, "59 s"),
        (100.886, "1m 40s"),
        (100, "1m 40s"),
        (3720, "1h 02m"),
        (3 * 86400 + 4 * 3600, "3d 4h"),
        (-5, "−5.0 s"),
    ],
)
def test_durations_use_the_units_that_matter(seconds, text):
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "–"),
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (5 * 2**20 + 2**18, "5.2 MiB"),
        (3 * 2**50, "3072.0 TiB"),
    ],
)
def test_sizes_use_the_largest_fitting_unit(count, text):
    assert words.size(count) == text


def test_numbers_are_grouped_and_counted():
    assert words.number(41302) == "41\u202f302"
    assert words.number(702.4) == "702"
    assert words.counted(1, "line") == "1 line"
    assert words.counted(2, "entry,entries") == "2 entries"
    assert words.percent(0.999) == "99 %"
    assert words.milliseconds(5886.4) == "5\u202f886 ms"


def test_a_moment_is_utc_with_the_exact_time_as_title():
    html = words.moment(datetime(2026, 3, 1, 11, 56, 5, 120_000, timezone(timedelta(hours=-5))))
    assert 'datetime="2026-03-01T16:56:05.120Z"' in html
    assert 'title="2026-03-01 16:56:05.120 UTC"' in html
    assert html.endswith('>2026-03-01 16:56:05<span class="zone-name"> UTC</span></time>')


def test_epoch_microseconds_are_a_moment_too_and_none_is_a_dash():
    at = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert words.clock(1_000_000) == words.clock(at)
    assert words.ago(-1_000_000).startswith('<time datetime="1969-12-31T23:59:59.000Z" data-time="relative"')
    for nothing in (None, "", 2**80):
        assert "–" in words.moment(nothing)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a<b>&", "a&lt;b&gt;&amp;"),
        (b"\xe9", '<span class="control">‹E9›</span>'),
        (b"\x00\r", '<span class="control">␀</span><span class="control">␍</span>'),
        ("\x7f", '<span class="control">␡</span>'),
        ("safe\u202etxt", 'safe<span class="control">‹U+202E›</span>txt'),
        ("\u2028", '<span class="control">‹U+2028›</span>'),
        ("\ud800", '<span class="control">‹U+D800›</span>'),
        ("two\nlines é 日本", "two\nlines é 日本"),
    ],
)
def test_raw_text_is_escaped_and_what_is_invisible_is_shown(raw, shown):
    assert words.visible(raw) == shown
