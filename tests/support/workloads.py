"""Real programs that burn CPU or hold memory on command, and a /proc of text files for those that cannot be staged."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PRELUDE", "TICKS", "FakeProc", "Program", "run"]

TICKS = os.sysconf("SC_CLK_TCK")

PRELUDE = """
import os, signal, sys, time
def burn(seconds):
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
def say(word):
    print(word, flush=True)
def wait():
    sys.stdin.readline()
"""


class Program:
    """A running program, in step with its test: it says lines, and goes on when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Made by `run`."""
        self._process = process
        self.pid = process.pid

    def says(self) -> str:
        """The next line that it says."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def has_spoken(self, patience: float) -> bool:
        """Whether it says something within `patience` seconds."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], patience)[0])

    def go_on(self) -> None:
        """Let it go on from where it waits."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


@contextmanager
def run(code: str, environment: Mapping[str, str] | None = None) -> Iterator[Program]:
    """A Python program, with `burn`, `say` and `wait`; it and what it started are killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PRELUDE + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ.get("PATH", os.defpath), **(environment or {})},
        start_new_session=True,
    )
    try:
        yield Program(process)
    finally:
        kill_session(process.pid)
        process.communicate()


def kill_session(leader: int) -> None:
    """End every process of one session, by its id."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            session = int(stat.read_text(errors="replace").rpartition(") ")[2].split()[3])
            if session == leader:
                os.kill(int(stat.parent.name), 9)
        except (OSError, ValueError, IndexError):
            continue


@dataclass(frozen=True)
class FakeProc:
    """A /proc of text files, in a directory."""

    root: Path

    def set(
        self,
        pid: int,
        *,
        parent: int = 1,
        own: int = 0,
        waited: int = 0,
        started: int = 1,
        comm: str = "work",
        stack: int = 7,
        pages: int = 100,
    ) -> None:
        """Write a process's stat, as proc(5) lays it out."""
        head = f"{pid} ({comm}) S {parent} 1 1 0 -1 4194560 0 0 0 0 {own} 0 {waited} 0 20 0 1 0 {started} 1000 {pages}"
        directory = self.root / str(pid)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "stat").write_text(f"{head} 18446744073709551615 1 2 {stack} {'0 ' * 24}\n")

    def write(self, pid: int, file: str, text: str) -> None:
        """Any other file of a process."""
        (self.root / str(pid) / file).write_text(text)

    def end(self, *pids: int) -> None:
        """Processes that are gone."""
        for pid in pids:
            for file in (self.root / str(pid)).iterdir():
                file.unlink()
            (self.root / str(pid)).rmdir()

    def machine(self, *, busy: int = 0, cpus: int = 2, total_kib: int = 1_000_000, free_kib: int = 400_000) -> None:
        """The kernel's totals: busy ticks of all CPUs, and memory."""
        self.root.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"cpu{number} 0 0 0 0\n" for number in range(cpus))
        (self.root / "stat").write_text(f"cpu {busy} 0 0 0 0 0 0 0 0 0\n{lines}")
        (self.root / "meminfo").write_text(f"MemTotal: {total_kib} kB\nMemAvailable: {free_kib} kB\n")
