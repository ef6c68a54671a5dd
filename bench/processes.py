"""Processes of a measurement: children that are spoken to in lines of JSON, and what a process costs."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent


class Child:
    """A program of this directory that answers JSON lines; it is killed at the end of the block."""

    def __init__(self, program: str, *words: object, env: Mapping[str, str] | None = None):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / program), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=HERE.parent,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, said: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(said) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"{self.process.args} ended"
        return json.loads(line)

    def ask(self, said: Any) -> Any:
        self.say(said)
        return self.hear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()


def cpu_seconds(pid: int) -> float:
    """What all threads of *pid* have spent on a processor, to 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pids: list[int]) -> dict[str, float]:
    """MiB resident in *pids*, and their proportional share (pages that they have in common count once)."""
    rss = pss = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            rss += int(line.split()[1]) if line.startswith("Rss:") else 0
            pss += int(line.split()[1]) if line.startswith("Pss:") else 0
    return {"rss": rss / 1024, "pss": pss / 1024}


def family(pid: int) -> list[int]:
    """*pid* and all processes below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *itertools.chain.from_iterable(family(int(child)) for child in children)]


def handles(pid: int) -> dict[str, int]:
    """How many files *pid* holds open, and how many of them are sockets."""
    links = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            links.append(os.readlink(entry.path))
        except OSError:  # closed meanwhile
            continue
    return {"files": len(links), "sockets": sum(link.startswith("socket:") for link in links)}
