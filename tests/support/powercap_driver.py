"""Keeps the counters of a powercap tree moving after a known trace, in real time, until it is stopped.

    python powercap_driver.py SYSFS --watts-trace 50:200:7 [--tick 0.01]

makes every package of the tree draw 50 W and 200 W in turns of 3.5 s. Other zones draw their `SHARE` of it. Energy is a
function of CLOCK_MONOTONIC minus a start that stands in SYSFS/powercap_driver.json, so that any process can compute the
truth, and a driver that is started again goes on where the trace is by then. A reader never sees a half-written file.
SYSFS/powercap_driver.moves has a line for each time that the counters were moved, with the CLOCK_MONOTONIC that they
show since: on a busy machine that is later than it should be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["SHARE", "SquareWave", "Truth", "energy_at", "load_truth", "share_of", "shown_at", "start_driving"]

SHARE = {"dram": 0.125, "core": 0.75, "uncore": 0.0625, "psys": 1.5}
"""What a zone draws for each watt of a package, by its name; a package draws 1. Twice counted energy shows in a sum."""

STATE = "powercap_driver.json"
MOVES = "powercap_driver.moves"
MICRO = 1_000_000


@dataclass(frozen=True)
class SquareWave:
    """Power that is `low` W for half a `period` (s), then `high` W for the other half, and so on."""

    low: float
    high: float
    period: float


def energy_at(wave: SquareWave, t: float) -> float:
    """Joules drawn from 0 to `t` seconds: the integral of the wave."""
    whole, rest = divmod(t, wave.period)
    half = wave.period / 2
    return whole * half * (wave.low + wave.high) + min(rest, half) * wave.low + max(rest - half, 0.0) * wave.high


@dataclass(frozen=True)
class Truth:
    """What a driven tree really drew."""

    wave: SquareWave
    started: float
    """CLOCK_MONOTONIC at which the trace began."""
    offsets: Mapping[str, int]
    """Microjoules that the counters showed then, by zone."""

    def package_joules(self, at: float) -> float:
        """Energy of one package from the start to `at`, on CLOCK_MONOTONIC."""
        return energy_at(self.wave, max(at - self.started, 0.0))

    def counter(self, zone: str, name: str, range_uj: int, at: float) -> int:
        """What the counter of a zone shows at `at`, in microjoules: less than its range."""
        drawn = int(self.package_joules(at) * share_of(name) * MICRO)
        return (self.offsets[zone] + drawn) % range_uj


def share_of(name: str) -> float:
    """The part of a package's power that the zone called `name` draws."""
    return SHARE.get(name, 1.0)


def load_truth(sysfs: Path) -> Truth:
    """The truth of a tree that a driver moves, or moved."""
    state = json.loads((sysfs / STATE).read_text())
    return Truth(SquareWave(**state["wave"]), state["started"], state["offsets"])


def shown_at(sysfs: Path, at: float) -> float:
    """Of which moment, on CLOCK_MONOTONIC, the counters told at `at`."""
    moves = [float(line) for line in (sysfs / MOVES).read_text().splitlines()]
    return moves[max(bisect_right(moves, at) - 1, 0)]


def start_driving(sysfs: Path, wave: SquareWave) -> Truth:
    """Begin the trace now, or take up the one that was begun on this tree before."""
    if not (sysfs / STATE).exists():
        offsets = {zone.name: int((zone / "energy_uj").read_text()) for zone in _zones(sysfs)}
        state = {"wave": asdict(wave), "started": time.monotonic(), "offsets": offsets}
        _replace(sysfs / STATE, json.dumps(state))
    return load_truth(sysfs)


def move(truth: Truth, counters: list[tuple[Path, str, int]], at: float) -> None:
    """Set every counter (directory, name, range) to its truth at `at`."""
    for zone, name, range_uj in counters:
        _replace(zone / "energy_uj", f"{truth.counter(zone.name, name, range_uj, at)}\n")


def main() -> None:
    """Drive until killed, before other programs where that is allowed: hardware is never late."""
    arguments = _arguments()
    with contextlib.suppress(PermissionError):
        os.nice(-15)
    sysfs = Path(arguments.sysfs)
    counters = [
        (zone, (zone / "name").read_text().strip(), int((zone / "max_energy_range_uj").read_text()))
        for zone in _zones(sysfs)
    ]
    truth = start_driving(sysfs, SquareWave(*map(float, arguments.watts_trace.split(":"))))
    with (sysfs / MOVES).open("a", buffering=1) as moves:
        while True:
            now = time.monotonic()
            move(truth, counters, now)
            moves.write(f"{now!r}\n")
            time.sleep(arguments.tick)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sysfs", help="the directory that stands for /sys, with a powercap tree in it")
    parser.add_argument("--watts-trace", metavar="LOW:HIGH:PERIOD", required=True, help="W, W, s: a square wave")
    parser.add_argument("--tick", metavar="SECONDS", type=float, default=0.01, help="time between two writes")
    return parser.parse_args()


def _zones(sysfs: Path) -> list[Path]:
    links = sorted((sysfs / "class" / "powercap").iterdir())
    return [link.resolve(strict=True) for link in links if (link / "energy_uj").exists()]


def _replace(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}.driver")
    beside.write_text(text)
    beside.replace(file)


if __name__ == "__main__":
    main()
