"""Puts a history into a Prometheus: `promtool tsdb create-blocks-from openmetrics`, a few days at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TextIO

from deploy.demo.cluster import Scenario, Window
from deploy.demo.history import History
from deploy.demo.server import find_program

__all__ = ["Blocks", "write_history"]

BLOCK_SECONDS = 54 * 3600
"""One of the lengths that blocks have, 2 h times a power of 3, and aligned to Unix time as they are: `promtool` reads
its whole input again for each block."""


def write_history(scenario: Scenario, step: float, data: Path, *, job_label: str = "job_name") -> int:
    """Write what was scraped every `step` seconds into `data`, on all cores; returns the number of samples."""
    data.mkdir(parents=True, exist_ok=True)
    first = int(scenario.start // BLOCK_SECONDS)
    last = int((scenario.start + scenario.seconds) // BLOCK_SECONDS)
    write = partial(_write, scenario, step, data, job_label)
    windows = [_window(scenario, number) for number in range(first, last + 1)]
    workers = min(len(windows), os.cpu_count() or 1)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _ignore_interrupts)
    try:
        return sum(pool.map(write, windows))
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C is for the program, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _window(scenario: Scenario, block: int) -> Window:
    begin = block * BLOCK_SECONDS - scenario.start
    return max(0.0, begin), min(begin + BLOCK_SECONDS, scenario.seconds)


def _write(scenario: Scenario, step: float, data: Path, job_label: str, window: Window) -> int:
    if window[0] >= window[1]:
        return 0
    file = data / f"history-{window[0]:.0f}.om"
    count = History(scenario, step, job_label=job_label).write(file, window)
    _import(file, data)
    return count


class Blocks:
    """Collects samples, and puts them into a data directory when the block ends without an error."""

    def __init__(self, data: Path) -> None:
        """Nothing is written yet."""
        self._data = data
        self._open: dict[int, tuple[Path, TextIO]] = {}

    def __enter__(self) -> Blocks:  # noqa: PYI034 - Self is of Python 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for _file, out in self._open.values():
            out.write("# EOF\n")
            out.close()
        files = [file for file, _out in self._open.values()]
        if kind is None:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(partial(_import, data=self._data), files))

    def add(self, series: str, samples: Iterable[tuple[float, str]]) -> None:
        """Samples of a series, as the API of queries gives them, in order of time."""
        for at, value in samples:
            self._of(int(at // BLOCK_SECONDS)).write(f"{series} {value} {at}\n")

    def _of(self, block: int) -> TextIO:
        if block not in self._open:
            file = self._data / f"recorded-{block}.om"
            self._open[block] = file, file.open("w", encoding="utf-8")
        return self._open[block][1]


def _import(file: Path, data: Path) -> None:
    """Move an OpenMetrics file into blocks. Raises `RuntimeError` with what promtool says."""
    command = [find_program("promtool", "prometheus"), "tsdb", "create-blocks-from", "openmetrics"]
    command += [f"--max-block-duration={BLOCK_SECONDS}s", str(file), str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise RuntimeError(f"promtool could not read {file.name}: {done.stdout}{done.stderr}")
    file.unlink()
