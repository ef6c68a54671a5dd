"""Files that grow, seen from outside: whole lines, files that begin anew, names that match."""

import os
from pathlib import Path

import pytest

from auditweb.dumps.tailing import Cut, Endless, Places, Tail


def write(path: Path, data: bytes, mode: str = "ab") -> None:
    with path.open(mode) as file:
        file.write(data)


def lines(tail: Tail) -> list[bytes]:
    found = tail.head(1000, 2**20)
    tail.drop(len(found))
    return found


def test_a_line_is_whole_when_its_newline_came(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, b"one\ntw")
    tail = Tail.open(str(path), 100)
    assert tail.look() and lines(tail) == [b"one"]
    assert (tail.unfinished, tail.offset) == (b"tw", 4)
    write(path, b"o\r\n\n\xff\0\nfour")
    assert tail.look() and lines(tail) == [b"two\r", b"", b"\xff\0"]
    assert not tail.look()
    path.rename(tmp_path / "b.jsonl")
    write(tmp_path / "b.jsonl", b"\n")
    assert tail.look() and lines(tail) == [b"four"]
    assert tail.offset == tail.stat().st_size
    write(tmp_path / "b.jsonl", b"x" * 101)
    with pytest.raises(Endless):
        tail.look()
    tail.close()


def test_a_file_that_is_written_anew_is_told_from_one_that_grew(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, b"one\ntwo\nthr")

    def opened():
        write(path, b"one\ntwo\nthr", "wb")
        tail = Tail.open(str(path), 100)
        tail.look()
        lines(tail)
        return tail

    tail = opened()
    write(path, b"one\ntwo\nth", "wb")  # only what was not finished is shorter
    assert not tail.look() or not lines(tail)
    assert tail.unfinished == b"th"
    write(path, b"ree\n")
    assert tail.look() and lines(tail) == [b"three"]
    for anew in (b"", b"one\n", b"one\ntwX\nthree and more\n", b"neo\ntwo\nthr"):
        tail = opened()
        write(path, anew, "wb")
        with pytest.raises(Cut):
            tail.look()
        assert tail.unfinished == b"thr"
        tail.close()


def test_places_name_files_that_are_not_there_yet(tmp_path):
    def names(places):
        return sorted(os.path.relpath(file, tmp_path) for file in places.files())

    single, folder = Places([f"{tmp_path}/later/a.jsonl"]), Places([f"{tmp_path}/later"])
    pattern, deep = Places([f"{tmp_path}/l*/[ab].jsonl"]), Places([f"{tmp_path}/**/*.jsonl"])
    assert [names(p) for p in (single, folder, pattern, deep)] == [[], [], [], []]
    (tmp_path / "later" / "deeper").mkdir(parents=True)
    for name in (
        "later/a.jsonl",
        "later/b.jsonl",
        "later/c.log",
        "later/.d.jsonl",
        "later/e.txt",
        "later/deeper/f.jsonl",
    ):
        write(tmp_path / name, b"")
    assert names(single) == ["later/a.jsonl"]
    assert names(folder) == ["later/a.jsonl", "later/b.jsonl", "later/c.log"]
    assert names(pattern) == ["later/a.jsonl", "later/b.jsonl"]
    assert names(deep) == ["later/a.jsonl", "later/b.jsonl", "later/deeper/f.jsonl"]
    (tmp_path / "link.jsonl").symlink_to("later/b.jsonl")
    assert names(Places([f"{tmp_path}/link.jsonl", f"{tmp_path}/later/b.jsonl"])) == ["later/b.jsonl"]
