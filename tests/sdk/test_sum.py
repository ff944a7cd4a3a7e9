"""One node, several scripts that track themselves: what they say, with idle and unknown, is what the node used."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from support.driven import driven_tree, two_sockets
from support.exporter import Exporter, Series
from support.fakenvml import FakeNvml, Process, environment
from support.powercap_driver import Truth, share_of
from support.tracked import Report, Tracked, tracked

from carbon_exporter.units import JOULES_PER_KWH

SECONDS = 7.0
DUTIES = {1: (0.8,), 2: (0.9, 0.4), 4: (0.6, 0.4, 0.3, 0.2)}
ZONES = {"cpu0": "package-0", "cpu1": "package-1", "dram0": "dram", "dram1": "dram"}
CPUS = os.cpu_count() or 1
TRIES = 3
"""A busy machine may look at a board's users late: for that while it is `_unattributed_`, and in a span too."""


def slow(count: int) -> ParameterSet:
    """One of the counts that `make soak` runs."""
    return pytest.param(count, marks=pytest.mark.soak)


@dataclass(frozen=True, slots=True)
class Node:
    """What scripts run on: processors of 70 W each, so that CPU time alone decides, and boards of 150 to 300 W."""

    sysfs: Path
    truth: Truth
    boards: FakeNvml

    @property
    def environ(self) -> dict[str, str]:
        """For a script: its meters by itself."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("CARBON_")}
        places = {"CARBON_EXPORTER_PATH_SYSFS": str(self.sysfs), "CARBON_SDK_SOCKET": str(self.sysfs / "none")}
        return {**own, **environment(self.boards), **places, "CARBON_REGION": "FR"}

    def joules(self, device: str, start: float, end: float) -> float:
        """What a device really drew."""
        if device.startswith("gpu"):
            return self.boards.boards[int(device[3:])].true_joules(start, end)
        return (self.truth.package_joules(end) - self.truth.package_joules(start)) * share_of(ZONES[device])


@contextmanager
def node(directory: Path) -> Iterator[Node]:
    sysfs = directory / "sys"
    two_sockets(sysfs, range_uj=2_000_000_000, limit_watts=100)
    boards = FakeNvml(directory / "nvml", boards=4)
    for number, board in enumerate(boards.boards):
        board.constant(150 + 50 * number)
    with driven_tree(sysfs, "70:70:1") as truth:
        yield Node(sysfs, truth, boards)


@contextmanager
def scripts(here: Node, environs: Sequence[dict[str, str]]) -> Iterator[list[Tracked]]:
    """So many at once, each alone on a board, ready to go."""
    with ExitStack() as stack:
        duties = DUTIES[len(environs)]
        ready = [
            stack.enter_context(tracked(environ, duty, SECONDS)) for environ, duty in zip(environs, duties, strict=True)
        ]
        for script, board in zip(ready, here.boards.boards, strict=False):
            board.processes([Process(script.pid, sm=50)])
            stack.callback(board.processes, [])
        time.sleep(5.5)  # the boards' users are looked at every five seconds
        yield ready


def run(ready: Sequence[Tracked]) -> list[Report]:
    """Let them all work; what they say."""
    for script in ready:
        script.go()
    return [script.report() for script in ready]


def assert_each_is_right(here: Node, reports: Sequence[Report]) -> None:
    """Each script's processors by its own CPU time, its board by what that drew, its neighbours' boards not at all."""
    for number, report in enumerate(reports):
        seconds = report.end - report.start
        for cpu in ("cpu0", "cpu1"):
            share = report.cpu_seconds / (CPUS * seconds)
            assert report.joules[cpu] == pytest.approx(share * here.joules(cpu, report.start, report.end), rel=0.05)
        boards = {device: joules for device, joules in report.joules.items() if device.startswith("gpu") and joules}
        assert set(boards) == {f"gpu{number}"}
        assert boards[f"gpu{number}"] == pytest.approx(here.joules(f"gpu{number}", report.start, report.end), rel=0.05)
        assert report.quality == "measured"


BOARDS = tuple(f"gpu{number}" for number in range(4))


def told_part(here: Node, reports: Sequence[Report], devices: Collection[str]) -> float:
    """Of what these devices used from the first script's start to the last one's end: what scripts told."""
    start, end = min(report.start for report in reports), max(report.end for report in reports)
    told = math.fsum(report.joules.get(device, 0.0) for report in reports for device in devices)
    return told / math.fsum(here.joules(device, start, end) for device in devices)


def nobodys_part(here: Node, reports: Sequence[Report]) -> float:
    """Of processors and boards: the time of CPUs that no script used, and the boards that no script was on."""
    start, end = min(report.start for report in reports), max(report.end for report in reports)
    unused = 1 - sum(report.cpu_seconds for report in reports) / ((end - start) * CPUS)
    free = BOARDS[len(reports) :]
    nobodys = unused * (here.joules("cpu0", start, end) + here.joules("cpu1", start, end))
    nobodys += math.fsum(here.joules(board, start, end) for board in free)
    return nobodys / math.fsum(here.joules(device, start, end) for device in ("cpu0", "cpu1", *BOARDS))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("count", [slow(1), 2, slow(4)])
@pytest.mark.usefixtures("boards_turn")
def test_without_an_exporter_the_parts_make_the_whole(in_memory: Path, count: int) -> None:
    with node(in_memory) as here:
        with scripts(here, [{**here.environ, "CARBON_JOB": f"w{number}"} for number in range(count)]) as ready:
            reports = run(ready)
        assert {report.path for report in reports} == {"none"}
        assert_each_is_right(here, reports)
        told = told_part(here, reports, ("cpu0", "cpu1", *BOARDS))
        assert told + nobodys_part(here, reports) == pytest.approx(1.0, abs=0.03)


def joules_of(series: Series, name: str, without: Collection[str] = ()) -> float:
    """The sum of a family, without these jobs."""
    found = ((dict(labels), value) for (family, labels), value in series.items() if family == name)
    return JOULES_PER_KWH * math.fsum(value for labels, value in found if labels.get("job_name") not in without)


def spans_of(series: Series, job: str) -> dict[str, float]:
    """Joules of a job's spans by name."""
    found: dict[str, float] = {}
    for (name, labels), value in series.items():
        of = dict(labels)
        if name == "carbon_span_energy_kwh_total" and of["job_name"] == job:
            found[of["span"]] = found.get(of["span"], 0.0) + value * JOULES_PER_KWH
    return found


@pytest.mark.timeout(400)
@pytest.mark.parametrize("count", [slow(1), slow(2), 4])
@pytest.mark.usefixtures("boards_turn")
def test_with_an_exporter_the_parts_make_the_whole_and_both_agree(tmp_path: Path, in_memory: Path, count: int) -> None:
    with node(in_memory) as here, tempfile.TemporaryDirectory(prefix="sdk") as short:
        socket = f"{short}/sdk.sock"
        flags = ("--sample.interval=1s", "--containers.sockets=", "--jobs.max=1000", "--series.max=100000")
        places = (f"--path.sysfs={here.sysfs}", f"--storage.path={tmp_path / 'state'}", f"--sdk.socket={socket}")
        with Exporter(*flags, *places, environ=environment(here.boards)) as exporter:
            exporter.wait_for_samples(3)
            sums: list[float] = []
            while len(sums) < TRIES and not (sums and abs(sums[-1] - 1.0) <= 0.03):
                names = [f"of{count}-{number}-{len(sums)}" for number in range(count)]
                sums.append(sum_of_parts(here, exporter, socket, names))
            assert sums[-1] == pytest.approx(1.0, abs=0.03), sums


def sum_of_parts(here: Node, exporter: Exporter, socket: str, names: Sequence[str]) -> float:
    """Of all energy: what scripts of these jobs told, and what everybody else has by the exporter's pages."""
    environs = [{**here.environ, "CARBON_SDK_SOCKET": socket, "CARBON_JOB": name} for name in names]
    with scripts(here, environs) as ready:
        for script in ready:
            script.go()
        exporter.wait_for_samples(2)
        before = exporter.series()
        exporter.wait_for_samples(3)
        after = exporter.series()
        reports = dict(zip(names, (script.report() for script in ready), strict=True))
        exporter.wait_for_samples(3)
        last = exporter.series()
    assert {report.path for report in reports.values()} == {"exporter"}
    assert_each_is_right(here, tuple(reports.values()))
    assert_published(last, reports)
    return told_part(here, tuple(reports.values()), (*ZONES, *BOARDS)) + others_part(before, after, names)


def assert_published(page: Series, reports: Mapping[str, Report]) -> None:
    """The exporter's page says of each span what its script says."""
    published = {name: spans_of(page, name)["work"] for name in reports}
    assert published == pytest.approx({name: report.whole for name, report in reports.items()}, rel=0.01)


def others_part(before: Series, after: Series, names: Collection[str]) -> float:
    """Of the devices' energy between two pages: what idle, unknown owners and all other jobs have of it."""
    of_devices, of_jobs = "carbon_device_energy_kwh_total", "carbon_job_energy_kwh_total"
    devices = joules_of(after, of_devices) - joules_of(before, of_devices)
    return (joules_of(after, of_jobs, names) - joules_of(before, of_jobs, names)) / devices
