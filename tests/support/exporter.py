"""A real exporter process, started as a user starts it and spoken to over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from carbon_exporter.energy.slots import newest

__all__ = ["Exporter", "Series", "parse", "state_of"]

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
_LISTENING = re.compile(r"listening on (?:\[[^]]*\]|[^:\s]*):(\d+)")


class Exporter:
    """`carbon-exporter serve` with these flags on a free port; ended, by force if need be, when the block ends."""

    def __init__(self, *flags: str, environ: Mapping[str, str] | None = None, prefix: tuple[str, ...] = ()) -> None:
        listen = "--web.listen-address=127.0.0.1:0"
        # Of two that run at once only one can have the machine's socket.
        socket = () if any(flag.startswith("--sdk.socket") for flag in flags) else ("--sdk.socket=",)
        command = [*prefix, sys.executable, "-m", "carbon_exporter", "serve", listen, *socket, *flags]
        env = {key: value for key, value in os.environ.items() if not key.startswith(("CARBON_", "STATE_DIRECTORY"))}
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**env, **(environ or {})}
        )
        self.log: list[str] = []
        self.out: list[str] = []
        self._port: int | None = None
        self._ready = threading.Event()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stderr, self.log), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Exporter:  # noqa: PYI034 - Self is of Python 3.11
        if not self._ready.wait(20) or self._port is None:
            self.kill()
            raise AssertionError(f"the exporter did not start:\n{self.text}")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()
        else:
            self._close()

    @property
    def port(self) -> int:
        assert self._port is not None
        return self._port

    @property
    def text(self) -> str:
        """All that it has printed and logged."""
        return "".join([*self.out, *self.log])

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=dict(headers or {}))
        with urllib.request.urlopen(request, timeout=5) as answer:
            body: bytes = answer.read()
        return body

    def series(self) -> Series:
        return parse(self.get("/metrics").decode())

    def status(self) -> Any:
        return json.loads(self.get("/api/v1/status"))

    def wait_for_log(self, text: str, seconds: float = 10) -> str:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in tuple(self.log):
                if text in line:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"{text!r} is not in the log:\n{self.text}")

    def wait_for_samples(self, count: int, seconds: float = 30) -> None:
        """Until `count` more samples were taken."""
        wanted = self.status()["samples"] + count
        until = time.monotonic() + seconds
        while self.status()["samples"] < wanted:
            assert time.monotonic() < until, self.text
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit code."""
        self.process.send_signal(number)
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._close()
        return code

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait(10)
        self._close()

    def _close(self) -> None:
        for reader in self._readers:
            reader.join(5)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def _read(self, pipe: Any, lines: list[str]) -> None:
        for line in pipe:
            lines.append(line)
            found = _LISTENING.search(line)
            if found and pipe is self.process.stderr:
                self._port = int(found[1])
                self._ready.set()
        if pipe is self.process.stderr:
            self._ready.set()


def parse(page: str) -> Series:
    """Every sample of a page in the text format, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def state_of(directory: Path) -> Any:
    """The body of a state file."""
    return json.loads(newest((directory / "totals.json").read_bytes()).body)
