"""Bytes come in by slices and go out by byte or by line, exactly."""

import hashlib
import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditweb.dumps import store
from auditweb.dumps.models import Dump, DumpChunk, Upload

pytestmark = pytest.mark.django_db(transaction=True)


def receive(team, data: bytes, slice_bytes: int = 10**6, name="a.jsonl") -> Dump:
    dump = store.begin(team, name, len(data))
    for offset in range(0, len(data), slice_bytes):
        store.append_bytes(dump, offset, data[offset : offset + slice_bytes])
    return store.finish(dump)[0]


def test_the_original_comes_back_to_the_byte(team):
    data = os.urandom(700_000)
    dump = receive(team, data, 123_457)
    assert b"".join(store.pieces(dump)) == data
    assert dump.sha256 == hashlib.sha256(data).hexdigest()
    for offset, size in ((0, 1), (262_143, 2), (699_999, 5), (100, 600_000)):
        assert store.read(dump, offset, size) == data[offset : offset + size]


def test_a_slice_that_is_sent_again_is_harmless_and_a_gap_is_refused(team):
    dump = store.begin(team, "a.jsonl", 10)
    assert store.append_bytes(dump, 0, b"hello") == 5
    assert store.append_bytes(dump, 0, b"hello") == 5
    with pytest.raises(store.WrongOffset) as refused:
        store.append_bytes(dump, 7, b"abc")
    assert refused.value.expected == 5
    with pytest.raises(store.WrongOffset):
        store.append_bytes(dump, 0, b"other")
    with pytest.raises(store.TooLarge):
        store.append_bytes(dump, 5, b"too many bytes")
    with pytest.raises(store.WrongOffset):
        store.finish(dump)
    store.append_bytes(dump, 5, b"world")
    assert store.finish(dump)[0].size == 10
    with pytest.raises(store.NotReceiving):
        store.append_bytes(dump, 10, b"")


def test_the_same_bytes_are_kept_once_per_team(team, other_team):
    first = receive(team, b'{"a": 1}\n')
    dump = store.begin(team, "copy.jsonl", 9)
    store.append_bytes(dump, 0, b'{"a": 1}\n')
    again, duplicate = store.finish(dump)
    assert duplicate and again.pk == first.pk
    assert (Upload.objects.count(), Dump.objects.count(), DumpChunk.objects.count()) == (1, 1, 1)
    elsewhere = receive(other_team, b'{"a": 1}\n')
    assert elsewhere.pk != first.pk


LINES = st.lists(st.sampled_from([b"", b"\r", b"x", b"yy" * 40, b"z" * 700, b"\0\xff"]), max_size=60)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(LINES, st.booleans(), st.integers(1, 400), st.integers(1, 300))
def test_lines_are_numbered_and_found_whatever_the_chunks(team, lines, final_newline, slice_bytes, chunk_bytes):
    data = b"\n".join(lines) + (b"\n" if final_newline and lines else b"")
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    keep, store.CHUNK_BYTES = store.CHUNK_BYTES, chunk_bytes
    try:
        dump = receive(team, data, slice_bytes)
    finally:
        store.CHUNK_BYTES = keep
    found = list(store.lines(dump))
    assert [line.raw for line in found] == expected
    assert [line.number for line in found] == list(range(1, len(expected) + 1))
    for line in found:
        assert store.read(dump, line.offset, line.size).rstrip(b"\n") == line.raw
        assert store.line(dump, line.number) == line.raw
    assert store.line(dump, len(expected) + 1) is None
    if found:
        middle = random.Random(len(data)).choice(found)
        assert next(store.lines(dump, middle.offset, middle.number)) == middle
    store.drop_bytes(dump)


def test_a_line_over_the_limit_is_passed_by_without_holding_it(team):
    data = b"short\n" + b"x" * 2_000_000 + b"\nlast\n"
    dump = receive(team, data)
    found = list(store.lines(dump, limit=1000))
    assert [(line.number, line.offset, line.size, line.raw) for line in found] == [
        (1, 0, 6, b"short"),
        (2, 6, 2_000_001, None),
        (3, 2_000_007, 5, b"last"),
    ]


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [("../../etc/passwd", "passwd"), ("C:\\logs\\a.jsonl", "a.jsonl"), ("", "unnamed"), ("a\r\nb", "a��b")],
)
def test_a_file_name_is_kept_on_one_line_and_without_its_path(team, given_name, kept):
    assert store.begin(team, given_name).name == kept
