"""A real Slurm's jobs under a real exporter: their names, their energy, and the boards that they were given.

One package draws 100 W whatever happens, so that a job's joules tell the CPU seconds that it was charged for:
100 W x CPU seconds / CPUs. They burn for long enough that a counter which a busy machine moves late is no matter.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from support.board_shares import Shares, info_of, joules_by_job, until
from support.driven import driven_tree
from support.exporter import Exporter, Series
from support.fakenvml import FakeNvml, environment
from support.in_memory import in_memory
from support.powercap import PowercapTree
from support.slurm import ROOT, Slurm, has_version_1_groups, slurm

WATTS = 100.0
INTERVAL = "100ms"
BURN = """
import json, resource, sys, time
from pathlib import Path
seconds, name, place = float(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
until = time.process_time() + seconds
while time.process_time() < until:
    for _ in range(20000):
        pass
    time.sleep(0.002)
use = resource.getrusage(resource.RUSAGE_SELF)
(place / f"{name}.new").write_text(json.dumps(use.ru_utime + use.ru_stime))
(place / f"{name}.new").rename(place / f"{name}.said")
while len(sys.argv) > 4 and not (place / "go").exists():
    time.sleep(0.2)
"""
"""Burns so many CPU seconds, says what it really used, and waits for a file `go` if it is told to."""


@dataclass(frozen=True)
class Bench:
    """A Slurm, and programs that burn CPU in its jobs."""

    slurm: Slurm
    place: Path

    def burn(self, seconds: float, name: str, *, wait: bool = True) -> str:
        """The command; `$` in the name is the shell's."""
        program = shlex.join([sys.executable, "-I", "-S", str(self.place / "burn.py"), str(seconds)])
        return f'{program} "{name}" {self.place} {"wait" * wait}'

    def used(self, *names: str) -> float:
        """CPU seconds of these by their own rusage, once all have burnt."""
        files = [self.place / f"{name}.said" for name in names]
        until(lambda: all(file.exists() for file in files), f"{names}", 60)
        return float(sum(json.loads(file.read_text()) for file in files))

    def let_go(self) -> None:
        (self.place / "go").touch()


@contextmanager
def bench(directory: Path, *, groups: bool = False, boards: int = 0) -> Iterator[Bench]:
    place = directory / "b"
    place.mkdir()
    (place / "burn.py").write_text(BURN)
    with slurm(groups=groups, boards=boards) as running:
        yield Bench(running, place)


def equip(sysfs: Path, *hierarchies: str) -> None:
    """Make a /sys with one package, and with these of the machine's own hierarchies of control groups."""
    PowercapTree(sysfs).add("intel-rapl:0", "package-0", constraints={"constraint_0_power_limit_uw": 300_000_000})
    (sysfs / "fs/cgroup").mkdir(parents=True)
    for name in hierarchies:
        (sysfs / "fs/cgroup" / name).symlink_to(ROOT / name)


@contextmanager
def watched(
    directory: Path, *flags: str, hierarchies: tuple[str, ...] = (), fake: FakeNvml | None = None
) -> Iterator[Shares]:
    """An exporter of that machine, which sees only these hierarchies."""
    directory.mkdir()
    more = ("--jobs.max=1000", "--series.max=100000", f"--sample.interval={INTERVAL}")
    with in_memory() as sysfs:
        equip(sysfs, *hierarchies)
        places = (f"--path.sysfs={sysfs}", f"--storage.path={directory / 'state'}", "--containers.sockets=")
        with (
            driven_tree(sysfs, f"{WATTS}:{WATTS}:1"),
            Exporter(*more, *places, *flags, environ=environment(fake) if fake else {}) as exporter,
        ):
            shares = Shares(exporter)
            shares.exporter.wait_for_samples(2)
            yield shares


def charged(series: Series, *jobs: str) -> float:
    """CPU seconds that these jobs were charged for."""
    joules = joules_by_job(series, "cpu0")
    return sum(joules.get(job, 0.0) for job in jobs) / WATTS * (os.cpu_count() or 1)


def settled(shares: Shares) -> Series:
    """What was used until now is posted, however late a busy machine lets it take samples."""
    shares.exporter.wait_for_samples(5)
    return shares.watch(1.0)


def of_tools(job: str) -> float:
    """CPU seconds of a job's own script and of `srun` in it, which are the job's, too: all but the steps' programs."""
    mark, seconds = f"SLURM_JOB_ID={job}".encode(), 0.0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            program = (process / "cmdline").read_bytes().split(b"\0")[0]
            if program != os.fsencode(sys.executable) and mark in (process / "environ").read_bytes().split(b"\0"):
                words = (process / "stat").read_text().rpartition(") ")[2].split()
                seconds += (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def are_free(shares: Shares, devices: Sequence[str]) -> bool:
    """Whether these boards are nobody's."""
    before, after = shares.scrape(), shares.watch(0.5)
    return all(Shares.between(before, after, device) == {"_idle_": pytest.approx(1.0)} for device in devices)


def test_an_array_and_steps_without_groups_are_named_by_their_environment(tmp_path: Path) -> None:
    with ExitStack() as stack:
        here = stack.enter_context(bench(tmp_path))
        shares = stack.enter_context(watched(tmp_path / "names"))
        by_number = stack.enter_context(watched(tmp_path / "numbers", "--jobs.naming=slurm-id,environment,unit"))
        array = here.slurm.submit(here.burn(2.2, "task$SLURM_ARRAY_TASK_ID"), "--array=3,5", "--job-name=sweep")
        steps = "\n".join(f"srun --overlap -n1 {here.burn(2.2, f'step{number}')} &" for number in (0, 1))
        job = here.slurm.submit(f"{steps}\nwait", "--ntasks=2", "--job-name=train")
        brief = here.slurm.submit(here.burn(3.5, "brief", wait=False), "--job-name=brief")
        step = here.slurm.submit(f"srun -n1 {here.burn(3.5, 'of-step', wait=False)}", "--job-name=brief-step")
        tasks, both = here.used("task3", "task5"), here.used("step0", "step1") + of_tools(job)
        ended = {"brief": here.used("brief"), "brief-step": here.used("of-step")}
        assert here.slurm.wait(brief) == here.slurm.wait(step) == ("COMPLETED",)

        series, numbered = settled(shares), settled(by_number)
        assert charged(series, "sweep") == pytest.approx(tasks, rel=0.05)
        assert charged(series, "train") == pytest.approx(both, rel=0.05)
        for name, used in ended.items():
            assert charged(series, name) == pytest.approx(used, rel=0.05), f"{name} has ended at once"
        common = {"scheduler": "slurm", "queue": "short", "job_user": Path("/proc/self").owner()}
        assert info_of(series, "carbon_job_info", "sweep") == [common], "two tasks have no number in common"
        assert info_of(series, "carbon_job_info", "train") == [{**common, "job_id": job}]

        for number, id_, task in ((3, f"{array}_3", "task3"), (5, f"{array}_5", "task5")):
            name = f"slurm-{array}_{number}"
            assert info_of(numbered, "carbon_job_info", name) == [{**common, "job_id": id_}]
            assert charged(numbered, name) == pytest.approx(here.used(task), rel=0.05)
        assert charged(numbered, f"slurm-{job}") == pytest.approx(both, rel=0.05)
        here.let_go()
        assert here.slurm.wait(array) == ("COMPLETED", "COMPLETED")
        assert here.slurm.wait(job) == ("COMPLETED",)


@pytest.mark.skipif(not has_version_1_groups(), reason="this machine has no control groups of version 1")
def test_jobs_in_groups_are_counted_once_whichever_hierarchy_the_exporter_reads(tmp_path: Path) -> None:
    with ExitStack() as stack:
        here = stack.enter_context(bench(tmp_path, groups=True, boards=3))
        mapping = tmp_path / "mapping"
        mapping.mkdir()
        fake = FakeNvml(tmp_path / "nvml", boards=4)
        flag = f"--slurm.mapping-directory={mapping}"
        hybrid = stack.enter_context(watched(tmp_path / "hybrid", flag, hierarchies=("unified", "memory"), fake=fake))
        version_1 = stack.enter_context(watched(tmp_path / "v1", flag, hierarchies=("cpuacct", "memory"), fake=fake))
        both = (hybrid, version_1)
        array = here.slurm.submit(
            here.burn(2.6, "task$SLURM_ARRAY_TASK_ID"), "--array=4", "--job-name=sweep", "--gres=gpu:1"
        )
        steps = "\n".join(f"srun --overlap -n1 {here.burn(1.8, f'step{number}')} &" for number in (0, 1))
        job = here.slurm.submit(f"{steps}\nwait", "--ntasks=2", "--job-name=train", "--gres=gpu:1")
        (mapping / "2").write_text(f"{job}\n")
        (mapping / "3").write_text("99999\n")
        used = {"sweep": here.used("task4"), "train": here.used("step0", "step1") + of_tools(job)}
        common = {"scheduler": "slurm", "queue": "short", "job_user": Path("/proc/self").owner()}
        given = {"gpu0": "sweep", "gpu1": "train", "gpu2": "train", "gpu3": "slurm-99999"}
        for shares in both:
            before = settled(shares)
            series = shares.watch(1)
            for name, seconds in used.items():
                assert charged(series, name) == pytest.approx(seconds, rel=0.05), name
            for device, name in given.items():
                assert Shares.between(before, series, device) == {name: pytest.approx(1.0)}, f"{device} has no process"
            assert info_of(series, "carbon_job_info", "sweep") == [{**common, "job_id": f"{array}_4"}]
            assert info_of(series, "carbon_job_info", "train") == [{**common, "job_id": job}]

        here.let_go()
        assert here.slurm.wait(array) == here.slurm.wait(job) == ("COMPLETED",)
        (mapping / "2").write_text("")
        for shares in both:
            until(partial(are_free, shares, ("gpu0", "gpu1", "gpu2")), "that boards are free")
            series = settled(shares)
            for name, seconds in used.items():
                assert charged(series, name) == pytest.approx(seconds, rel=0.05, abs=0.15), f"{name} has ended"
