"""Pools of scripts that measure themselves, each over a board of its own, and all over one moving processor counter."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from support import accuracy_driver, accuracy_script, powercap_driver
from support.accuracy_script import Numbers, Told
from support.fakenvml import Board, FakeNvml, environment
from support.powercap import PowercapTree
from support.powercap_driver import Truth, load_truth

__all__ = ["Crew", "Measured", "Verdict", "judge", "measured"]

LOW, HIGH, PERIOD = 60, 300, 1.9
"""Watts, watts and seconds of the load."""
RENEWAL, STEPS_APART = 0.1, 0.05
"""Seconds: of a board's counter, and between the places that the load's two steps have within that (0.95 s apart)."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Scripts of one kind."""

    length: float
    """Seconds of a span."""
    spans: int
    """Of each script."""
    scripts: int
    duty: float = 0.0
    """The part of a processor that each uses; without, they use a board."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One span: joules of the truth, at the exit and when settled, and how far off the two claimed to be."""

    truth: float
    left: float
    settled: float
    left_bound: float
    settled_bound: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Errors in percent of the truth, coverage in percent of spans, widths as multiples of the error of 95 of 100."""

    spans: int
    left_half: float
    left_most: float
    settled_most: float
    left_covered: float
    settled_covered: float
    left_width: float
    settled_width: float

    def __str__(self) -> str:
        return (
            f"{self.spans:4} spans, at exit {self.left_half:5.2f} % and {self.left_most:5.2f} %, "
            f"covered {self.left_covered:5.1f} %, width {self.left_width:4.2f}; "
            f"settled {self.settled_most:5.2f} %, covered {self.settled_covered:5.1f} %, "
            f"width {self.settled_width:4.2f}"
        )


def judge(spans: Sequence[Measured]) -> Verdict:
    """All the figures of some spans."""
    left = sorted(100 * abs(one.left - one.truth) / one.truth for one in spans)
    settled = sorted(100 * abs(one.settled - one.truth) / one.truth for one in spans)
    left_wide = sorted(100 * one.left_bound / one.truth for one in spans)
    settled_wide = sorted(100 * one.settled_bound / one.truth for one in spans)
    return Verdict(
        len(spans),
        _percentile(left, 50),
        _percentile(left, 95),
        _percentile(settled, 95),
        100 * sum(abs(one.left - one.truth) <= one.left_bound for one in spans) / len(spans),
        100 * sum(abs(one.settled - one.truth) <= one.settled_bound for one in spans) / len(spans),
        _percentile(left_wide, 50) / _percentile(left, 95),
        _percentile(settled_wide, 50) / _percentile(settled, 95),
    )


def measured(folder: Path, crews: Iterable[Crew], seed: int) -> dict[Crew, list[Measured]]:
    """Run all scripts of all crews at once, with their meters in `folder`; what each crew measured."""
    chance = random.Random(seed)  # noqa: S311 - phases, not secrets; moments are the machine's own
    with _processor(folder / "sys") as truth, ExitStack() as running:
        scripts = [
            (crew, running.enter_context(_script(folder, crew, (number + chance.random()) / crew.scripts, chance)))
            for crew in crews
            for number in range(crew.scripts)
        ]
        found: dict[Crew, list[Measured]] = {}
        for crew, script in scripts:
            assert script.process.wait() == 0
            told = [_told(line) for line in script.said.read_text().splitlines()]
            found.setdefault(crew, []).extend(_compared(one, script.board, crew, truth) for one in told)
    return found


class _Script(NamedTuple):
    """One that runs."""

    board: Board
    process: subprocess.Popen[bytes]
    said: Path


@contextmanager
def _script(folder: Path, crew: Crew, place: float, chance: random.Random) -> Iterator[_Script]:
    """One script and its board, whose steps stand at `place` (0 to 1) of all the places between two renewals."""
    seed = chance.getrandbits(32)
    fake = FakeNvml(folder / f"nvml-{seed}", boards=1)
    (board,) = fake.boards
    steps_at = time.monotonic()
    board.constant(LOW) if crew.duty else board.square(LOW, HIGH, PERIOD)
    board.raw.refresh_phase_ms = round(1e3 * (steps_at - place * STEPS_APART)) % round(1e3 * RENEWAL)
    command = [sys.executable, accuracy_script.__file__, f"--length={crew.length}", f"--spans={crew.spans}"]
    own = {key: value for key, value in os.environ.items() if not key.startswith(("CARBON_", "OTEL_"))}
    places = {"CARBON_EXPORTER_PATH_SYSFS": str(folder / "sys"), "CARBON_SDK_SOCKET": str(folder / "nobody")}
    boards = {"CUDA_VISIBLE_DEVICES": "" if crew.duty else "0"}
    environ = {**own, **environment(fake), **places, **boards}
    said = folder / f"said-{seed}"
    with (
        said.open("wb") as file,
        subprocess.Popen([*command, f"--seed={seed}", f"--duty={crew.duty}"], env=environ, stdout=file) as process,
    ):
        try:
            yield _Script(board, process, said)
        finally:
            process.kill()


@contextmanager
def _processor(sysfs: Path) -> Iterator[Truth]:
    """A package whose counter follows the same load."""
    PowercapTree(sysfs).add("intel-rapl:0", "package-0")
    command = [sys.executable, accuracy_driver.__file__, str(sysfs), f"--watts-trace={LOW}:{HIGH}:{PERIOD}"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, env=environ) as driver:
        try:
            until = time.monotonic() + 10
            while not (sysfs / powercap_driver.STATE).exists():
                assert driver.poll() is None, "the driver has ended"
                assert time.monotonic() < until
                time.sleep(0.01)
            yield load_truth(sysfs)
        finally:
            driver.terminate()


def _told(line: str) -> Told:
    raw = json.loads(line)
    return Told(raw["start"], raw["end"], raw["steps"], Numbers(**raw["left"]), Numbers(**raw["settled"]))


def _compared(told: Told, board: Board, crew: Crew, processor: Truth) -> Measured:
    """A span beside its truth. The uncertainty is of all devices: those not judged here add next to nothing."""
    start, end = (sum(edge) / 2 for edge in (told.start, told.end))
    if crew.duty:
        device, truth = "cpu0", _own_joules(told.steps, start, end, processor)
    else:
        device, truth = "gpu0", board.true_joules(start, end)
    left, settled = told.left, told.settled
    return Measured(truth, left.joules[device], settled.joules[device], left.uncertainty, settled.uncertainty)


def _own_joules(steps: Sequence[tuple[float, float]], start: float, end: float, processor: Truth) -> float:
    """The processor's energy by this process's part of the time of all CPUs, from one of its notes to the next."""
    cpus = os.cpu_count() or 1
    total = 0.0
    for (before, cpu_before), (after, cpu_after) in pairwise(steps):
        begins, ends = max(start, before), min(end, after)
        if ends > begins:
            joules = processor.package_joules(ends) - processor.package_joules(begins)
            total += joules * (cpu_after - cpu_before) / (cpus * (after - before))
    return total


def _percentile(ordered: Sequence[float], percent: float) -> float:
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
