"""A real Slurm's jobs, seen from outside: environments and control groups of its steps while they run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.facts import step_of
from support.slurm import ROOT, Slurm, has_version_1_groups, slurm

from carbon_exporter.jobs.procfs import parse_cgroup, parse_environ
from carbon_exporter.jobs.slurm import slurm_job, slurm_number

BURN = """
import json, os, resource, sys, time
from pathlib import Path
seconds, name, place = float(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
while time.process_time() < seconds:
    pass
use = resource.getrusage(resource.RUSAGE_SELF)
(place / f"{name}.new").write_text(json.dumps([os.getpid(), use.ru_utime + use.ru_stime]))
(place / f"{name}.new").rename(place / f"{name}.said")
while not (place / "go").exists():
    time.sleep(0.02)
"""


@dataclass(frozen=True)
class Step:
    """A process of a job that waits, and what it has used."""

    pid: int
    cpu_seconds: float

    @property
    def environment(self) -> Mapping[str, str]:
        return parse_environ(Path(f"/proc/{self.pid}/environ").read_bytes())

    @property
    def groups(self) -> Mapping[str, str]:
        return parse_cgroup(Path(f"/proc/{self.pid}/cgroup").read_bytes())


@dataclass(frozen=True)
class Bench:
    """A Slurm and a program that burns CPU in its jobs."""

    slurm: Slurm
    place: Path

    def burn(self, seconds: float, name: str) -> str:
        """The command; `$` in the name is the shell's."""
        return f'{sys.executable} -I -S {self.place / "burn.py"} {seconds} "{name}" {self.place}'

    def steps(self, *names: str) -> list[Step]:
        """Those of these names, once all have burnt what they should."""
        files = [self.place / f"{name}.said" for name in names]
        until = time.monotonic() + 60
        while not all(file.exists() for file in files):
            assert time.monotonic() < until, f"{names}: {sorted(self.place.iterdir())}"
            time.sleep(0.05)
        return [Step(*json.loads(file.read_text())) for file in files]

    def let_go(self) -> None:
        (self.place / "go").touch()


@contextmanager
def bench(directory: Path, *, groups: bool = False, boards: int = 0) -> Iterator[Bench]:
    place = directory / "b"
    place.mkdir()
    (place / "burn.py").write_text(BURN)
    with slurm(groups=groups, boards=boards) as running:
        yield Bench(running, place)


def test_tasks_of_an_array_and_steps_of_a_job_say_whose_they_are(tmp_path: Path) -> None:
    with bench(tmp_path) as here:
        array = here.slurm.submit(here.burn(0.3, "task$SLURM_ARRAY_TASK_ID"), "--array=3,5", "--job-name=sweep")
        both = "\n".join(f"srun --overlap -n1 {here.burn(0.2, f'step{number}')} &" for number in (0, 1))
        job = here.slurm.submit(f"{both}\nwait", "--ntasks=2", "--job-name=train", "--account=vision")
        tasks, steps = here.steps("task3", "task5"), here.steps("step0", "step1")

        seen = [slurm_job(task.environment) for task in tasks]
        assert [one and (one.id, one.name, one.partition, one.boards) for one in seen] == [
            (f"{array}_3", "sweep", "short", ()),
            (f"{array}_5", "sweep", "short", ()),
        ]
        assert len({slurm_number(task.environment) for task in tasks}) == 2

        of_steps = {slurm_job(step.environment) for step in steps}
        assert len(of_steps) == 1
        (one,) = of_steps
        assert one is not None
        assert (one.id, one.name, one.account, one.partition) == (job, "train", "vision", "short")
        assert one.user == Path(f"/proc/{steps[0].pid}").owner()
        assert {step.environment["SLURM_STEP_ID"] for step in steps} == {"0", "1"}
        assert all(step_of(path) is None for path in steps[0].groups.values()), "no groups without their plugin"

        here.let_go()
        assert here.slurm.wait(array) == ("COMPLETED", "COMPLETED")
        assert here.slurm.wait(job) == ("COMPLETED",)


def test_a_job_that_is_submitted_from_a_step_does_not_pass_for_its_parent(tmp_path: Path) -> None:
    with bench(tmp_path, boards=2) as here:
        without = f"sbatch --output=/dev/null --wrap '{here.burn(0, 'without')}'"
        other = f"sbatch --output=/dev/null --gres=gpu:1 --wrap '{here.burn(0, 'other')}'"
        (tmp_path / "nest").write_text(f"{without}\n{other}\n{here.burn(0, 'outer')}\n")
        submitted = f"srun -n1 --gres=gpu:1 bash {tmp_path / 'nest'}"
        array = here.slurm.submit(submitted, "--array=7", "--gres=gpu:1", "--job-name=outer")
        inner, with_board, outer = here.steps("without", "other", "outer")

        assert inner.environment["SLURM_ARRAY_JOB_ID"] == array, "else this test shows nothing"
        assert inner.environment["SLURM_STEP_GPUS"] == with_board.environment["SLURM_STEP_GPUS"] == "0"
        found = [slurm_job(step.environment) for step in (inner, with_board, outer)]
        assert [one and (one.id, one.boards) for one in found] == [
            (slurm_number(inner.environment), ()),
            (slurm_number(with_board.environment), ("1",)),
            (f"{array}_7", ("0",)),
        ]
        here.let_go()


@pytest.mark.skipif(not has_version_1_groups(), reason="this machine has no control groups of version 1")
def test_a_step_in_a_group_of_its_own_is_found_by_path_and_counted_by_the_kernel(tmp_path: Path) -> None:
    with bench(tmp_path, groups=True, boards=2) as here:
        both = "\n".join(
            f"srun --overlap -n1 --gres=gpu:1 {here.burn(seconds, f'step{number}')} &"
            for number, seconds in ((0, 1.0), (1, 0.5))
        )
        job = here.slurm.submit(f"{both}\nwait", "--ntasks=2", "--gres=gpu:1", "--job-name=train")
        other = here.slurm.submit(here.burn(0.0, "alone"), "--gres=gpu:1")
        steps, (alone,) = here.steps("step0", "step1"), here.steps("alone")

        for step in steps:
            place = (job, step.environment["SLURM_STEP_ID"])
            assert {step_of(step.groups[controller]) for controller in ("freezer", "cpuacct", "devices")} == {place}
            counted = int((ROOT / "cpuacct" / step.groups["cpuacct"][1:] / "cpuacct.usage").read_text()) / 1e9
            assert counted == pytest.approx(step.cpu_seconds, rel=0.05, abs=0.05)
            assert step_of(step.groups[""]) is None, "version 2 beside version 1 knows nothing of Slurm"
        assert step_of(alone.groups["freezer"]) == (other, "batch")

        for step, board in ((steps[0], "0"), (alone, "1")):
            one = slurm_job(step.environment)
            assert one is not None
            assert one.boards == (board,)
            assert step.environment["CUDA_VISIBLE_DEVICES"] == "0", "inside the fence every job counts from 0"
            listed = (ROOT / "devices" / step.groups["devices"][1:] / "devices.list").read_text()
            assert listed == "a *:* rwm\n", "what is denied is not listed"
        here.let_go()
        assert here.slurm.wait(job) == here.slurm.wait(other) == ("COMPLETED",)
