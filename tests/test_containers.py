"""Archives are unpacked and other shapes of JSON become lines, in pieces of any size and with damage anywhere."""

import contextlib
import gzip
import io
import json
import random
import subprocess
import sys
import zipfile
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditweb.formats import containers, sniff
from auditweb.formats.containers import Damaged, Limits, Locked, TooMuch, Zip, gunzip, kind, reshape
from tests.test_jobs import ROOT, speech

ENOUGH = Limits(2**31, 100)


def cut(data: bytes, size: int):
    for at in range(0, len(data), size):
        yield data[at : at + size]


def shaped(shape: str, data: bytes, size: int = 1000) -> list[bytes]:
    """The lines that come out of *data*."""
    return b"".join(reshape(shape, cut(data, size))).splitlines()


def unpacked(data: bytes, size: int = 1000, limits: Limits = ENOUGH) -> tuple[bytes, str]:
    """What gunzip gives of *data*, and what it says is wrong."""
    out, pieces = b"", gunzip(cut(data, size), limits)
    try:
        for piece in pieces:
            out += piece
    except (Damaged, TooMuch) as e:
        return out, str(e)
    return out, ""


# What a file is


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", ""),
        (b"\n\n", ""),
        (b'{"a": 1}\n{"a": 2}\n', ""),
        (b'{"a": 1}', ""),
        (b'{"a": 1}\r\n{"a": 2}\r\n', ""),
        (b'{"a": 1}{"a": 2}\n{"a": 3}\n{"a": 4}\n', ""),  # one glued line among whole ones is a bad line
        (b"[1, 2]\n" + b'{"a": 1}\n' * 3, ""),
        (b'[2026-04-07 13:05] {"a": 1}\n', ""),
        (b'{"a": nul}\n{"a": 1}\n', ""),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"PK\x03\x04rest", "zip"),
        (b'[{"a": 1}, {"a": 2}]', "array"),
        (b'\xef\xbb\xbf[\n{"a": 1},\n{"a": 2}\n]\n', "array"),
        (b"[]", "array"),
        (b'[{"a": "' + b"x" * 100_000, "array"),
        (b'{\n  "a": 1\n}\n{\n  "a": 2\n}\n', "objects"),
        (b'{ "a": 1,\n  "b": 2 }\n{ "a": 1,\n  "b": 2 }\n', "objects"),
        (b'{"a": 1}{"a": 2}', "objects"),
        (b'{"a": 1} {"a": 2} {"a": 3}\n', "objects"),
        (b'{\n  "a": [\n' + b"    1,\n" * 20_000, "objects"),
        (b'\x1e{"a": 1}\n\x1e{"a": 2}\n', "sequence"),
        (b'{"a": 1}\r{"a": 2}\r', "cr"),
    ],
)
def test_a_file_is_known_by_its_first_bytes(head, expected):
    assert kind(head[: containers.HEAD_BYTES]) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dirty/array.json", ("array", 60)),
        ("dirty/pretty_printed.json", ("objects", 10)),
        ("other/livekit_session_report.json", ("objects", 1)),
        ("dirty/glued_records.jsonl", ("", 5)),
        ("dirty/prefixed_log.jsonl", ("", 9)),
        ("dirty/deep_2000.jsonl", ("", 11)),
        ("dirty/wrong_types.jsonl", ("", 41)),
        ("dirty/utf16le.jsonl", ("", None)),
        ("dirty/session.jsonl.gz", ("gzip", None)),
        ("dirty/three_files.zip", ("zip", None)),
    ],
)
def test_a_sample_is_what_its_bytes_say(sample, name, expected):
    data = sample(name).read_bytes()
    shape, lines = expected
    assert kind(data[: containers.HEAD_BYTES]) == shape
    if shape in containers.SHAPES:
        for size in (1, 7, 4096, 2**20):
            assert len(shaped(shape, data, size)) == lines
        assert all(type(json.loads(line)) is dict for line in shaped(shape, data))


# One object per line

TEXTS = st.text(alphabet=st.sampled_from('ab"\\{}[],: \n\r\t\x1eé\u2028🙂'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), min_size=1, max_size=6)
SPELLINGS = {
    "array": [
        lambda objects: json.dumps(objects),
        lambda objects: json.dumps(objects, indent=2, ensure_ascii=False),
        lambda objects: json.dumps(objects, indent=0),
        lambda objects: "[\n" + ",\n".join(json.dumps(o) for o in objects) + "\n]\n",
        lambda objects: "\ufeff" + json.dumps(objects).replace("{", "{\r\n"),
    ],
    "objects": [
        lambda objects: "".join(json.dumps(o) for o in objects),
        lambda objects: "\n".join(json.dumps(o, indent=4) for o in objects),
        lambda objects: ",\r\n".join(json.dumps(o, indent=1, ensure_ascii=False) for o in objects),
    ],
    "sequence": [
        lambda objects: "".join(f"\x1e{json.dumps(o)}\n" for o in objects),
        lambda objects: "".join(f"\x1e{json.dumps(o, indent=2)}\n" for o in objects),
    ],
    "cr": [lambda objects: "\r".join(json.dumps(o) for o in objects) + "\r"],
}


@settings(max_examples=300, deadline=None)
@given(OBJECTS, st.sampled_from(sorted(SPELLINGS)), st.data())
def test_every_spelling_gives_the_same_objects_whatever_the_pieces(objects, shape, data):
    spelling = data.draw(st.sampled_from(SPELLINGS[shape]))
    # A bracket in a text must not be taken for one of the spelling's own; "{" is what one of them replaces.
    text = spelling(objects)
    if "{\r\n" in text and any("{" in json.dumps(o)[1:] for o in objects):
        return
    size = data.draw(st.integers(1, 40))
    lines = shaped(shape, text.encode("utf-8", "surrogatepass"), size)
    assert [json.loads(line) for line in lines if line.strip()] == objects


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=300) | st.text(alphabet='{}[]",:\\ \n\r\x1ea1', max_size=300), st.sampled_from(containers.SHAPES)
)
def test_any_bytes_come_out_with_nothing_left_out_but_what_stands_between(data, shape):
    data = data.encode() if isinstance(data, str) else data
    between = b" \t\r\n\x0b\x0c\0,[]\x1e" + (b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b"")
    if shape == "sequence":
        data = b"\x1e" + data  # what stands before the first separator belongs to no record
    out = b"".join(reshape(shape, cut(data, 50)))
    assert out.translate(None, between) == data.translate(None, between)


def neighbours(shape: str, broken: bytes, size: int = 100) -> list[bytes]:
    """The lines of a text with *broken* among whole objects."""
    whole = [json.dumps({"n": n, "text": "a, {b}", "in": {"list": [{"x": 1}, {"y": []}]}}).encode() for n in range(6)]
    parts = [*whole[:3], broken, *whole[3:]]
    text = b"[\n" + b",\n".join(parts) + b"\n]\n" if shape == "array" else b"\n".join(parts)
    lines = shaped(shape, text, size)
    found = [json.loads(line)["n"] for line in lines if line in whole]
    assert found == [0, 1, 2, 3, 4, 5], lines
    return [line for line in lines if line not in whole]


@pytest.mark.parametrize("shape", ["array", "objects"])
@pytest.mark.parametrize("size", [1, 13, 100_000])
@pytest.mark.parametrize(
    "broken",
    [
        b'{"n": 1, "text": "never ends',
        b'{"n": 1, "text": "a\\',
        b'{"n": 1, "text": "a", "in": {"b": 2',
        b'{"n": 1, "in": {"list": [1, 2',
        b'{"n": 1, "text"',
        b'{"n": 1}}',
        b'{"n": nul}',
        b'{"n": 1,}',
        b"{'n': 1}",
        b'{"n": "\xff\xfe"}',
        b"null",
        b"12",
        b'"only a text, {not} an object"',
        b"plain words",
    ],
)
def test_damage_inside_keeps_its_neighbours_whole(shape, size, broken):
    odd = neighbours(shape, broken, size)
    assert len(odd) >= 1
    assert b"".join(odd).replace(b" ", b"").startswith(broken.replace(b" ", b"")[:6])


def test_a_quote_too_many_in_an_array_on_one_line_costs_one_object():
    objects = [json.dumps({"n": n, "text": "hello", "more": {"a": 1}}).encode() for n in range(9)]
    objects[4] = objects[4].replace(b'"hello"', b'"hel"lo"')
    for size in (1, 50, 10_000):
        lines = shaped("array", b"[" + b", ".join(objects) + b"]", size)
        whole = objects[:4] + objects[5:]
        assert [line for line in lines if line in whole] == whole and objects[4] in lines


def test_a_value_without_end_is_not_held_in_memory():
    """A text of 64 MiB in one object comes out in pieces; a stack of brackets is cut."""
    scanner = containers._Scanner(array=True)
    pieces = scanner.lines([b'[{"a": "', *[b"x" * 2**20] * 64, b'"}]'])
    assert max(len(piece) for piece in pieces) <= 2**20 + 16
    deep = b"".join(reshape("array", [b'[{"a":', *[b"[" * 2**20] * 4]))
    assert max(len(line) for line in deep.splitlines()) <= containers._DEEPEST + 10


def test_a_torn_record_of_a_sequence_is_a_line_of_its_own():
    lines = shaped("sequence", b'\x1e{"a": 1}\n\x1e{"a": \x1e{"a": 3}\n')
    assert [line.strip() for line in lines] == [b'{"a": 1}', b'{"a":', b'{"a": 3}']


# gzip

LINES = b"".join(speech(n) for n in range(2000))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=5000), min_size=1, max_size=4), st.integers(1, 3000), st.integers(0, 700))
def test_all_members_of_a_gzip_file_come_out_and_zeros_may_follow(members, size, zeros):
    data = b"".join(gzip.compress(member) for member in members) + b"\0" * zeros
    assert unpacked(data, size) == (b"".join(members), "")


def test_a_cut_gzip_file_gives_what_came_before_the_cut():
    data = gzip.compress(LINES)
    for end in random.Random(4).sample(range(1, len(data)), 40):
        out, wrong = unpacked(data[:end])
        assert "ends in the middle" in wrong
        assert LINES.startswith(out)
        assert len(out) >= len(zlib.decompressobj(31).decompress(data[: max(0, end - 8)]))


def test_a_damaged_gzip_file_gives_what_came_before_the_damage():
    data = gzip.compress(LINES)
    half = len(data) // 2
    middle = data[:half] + bytes(b ^ 0xA5 for b in data[half : half + 40]) + data[half + 40 :]
    out, wrong = unpacked(middle)
    assert "damaged" in wrong
    before = zlib.decompressobj(31).decompress(data[:half])
    assert out.startswith(before)
    wrong_sum = data[:-8] + bytes(b ^ 1 for b in data[-8:-4]) + data[-4:]
    assert unpacked(wrong_sum) == (LINES, f"The gzip archive is damaged: what is in it does not fit its check sum "
                                          f"({len(LINES):,} bytes could be read).")  # fmt: skip
    wrong_length = data[:-4] + b"\1\2\3\4"
    assert unpacked(wrong_length)[0] == LINES and "check sum" in unpacked(wrong_length)[1]


def test_junk_after_a_gzip_file_is_said_and_the_lines_before_it_are_kept():
    out, wrong = unpacked(gzip.compress(LINES) + b"\x1f\x8bno more gzip" * 3)
    assert out == LINES and wrong
    out, wrong = unpacked(gzip.compress(LINES) + b"not gzip at all")
    assert out == LINES and "no gzip follows" in wrong


def test_a_gzip_file_that_unpacks_to_too_much_is_stopped_early():
    assert "2,000 bytes that are allowed" in unpacked(gzip.compress(LINES), limits=Limits(2000, 100))[1]
    assert unpacked(gzip.compress(LINES), limits=Limits(len(LINES), 100)) == (LINES, "")
    given = 0
    with pytest.raises(TooMuch, match="100 times its size"):
        for piece in gunzip(cut(bomb(1024), 65_536), Limits(2**40, 100)):
            given += len(piece)
    assert given <= containers.FREE_BYTES + containers.PIECE


def bomb(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b'{"ts": "2026-01-01T00:00:00Z", "type": "speech", "role": "user", "content": "boom"}\n' * 12_483
    return b"".join(packer.compress(block) for _ in range(mebibytes)) + packer.flush()


# zip


def zipped(files: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def opened(data: bytes, limits: Limits = ENOUGH) -> Zip:
    return Zip(len(data), lambda at, size: cut(data[at : at + size], 777), limits)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_members_of_a_zip_come_out_by_name(method):
    files = {"a/one.jsonl": LINES, "two.ndjson": b"", "three.json": b"[{}]", "big.log": LINES * 5}
    archive = opened(zipped(files, method))
    found, skipped = archive.members(sniff)
    assert [(member.name, member.size) for member in found] == [(name, len(data)) for name, data in files.items()]
    assert not skipped
    assert [b"".join(archive.read(member.place)) for member in found] == list(files.values())


def test_what_is_no_dump_in_a_zip_is_left_out_with_the_reason():
    files = {
        "logs/": b"",
        "logs/a.jsonl": speech(1),
        "logs/no-suffix": speech(2),
        "__MACOSX/logs/._a.jsonl": b"\0\5\x16\7",
        "logs/._b.jsonl": b"\0\5\x16\7",
        ".DS_Store": b"\0\0\0\1Bud1" + bytes(range(256)),
        "readme.txt": b"hello",
        "table.csv": b"a,b\n1,2\n",
        "inner.gz": gzip.compress(speech(3)),
        "inner.zip": zipped({"x.jsonl": speech(4)}),
        "empty": b"",
        "page.jsonl": b"<html>502</html>",
    }
    found, skipped = opened(zipped(files)).members(sniff)
    assert [member.name for member in found] == ["logs/a.jsonl", "logs/no-suffix", "page.jsonl"]
    why = {one["name"]: one["reason"] for one in skipped}
    assert set(why) == set(files) - {"logs/"} - {member.name for member in found}
    assert "macOS" in why["__MACOSX/logs/._a.jsonl"] and "macOS" in why["logs/._b.jsonl"]
    assert "CSV" in why["table.csv"] and "gzip" in why["inner.gz"] and "zip" in why["inner.zip"]
    assert all(reason.endswith(".") for reason in why.values())


def test_an_encrypted_or_strangely_packed_member_is_refused():
    data = bytearray(zipped({"a.jsonl": LINES}))
    directory = data.rfind(b"PK\x01\x02")
    data[directory + 8] |= 1
    with pytest.raises(Locked, match="encrypted"):
        list(opened(bytes(data)).read(0))
    with pytest.raises(Locked, match="cannot read"):
        list(opened(zipped({"a.jsonl": LINES}, zipfile.ZIP_LZMA)).read(0))


def test_a_damaged_member_gives_what_came_before_and_says_so():
    data = bytearray(zipped({"a.jsonl": LINES}))
    data[10_000:10_030] = b"\xff" * 30
    archive, out = opened(bytes(data)), b""
    with pytest.raises(Damaged, match="could be read"):
        for piece in archive.read(0):
            out += piece
    assert LINES.startswith(out[:30_000]) and len(out) > 30_000
    stored = bytearray(zipped({"a.jsonl": LINES}, zipfile.ZIP_STORED))
    stored[5000] ^= 1
    with pytest.raises(Damaged, match="check sum"):
        list(opened(bytes(stored)).read(0))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_zip_with_any_byte_changed_or_cut_off_is_read_or_refused(data):
    whole = bytearray(ZIPPED)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    changed = bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    with contextlib.suppress(Damaged, TooMuch, Locked):
        archive = opened(changed)
        found, _ = archive.members(sniff)
        for member in found:
            with contextlib.suppress(Damaged, Locked):
                assert sum(map(len, archive.read(member.place))) <= member.size


ZIPPED = zipped({"a.jsonl": speech(1) * 3, "b.txt": b"words", "c/d.json": b'{"a": 1}'})


def test_a_zip_that_says_it_is_a_bomb_is_believed_and_one_that_lies_gives_no_more_than_it_says():
    with pytest.raises(TooMuch, match="allowed here"):
        opened(zipped({f"{n}.jsonl": LINES for n in range(5)}), Limits(4 * len(LINES), 100))
    with pytest.raises(TooMuch, match="files"):
        opened(zipped({f"{n}.jsonl": b"" for n in range(containers.MAX_MEMBERS + 1)}))
    with pytest.raises(TooMuch, match="directory"):
        opened(zipped({"x" * 3000 + str(n): b"" for n in range(900)}))
    data = bytearray(zipped({"a.jsonl": bytes(10 * 2**20)}))
    directory = data.rfind(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = (1000).to_bytes(4, "little")
    given = 0
    with pytest.raises(Damaged):
        for piece in opened(bytes(data)).read(0):
            given += len(piece)
    assert given == 1000


def test_unpacking_and_reshaping_hold_a_few_mebibytes_however_large_the_content(tmp_path):
    (tmp_path / "bomb.gz").write_bytes(bomb(512))
    script = """
import resource, sys
from auditweb.formats import containers
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
size = 0
with open(sys.argv[1], "rb") as file:
    packed = iter(lambda: file.read(65536), b"")
    for piece in containers.gunzip(packed, containers.Limits(2**40, 10**6)):
        size += len(piece)
def array():
    yield b"["
    for _ in range(96):
        yield b'{"a": [1, 2, {"b": "c"}]},' * 40000
    yield b"{}]"
lines = sum(piece.count(b"\\n") for piece in containers.reshape("array", array()))
print(size, lines, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "bomb.gz")]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    size, lines, kibibytes = map(int, out.split())
    assert size > 500 * 2**20 and lines == 96 * 40_000 + 1
    assert kibibytes < 32 * 1024
