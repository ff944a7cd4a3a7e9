"""The keeper of the state file: opens it at the start, writes it each tick, and says what is wrong with it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from carbon_exporter.energy.store import Store, default_directory
from carbon_exporter.errors import StoreError
from carbon_exporter.service.state import State, decode
from carbon_exporter.snapshot import StoreHealth

__all__ = ["Keeper", "open_keeper"]

_log = logging.getLogger(__name__)
_LOCK_PATIENCE_SECONDS = 1.0
"""How long a predecessor that is just stopping is waited for."""


class Keeper:
    """Durable totals with the errors turned into health: whatever happens to the file, counting goes on."""

    def __init__(self, directory: Path | None, wall: Callable[[], float] = time.time) -> None:
        """Without a directory totals live in memory only; `wall` gives Unix seconds."""
        self._wall = wall
        self._store = Store(directory) if directory else None
        path = str(directory) if directory else ""
        self.health = StoreHealth(path, "ok" if directory else "off")

    def load(self) -> State | None:
        """The last state, None if there is none or it cannot be believed (then the log and `health` say why)."""
        if self._store is None:
            return None
        try:
            body = self._open(self._store)
            if self._store.was_torn:
                _log.warning(
                    "totals: %s holds a save that was cut short; going on from the other one", self._store.file
                )
            return None if body is None else self._decode(self._store, body)
        except StoreError as error:
            _log.error("totals: %s", error)
            is_open = self._store.is_open
            self.health = StoreHealth(
                self.health.path, "ok" if is_open else "failing", None, error.reason, error.remedy
            )
            return None

    def save(self, body: bytes) -> None:
        """Write and sync. A failure is logged when it begins and when it ends."""
        if self._store is None or not self._store.is_open:
            return
        path, was_failing = self.health.path, self.health.state == "failing"
        try:
            self._store.save(body)
        except StoreError as error:
            if not was_failing:
                _log.error("totals: %s; counting goes on in memory", error)
            self.health = StoreHealth(path, "failing", self.health.last_write, error.reason, error.remedy)
            return
        if was_failing:
            _log.info("totals: written to %s again", path)
        kept = ("", "") if was_failing else (self.health.reason, self.health.remedy)
        self.health = StoreHealth(path, "ok", self._wall(), *kept)

    def close(self) -> None:
        """Give the lock back."""
        if self._store is not None:
            self._store.close()

    @staticmethod
    def _open(store: Store) -> bytes | None:
        until = time.monotonic() + _LOCK_PATIENCE_SECONDS
        while True:
            try:
                return store.open()
            except StoreError as error:
                if not isinstance(error.__context__, BlockingIOError) or time.monotonic() >= until:
                    raise
            time.sleep(0.05)

    @staticmethod
    def _decode(store: Store, body: bytes) -> State:
        try:
            return decode(body)
        except ValueError as error:
            raise store.set_aside(str(error)) from error


def open_keeper(setting: Path | str | None, environ: Mapping[str, str], wall: Callable[[], float]) -> Keeper:
    """The keeper for the setting storage.path: a directory, None for memory only, or `auto` to look for a place."""
    directory = default_directory(environ) if setting == "auto" else None if setting is None else Path(setting)
    keeper = Keeper(directory, wall)
    if directory is None and setting is not None:
        reason = (
            f"uid {os.geteuid()} has no place to keep totals: /var/lib/carbon-exporter is not writable, and none of "
        )
        reason += "STATE_DIRECTORY, XDG_STATE_HOME and HOME is set; they are counted in memory only"
        remedy = "name a writable place with --storage.path=DIR"
        _log.error("totals: %s; %s", reason, remedy)
        keeper.health = StoreHealth("", "failing", None, reason, remedy)
    return keeper
