"""A real Slurm on this machine: munge, a controller and one node, with all that they write in one directory."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.tools import need
from support.turns import slurms_turn

__all__ = ["Slurm", "has_version_1_groups", "slurm"]

CONTROLLERS = ("freezer", "cpuacct", "memory", "cpuset", "devices")
"""Of cgroup version 1, in which Slurm makes groups here."""
ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Slurm:
    """One that runs."""

    directory: Path
    node: str
    environment: Mapping[str, str] = field(repr=False)
    """For its commands."""

    def submit(self, script: str, *options: str) -> str:
        """Hand in a job; its number, of an array the array's. Its output is in `output(number)`."""
        number = len(list(self.directory.glob("job-*.sh")))
        file = self.directory / f"job-{number}.sh"
        file.write_text(f"#!/bin/bash\n{script}\n")
        place = (f"--output={self.directory}/out-%j", f"--chdir={self.directory}")
        return self.command("sbatch", "--parsable", *place, *options, str(file)).strip()

    def wait(self, job: str, patience: float = 60.0) -> tuple[str, ...]:
        """Until a job has ended, all tasks if it is an array: their states, as `COMPLETED`."""
        _wait_for(lambda: not self.command("squeue", "--noheader", f"--jobs={job}"), patience, f"job {job} runs on")
        words = self.command("scontrol", "--oneliner", "show", "job", job).split()
        return tuple(word.partition("=")[2] for word in words if word.startswith("JobState="))

    def cancel(self, *jobs: str) -> None:
        self.command("scancel", *jobs)

    def output(self, job: str) -> str:
        """What a job has said so far; of an array's task by its own number."""
        file = self.directory / f"out-{job}"
        return file.read_text() if file.exists() else ""

    def command(self, *words: str) -> str:
        """Run one of Slurm's commands; what it says."""
        done = subprocess.run(
            words, env=dict(self.environment), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 or "Invalid job id" in done.stderr, f"{words}: {done.stderr}"
        return done.stdout


@contextmanager
def slurm(*, groups: bool = False, boards: int = 0) -> Iterator[Slurm]:
    """A Slurm that is ready for jobs, within seconds; gone with all its jobs after the block.

    Args:
        groups: put jobs into control groups of version 1 (needs root and `has_version_1_groups`) and fence their
            devices in; else their processes are told by their parents.
        boards: make as many devices of the kind `gpu` (needs root).
    """
    if (groups or boards) and os.geteuid() != 0:
        pytest.skip("only root can make control groups and devices")
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        need(program)
    node = f"node{os.getpid()}x{secrets.token_hex(2)}"
    with ExitStack() as stack:
        if boards:
            stack.enter_context(slurms_turn())
        # not the test's directory: a step's socket must fit into 107 characters
        place = Path(stack.enter_context(TemporaryDirectory(prefix="slurm")))
        yield stack.enter_context(_running(place, node, groups=groups, boards=boards))


@contextmanager
def _running(directory: Path, node: str, *, groups: bool, boards: int) -> Iterator[Slurm]:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "SLURM_CONF": str(directory / "slurm.conf")}
    running = Slurm(directory, node, environment)
    _configure(running, groups=groups, boards=boards)
    with ExitStack() as stack:
        stack.enter_context(_alone())
        stack.callback(_remove_groups, node)
        stack.callback(_kill_left, running)
        key = directory / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munged.pid", "log-file": "munged.log"}
        options = [f"--{option}={directory / file}" for option, file in {**files, "seed-file": "munged.seed"}.items()]
        # --force: the directory is private to its user
        stack.enter_context(_daemon(running, "munged", "--foreground", "--force", "--num-threads=2", *options))
        _wait_for((directory / "munge.socket").exists, 20, _log(directory, "munged"))
        stack.enter_context(_daemon(running, "slurmctld", "-D", "-c"))
        stack.enter_context(_daemon(running, "slurmd", "-D", "-c", "-N", node))
        stack.callback(_end_jobs, running)
        _wait_for(lambda: _is_idle(running), 30, _log(directory, "slurmctld", "slurmd"))
        yield running


def has_version_1_groups() -> bool:
    """Whether this machine has the cgroups of version 1 that Slurm uses, and lets this user make groups."""
    return all(os.access(ROOT / name, os.W_OK) and (ROOT / name / "tasks").exists() for name in CONTROLLERS)


def _configure(running: Slurm, *, groups: bool, boards: int) -> None:
    directory, node, host = running.directory, running.node, socket.gethostname()
    for name in ("state", "spool"):
        (directory / name).mkdir()
    settings = {
        "ClusterName": "trial",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
        "SlurmctldPort": _free_port(),
        "SlurmdPort": _free_port(),
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={directory / 'munge.socket'}",
        "SlurmUser": os.getuid(),
        "SlurmdUser": os.getuid(),
        "StateSaveLocation": directory / "state",
        "SlurmdSpoolDir": directory / "spool",
        "SlurmctldPidFile": directory / "slurmctld.pid",
        "SlurmdPidFile": directory / "slurmd.pid",
        "ProctrackType": "proctrack/cgroup" if groups else "proctrack/linuxproc",
        "JobAcctGatherType": "jobacct_gather/cgroup" if groups else "jobacct_gather/none",
        "TaskPlugin": "task/cgroup" if groups else "task/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "AccountingStorageType": "accounting_storage/none",
        "SwitchType": "switch/none",
        "MpiDefault": "none",
        "SchedulerParameters": "batch_sched_delay=0,sched_min_interval=0",
        "KillWait": 2,
        "GresTypes": "gpu",
    }
    lines = [f"{key}={value}" for key, value in settings.items()]
    gres = f" Gres=gpu:{boards}" if boards else ""
    # More CPUs than there are: what a test wants to run at once should not depend on the machine.
    lines.append(f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=8{gres} State=UNKNOWN")
    lines.append("SlurmdParameters=config_overrides")
    lines.append("PartitionName=short Nodes=ALL Default=YES MaxTime=10 State=UP")
    (directory / "slurm.conf").write_text("\n".join(lines) + "\n")
    (directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nConstrainDevices=yes\n")
    for number in range(boards):
        os.mknod(directory / f"nvidia{number}", 0o20666, os.makedev(195, number))
    devices = (f"Name=gpu File={directory / f'nvidia{number}'}\n" for number in range(boards))
    (directory / "gres.conf").write_text("".join(devices))


@contextmanager
def _alone() -> Iterator[None]:
    """One Slurm at a time on a machine: tests that run side by side wait here for each other."""
    with (Path(tempfile.gettempdir()) / f"slurm-of-tests-{os.getuid()}").open("w") as place:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield


@contextmanager
def _daemon(running: Slurm, *command: str) -> Iterator[None]:
    with (running.directory / f"{command[0]}.out").open("wb") as out:
        process = subprocess.Popen(command, env=dict(running.environment), stdout=out, stderr=out)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _is_idle(running: Slurm) -> bool:
    command = ["sinfo", "--noheader", "--format=%T"]
    done = subprocess.run(
        command, env=dict(running.environment), capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout.strip() == "idle"


def _end_jobs(running: Slurm) -> None:
    with suppress(AssertionError, subprocess.TimeoutExpired):
        running.command("scancel", "--me")
        running.command("scancel", "--me", "--full", "--signal=KILL")
        _wait_for(lambda: not running.command("squeue", "--noheader"), 5, "")


def _kill_left(running: Slurm) -> None:
    """What is left of jobs and daemons, which move into sessions of their own: each by its number."""
    mark = f"SLURM_CONF={running.environment['SLURM_CONF']}".encode()
    for pid in _with_environment(mark):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _with_environment(entry: bytes) -> Iterator[int]:
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if entry in file.read_bytes().split(b"\0") and int(file.parent.name) != os.getpid():
                yield int(file.parent.name)


def _remove_groups(node: str) -> None:
    """Slurm leaves those of users and its own; the kernel takes a moment to let killed processes go."""
    until = time.monotonic() + 5
    while left := [folder for name in CONTROLLERS for folder, _, _ in os.walk(ROOT / name / f"slurm_{node}")]:
        for folder in reversed(left):
            with suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106
        if time.monotonic() > until:
            return
        time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _log(directory: Path, *daemons: str) -> Callable[[], str]:
    """What to say when they do not come up."""
    return lambda: "\n".join((directory / f"{name}.out").read_text(errors="replace")[-3000:] for name in daemons)


def _wait_for(what: Callable[[], bool], patience: float, otherwise: str | Callable[[], str]) -> None:
    until = time.monotonic() + patience
    while not what():
        assert time.monotonic() < until, otherwise if isinstance(otherwise, str) else otherwise()
        time.sleep(0.1)
