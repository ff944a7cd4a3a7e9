"""The journal of runs: what a script without an exporter has used, kept for the next one if nobody else got it.

A file a process in `$XDG_STATE_HOME/carbon-exporter/runs`, replaced as a whole once a second while a run is open: then
`kill -9` loses little. A Pushgateway needs none, for it keeps what was pushed. The next script of the same user, host
and rank that has a way out takes up what dead processes have left, publishes it, and removes it when it ends. A run
that goes on under its name goes on in numbers.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from carbon_exporter.carbon.runs import RunFacts, RunKey, RunTotal
from carbon_exporter.carbon.spans import SpanAccount
from carbon_exporter.jobs.base import Job
from carbon_exporter.sdk.base import Identity, Outlet
from carbon_exporter.sdk.run_record import MOST_KEPT
from carbon_exporter.sdk.trouble import trouble
from carbon_exporter.units import Grams, Joules

__all__ = ["RunJournal", "journal_directory"]

WRITE_SECONDS = 1.0
MOST_FILES = 64
"""More than that are not kept: the oldest go."""
MOST_TAKEN = 8
"""By one script, the oldest first: the next one takes more."""
LONGEST_SECONDS = 30 * 86400.0
OTHER_HOST_SECONDS = 86400.0
"""A file of another machine, or container, is left alone for so long: its process may live."""
_UNTAKEN = frozenset({"none", "page"})
"""Ways by which nobody may have got the last numbers though the script ended well."""


class _Row(msgspec.Struct, frozen=True, array_like=True):
    job: str
    namespace: str
    run: str
    rank: str
    joules: float
    grams: float
    facts: RunFacts
    at: float = 0.0
    """Unix seconds at which it was seen last."""


class _Entry(msgspec.Struct, frozen=True):
    host: str
    pid: int
    rank: str
    rows: list[_Row]


def journal_directory(environ: Mapping[str, str]) -> Path | None:
    """Where journals are kept; None without a home."""
    state, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    base = Path(state) if os.path.isabs(state) else Path(home) / ".local/state" if os.path.isabs(home) else None  # noqa: PTH117
    return base / "carbon-exporter/runs" if base else None


class RunJournal:
    """An outlet around another, or around none. For the sampler's thread."""

    def __init__(self, inner: Outlet | None, directory: Path) -> None:
        """Nothing is read or written before `start`."""
        self._inner, self._directory = inner, directory
        self.name = inner.name if inner else "none"
        self._path = directory / f"{secrets.token_hex(8)}.json"
        self._taken: list[Path] = []
        self._own: Callable[[], Mapping[RunKey, RunTotal]] = dict
        self._others: Callable[[], Mapping[RunKey, RunTotal]] = dict
        self._seen: Mapping[RunKey, RunTotal] = {}
        """All that the account has listed: its oldest leave it."""
        self._past: Mapping[RunKey, RunTotal] = {}
        """Of dead processes."""
        self._past_at: dict[RunKey, float] = {}
        self._rank = ""
        self._due = 0.0
        self._written: list[_Row] = []

    def start(self, account: SpanAccount, identity: Identity) -> None:
        """From now on keep this account's runs; those of dead processes become its own, if there is a way out."""
        self._own, self._others, self._rank = account.runs, account.other_runs, identity.rank
        if self._inner is not None:
            for row, at in self._take_up():
                key = RunKey(Job(row.job, row.namespace), row.run, row.rank)
                total = RunTotal(Joules(row.joules), Grams(row.grams), facts=row.facts)
                self._past = _together(self._past, {key: total})
                self._past_at[key] = max(at, self._past_at.get(key, 0.0))
            account.runs = lambda: _together(self._past, self._own())
            self._inner.start(account, identity)

    def tell(self) -> None:
        """The account has changed."""
        if self._inner is not None:
            self._inner.tell()
        self._see()
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + WRITE_SECONDS
            self._write(self._rows(self._seen))

    def close(self, patience: float) -> None:
        """The process ends: what the way out has taken is not kept any more; what may have been missed goes on."""
        self._see()
        self._write(self._rows(self._seen))
        if self._inner is not None:
            self._inner.close(patience)
        if self.name not in _UNTAKEN:
            self._path.unlink(missing_ok=True)
        elif self._taken and not self._write(self._rows(_together(self._past, self._seen))):
            return
        for path in self._taken:
            path.unlink(missing_ok=True)

    def forget(self) -> None:
        """In a forked child: it is the parent's."""
        forget = getattr(self._inner, "forget", None)
        if forget is not None:
            forget()

    def _see(self) -> None:
        self._seen = dict(list({**self._seen, **self._others(), **self._own()}.items())[-MOST_KEPT:])

    def _rows(self, totals: Mapping[RunKey, RunTotal]) -> list[_Row]:
        """The newest ones; those of dead processes as old as they are."""
        now, found = time.time(), []
        for key, one in list(totals.items())[-MOST_KEPT:]:
            at = now if key in self._seen else self._past_at[key]
            found.append(_Row(*key.job, key.run, key.rank, one.joules, one.grams, one.facts, at))
        return found

    def _write(self, rows: list[_Row]) -> bool:
        """Replace the file, if anything has changed; whether it holds these rows now."""
        told = [msgspec.structs.replace(row, at=0.0) for row in rows]
        if told == self._written:
            return True
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(_Entry(socket.gethostname(), os.getpid(), self._rank, rows)))
            new.replace(self._path)
        except OSError as error:
            trouble("keeping a journal of runs", error, f"make {self._directory} writable, or run an exporter")
            return False
        self._written = told
        return True

    def _take_up(self) -> Iterator[tuple[_Row, float]]:
        """What dead processes have left, with its time; each file renamed so that no other script takes it, too."""
        for path in _bounded(self._directory):
            if len(self._taken) >= MOST_TAKEN:
                return
            with contextlib.suppress(OSError, ValueError):
                entry, at = msgspec.json.decode(path.read_bytes(), type=_Entry), path.stat().st_mtime
                if entry.rank != self._rank or not _is_over(entry, path):
                    continue
                mine = path.with_name(f"{path.name.partition('.')[0]}.{os.getpid()}.json")
                path.rename(mine)
                rows = [msgspec.structs.replace(row, at=row.at or at) for row in entry.rows]
                mine.write_bytes(msgspec.json.encode(msgspec.structs.replace(entry, pid=os.getpid(), rows=rows)))
                self._taken.append(mine)
                yield from ((row, row.at) for row in rows if row.at > time.time() - LONGEST_SECONDS)


def _bounded(directory: Path) -> list[Path]:
    """The files that there are, the newest last; what is too old or too much is removed."""
    try:
        files = sorted(directory.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in files:
            if len(files) - files.index(path) > MOST_FILES or time.time() - path.stat().st_mtime > LONGEST_SECONDS:
                path.unlink(missing_ok=True)
    except OSError:
        return []
    return [path for path in files if path.exists()]


def _is_over(entry: _Entry, path: Path) -> bool:
    """Whether its process can tell nothing any more."""
    if entry.host != socket.gethostname() or os.name == "nt":  # where signal 0 would end it
        return time.time() - path.stat().st_mtime > OTHER_HOST_SECONDS
    try:
        os.kill(entry.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # another user's
    return False


def _together(past: Mapping[RunKey, RunTotal], own: Mapping[RunKey, RunTotal]) -> Mapping[RunKey, RunTotal]:
    """Those of before, and a run that goes on on top of what it had."""
    found = {**{key: total for key, total in past.items() if key not in own}, **own}
    for key in past.keys() & own.keys():
        joules, grams = past[key].joules + own[key].joules, past[key].grams + own[key].grams
        ahead = (own[key].remaining_joules, own[key].remaining_grams)
        found[key] = RunTotal(Joules(joules), Grams(grams), *ahead, own[key].facts)
    return found
