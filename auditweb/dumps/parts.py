"""Which stream a followed file belongs to: how streams of a path are named, and by what a file is known again.

A path has one stream per file that had its name: ``path``, ``path#2``, … (its parts). A file is known by its bytes: it
begins with what is stored. Its inode, kept in the checkpoint of the dump, only says where to look first.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from django.db import transaction
from django.db.models import Q

from auditweb.dumps import store, streams
from auditweb.dumps.models import Dump
from auditweb.dumps.tailing import Identity, Tail
from auditweb.teams.models import Team

CHECK_BYTES = store.CHUNK_BYTES  # of the beginning and of the end of a stream, compared with the file
MAX_STEM = streams.NAME_LENGTH - 30  # leaves room for the number of a part and where it begins


class Part(NamedTuple):
    """One of the streams of a path: the name of the first one, its number, the byte of its file where it begins."""

    stem: str
    number: int
    base: int
    dump: Dump

    @property
    def end(self) -> int:
        """The byte of the file behind the last one that is stored."""
        return self.base + self.dump.size

    @property
    def closed(self) -> bool:
        """Whether its last line was taken without a newline: what comes behind it is another part."""
        return self.dump.newlines < self.dump.lines

    @property
    def identity(self) -> Identity | None:
        """Which file it was, when it was read last."""
        known = self.dump.checkpoint.get("file")
        return (known[0], known[1]) if known else None

    def begins(self, tail: Tail) -> bool:
        """Whether it is how the file behind *tail* begins, from its base on."""
        if tail.stat().st_size < self.end:
            return False
        for offset in {0, max(0, self.dump.size - CHECK_BYTES)}:
            stored = store.read(self.dump, offset, CHECK_BYTES)
            if tail.bytes_at(self.base + offset, len(stored)) != stored:
                return False
        return True


def stem_of(path: str) -> str:
    """The name of the first stream of *path*: the path itself, unless that is too long or has odd characters."""
    if path.isprintable() and len(path) <= MAX_STEM and "#" not in path:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    shown = "".join(c if c.isprintable() and c != "#" else "\N{REPLACEMENT CHARACTER}" for c in path)
    return f"{shown[-(MAX_STEM - 20) :]}~{digest}"


def name_of(stem: str, number: int, base: int) -> str:
    """``path``, ``path#2``, and ``path#3+1024`` for a part that begins with byte 1024 of its file."""
    name = stem if number == 1 else f"{stem}#{number}"
    return f"{name}+{base}" if base else name


def part_of(dump: Dump) -> Part:
    """The part that a dump is, by the name of its stream."""
    found = re.fullmatch(r"([^#]*)(?:#(\d+)(?:\+(\d+))?)?", dump.stream)
    stem, number, base = found.groups() if found else (dump.stream, None, None)
    return Part(stem, int(number or 1), int(base or 0), dump)


def of_path(team: Team, stem: str) -> list[Part]:
    """The parts of a path of which anything is stored, the newest one last."""
    dumps = Dump.objects.filter(Q(stream=stem) | Q(stream__startswith=stem + "#"), team=team, lines__gt=0)
    found = [part for part in map(part_of, dumps) if part.stem == stem]
    return sorted(found, key=lambda part: part.number)


def that_begins(tail: Tail, known: list[Part]) -> Part | None:
    """The one of *known* that the file behind *tail* was read into."""
    return next((part for part in reversed(known) if part.identity == tail.identity and part.begins(tail)), None)


def of_stream(team: Team, name: str) -> Part | None:
    """The part whose stream has this name, if anything is stored of it."""
    dump = streams.find(team, name)
    return part_of(dump) if dump is not None and dump.lines else None


def remember(dump: Dump, identity: Identity) -> Dump:
    """*dump* as it is now; keeps which file it is."""
    if dump.checkpoint.get("file") == list(identity):
        return dump
    with transaction.atomic():
        dump = store.present(dump, lock=True)
        dump.checkpoint["file"] = list(identity)
        dump.save(update_fields=["checkpoint"])
    return dump


def remembered(team: Team) -> dict[Identity, str]:
    """Which file was read into which stream."""
    dumps = Dump.objects.filter(team=team, checkpoint__file__isnull=False).exclude(stream="")
    rows = dumps.order_by("pk").values_list("checkpoint__file", "stream")
    return {(device, inode): name for (device, inode), name in rows}


class Sibling(NamedTuple):
    """A file beside another one; ``changed`` in ns."""

    path: str
    identity: Identity
    changed: int


def siblings(path: str) -> list[Sibling]:
    """The other files in the directory of *path*, the one that changed first in front."""
    return sorted(_siblings(path), key=lambda one: one.changed)


def _siblings(path: str) -> Iterator[Sibling]:
    try:
        with os.scandir(os.path.dirname(path)) as entries:
            for entry in entries:
                if entry.path != path and entry.is_file(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    yield Sibling(entry.path, (found.st_dev, found.st_ino), found.st_mtime_ns)
    except OSError:  # the directory, or a file in it, is gone
        return


def is_rotated(name: str, path: str) -> bool:
    """Whether *name* is what *path* may be called after a rotation: ``a.log.1``, ``a.log-20260401``, ``a.1.log``."""
    stem, suffix = os.path.splitext(path)
    turn = r"[.-](?:\d[\dT._:-]*|old|bak|prev)"
    behind, within = re.escape(path) + turn, re.escape(stem) + turn + re.escape(suffix)
    return re.fullmatch(f"{behind}|{within}", name) is not None
