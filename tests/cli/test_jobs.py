"""`carbon-exporter jobs` as a user runs it: who runs here, why each has its name, and what could not be read."""

from __future__ import annotations

import json
import math
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import burner, workloads
from support.engine import Engine, listed
from support.exporter import Exporter, state_of
from support.fakenvml import FakeNvml, Process, environment
from support.groups import Groups, own_groups
from support.kubelet import container, devices, kubelet, pod
from support.machine import Machine
from support.other_user import as_nobody, needs_root

COMMAND = [sys.executable, "-m", "carbon_exporter", "jobs"]
FAST = "--sample.interval=200ms"
ID, OTHER_ID = "4f5e1d2c3b4a" + "0123456789abcdef" * 3 + "0123", "a0b1c2d3e4f5" + "fedcba9876543210" * 3 + "fedc"
UID = "0cb8ae4c_8b4a_4d4e_a1a0_3a2b1c0d9e8f"
ALONE = ("--containers.sockets=", "--kubernetes.pod-resources-socket=")
"""Nobody outside is asked."""
ONLY = "--jobs.include="
"""Whatever else runs here, as other tests, is counted together."""


def environ(more: Mapping[str, str] | None = None) -> dict[str, str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("CARBON_", "STATE_DIRECTORY"))}
    return {**plain, "COLUMNS": "120", **(more or {})}


def run(
    *arguments: str, prefix: tuple[str, ...] = (), more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command's result; it must end by itself."""
    command = [*prefix, *COMMAND, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ(more))


@contextmanager
def started(*arguments: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """The command while it runs; ended by force if need be."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    with subprocess.Popen([*COMMAND, *arguments], text=True, env=environ(), **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def told(*arguments: str, **more: Any) -> dict[str, Any]:
    """What the command tells programs."""
    result = run("--json", *arguments, **more)
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def both(*arguments: str, **more: Any) -> tuple[dict[str, Any], str]:
    """What it tells programs and people, asked at the same time."""
    with ThreadPoolExecutor(2) as pool:
        document, shown = pool.submit(told, *arguments, **more), pool.submit(run, *arguments, **more)
    assert shown.result().returncode == 0, shown.result().stderr
    assert shown.result().stderr == ""
    return document.result(), shown.result().stdout


def job(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [row for row in document["jobs"] if row["job_name"] == name]
    assert len(found) == 1, f"{name} among {[row['job_name'] for row in document['jobs']]}"
    return found[0]


def running(line: str) -> set[str]:
    """The names in one document."""
    return {row["job_name"] for row in json.loads(line)["jobs"] if row["running"]}


@contextmanager
def burning(name: str, file: Path, duty: float) -> Iterator[None]:
    """A program that uses a part of a CPU as a job."""
    command = [sys.executable, burner.__file__, str(file), f"--duty={duty}"]
    with subprocess.Popen(command, env={**os.environ, "CARBON_JOB": name}) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.fixture
def groups() -> Iterator[Groups]:
    """Real ones, gone after the test."""
    with own_groups() as made:
        yield made


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """An empty one: no process, no group, memory alone draws."""
    return Machine(tmp_path / "machine")


def paths(machine: Machine) -> tuple[str, ...]:
    return (*ALONE, *(f"--path.{name}fs={machine.root / name}" for name in ("proc", "sys", "dev")))


def test_jobs_are_listed_by_power_with_what_named_them_and_their_devices(tmp_path: Path) -> None:
    with burning("light", tmp_path / "light", 0.03), burning("heavy", tmp_path / "heavy", 0.8):
        document, text = both(*ALONE, ONLY + "heavy,light")
    shown = text.splitlines()
    assert document.keys() == {
        "node", "time", "power_watts", "jobs", "reserved", "devices", "resolvers", "sensors", "unanswered", "notes",
    }  # fmt: skip
    heavy, light = job(document, "heavy"), job(document, "light")
    assert heavy["power_watts"] > light["power_watts"] > 0
    assert document["jobs"].index(heavy) < document["jobs"].index(light)
    assert heavy.keys() == {
        "job_name", "job_namespace", "running", "power_watts", "devices", "slices", "rules", "why", "job_id",
        "scheduler", "queue", "user", "members",
    }  # fmt: skip
    assert (heavy["rules"], heavy["why"], heavy["running"]) == (["environment"], "CARBON_JOB", True)
    assert [row["device"] for row in heavy["devices"]] == [row["device"] for row in document["devices"]]
    assert [row["job_name"] for row in document["reserved"]] == ["_idle_", "_unattributed_"] + (
        ["_overflow_"] if len(document["reserved"]) > 2 else []
    )
    everyone = [row["power_watts"] for row in document["jobs"] + document["reserved"]]
    assert math.fsum(everyone) == pytest.approx(document["power_watts"])
    assert document["power_watts"] == pytest.approx(sum(row["power_watts"] for row in document["devices"]))
    rows = [line.partition(" ")[0] for line in shown]
    assert rows[0] == "JOB"
    assert rows.index("heavy") < rows.index("light") < rows.index("_idle_") < rows.index("all")
    line = shown[rows.index("heavy")]
    assert " environment " in line
    assert "cpu0" in line
    assert "CARBON_JOB" in line


def test_a_pod_and_a_container_are_told_with_members_board_and_rule(groups: Groups, tmp_path: Path) -> None:
    slices = "kubepods.slice/kubepods-burstable.slice"
    of_pod = f"{slices}/kubepods-burstable-pod{UID}.slice/cri-containerd-{ID}.scope"
    of_container = f"system.slice/docker-{OTHER_ID}.scope"
    groups.make(of_pod, of_container)
    fake = FakeNvml(tmp_path / "nvml", boards=8)
    granted = pod("ml", "train-0", container("main", devices("nvidia.com/gpu", fake.boards[6].uuid)))
    wait = 'say("ready"); wait()'
    with ExitStack() as stack:
        inside = stack.enter_context(workloads.run(wait, {"HOSTNAME": "train-0"}))
        other = stack.enter_context(workloads.run(wait))
        groups.move(inside.pid, of_pod)
        groups.move(other.pid, of_container)
        fake.boards[7].processes([Process(other.pid, sm=50)])
        stack.enter_context(kubelet(tmp_path / "kubelet.sock", granted))
        stack.enter_context(Engine(tmp_path / "docker.sock", containers=[listed(OTHER_ID, "notebook")]))
        sockets = (
            f"--kubernetes.pod-resources-socket={tmp_path / 'kubelet.sock'}",
            f"--containers.sockets={tmp_path / 'docker.sock'}",
        )
        document, shown = both(*sockets, ONLY + "ml/train,notebook", more=environment(fake))
    train, notebook = job(document, "train"), job(document, "notebook")
    assert (train["job_namespace"], train["rules"], train["scheduler"]) == ("ml", ["pod"], "kubernetes")
    assert {member["pod"] for member in train["members"]} == {"train-0"}
    assert (notebook["rules"], notebook["why"]) == (["container"], "container name")
    for row, board in ((train, "gpu6"), (notebook, "gpu7")):
        whole, share = ({one["device"]: one["power_watts"] for one in of["devices"]} for of in (document, row))
        assert whole[board] > 50
        assert share[board] == pytest.approx(whole[board]), "all of it, from the first look on"
    text = " ".join(shown.split())
    assert "ml/train" in text
    assert "pods: train-0" in text
    assert document["unanswered"] == []


def test_who_does_not_answer_in_time_is_named_and_the_rest_is_listed(groups: Groups, tmp_path: Path) -> None:
    path = f"system.slice/docker-{ID}.scope"
    groups.make(path)
    done = threading.Event()
    with workloads.run('say("ready"); wait()') as inside, Engine(tmp_path / "docker.sock") as engine:
        engine.answer = lambda _: done.wait(30)
        groups.move(inside.pid, path)
        flags = (
            f"--containers.sockets={tmp_path / 'docker.sock'}",
            "--kubernetes.pod-resources-socket=",
            ONLY + "docker-4f5e*",
        )
        document, shown = both(*flags)
        done.set()
    assert document["unanswered"] == ["engine"]
    assert job(document, f"docker-{ID[:12]}")["why"] == "container id"
    assert "NOT SEEN" in shown
    assert "engine" in shown.partition("NOT SEEN")[2]
    assert "has not answered yet" in " ".join(shown.split())


def test_a_pod_is_listed_though_the_api_server_gives_nothing(groups: Groups) -> None:
    path = f"kubepods.slice/kubepods-pod{UID}.slice/cri-containerd-{ID}.scope"
    groups.make(path)
    cluster = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "9", "NODE_NAME": "node-1"}
    with workloads.run('say("ready"); wait()') as inside:
        groups.move(inside.pid, path)
        document = told(*ALONE, ONLY + "pod-0cb8*", more=cluster)
    assert job(document, "pod-0cb8ae4c")["rules"] == ["container"]
    (pods,) = [row for row in document["resolvers"] if row["resolver"] == "pods"]
    assert pods["success"] is False
    assert pods["reason"]


def test_a_node_without_a_name_is_told_below_the_jobs() -> None:
    result = run(*ALONE, more={"KUBERNETES_SERVICE_HOST": "127.0.0.1"})
    assert result.returncode == 0
    assert result.stderr == ""
    assert "set NODE_NAME from fieldRef" in " ".join(result.stdout.partition("NOT SEEN")[2].split())


def test_an_empty_machine_says_how_to_name_a_job(machine: Machine) -> None:
    document, shown = both(*paths(machine))
    assert shown.startswith("No job is seen here. Start one with a name of its own:\n  CARBON_JOB=name python")
    assert "_idle_" in shown
    assert "control groups" in shown.partition("NOT SEEN")[2]
    assert document["jobs"] == []


@needs_root
def test_without_privileges_it_lists_what_it_sees_and_names_what_it_lacks(tmp_path: Path) -> None:
    with burning("hidden", tmp_path / "hidden", 0.5):
        document, shown = both(*ALONE, prefix=as_nobody())
    missing = " ".join(shown.partition("NOT SEEN")[2].split())
    assert "may not be read: their CARBON_JOB is not seen" in missing
    assert "→ give it the capabilities CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH" in missing
    assert "hidden" not in [row["job_name"] for row in document["jobs"]]
    (resolver,) = [row for row in document["resolvers"] if row["resolver"] == "environment"]
    assert resolver["success"] is False
    assert "CAP_SYS_PTRACE" in resolver["remedy"]


def test_an_exporter_that_runs_is_not_disturbed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Exporter(FAST, *ALONE, f"--storage.path={state}") as exporter:
        exporter.wait_for_samples(1)
        assert run(*ALONE, more={"CARBON_EXPORTER_STORAGE_PATH": str(state)}).returncode == 0
        exporter.wait_for_samples(2)
        assert exporter.status()["store"]["state"] == "ok"
        assert exporter.stop() == 0
    assert state_of(state)
    assert "lock" not in "".join(exporter.log)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_shows_one_picture_after_another_until_it_is_stopped(machine: Machine, number: int) -> None:
    with started("--watch", FAST, *paths(machine)) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while sum(line.startswith("JOB ") for line in lines) < 3:
            lines.append(process.stdout.readline())
            assert lines[-1], "it has ended"
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    text = "".join(lines)
    assert text.count("\n\nNo job is seen here") == 2, "an empty line between two pictures"
    assert "\x1b" not in text


def test_watch_as_json_is_one_document_a_line_and_sees_who_comes_and_goes(tmp_path: Path) -> None:
    with started("--watch", "--json", FAST, *ALONE, ONLY + "comer") as process, ExitStack() as stack:
        assert process.stdout is not None
        names: set[str] = set()
        json.loads(process.stdout.readline())
        stack.enter_context(burning("comer", tmp_path / "comer", 0.3))
        while "comer" not in names:
            names = running(process.stdout.readline())
        stack.close()
        while "comer" in names:
            names = running(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_signal_before_the_first_picture_ends_it_at_once(machine: Machine) -> None:
    with started("--watch", "--sample.interval=5m", *paths(machine)) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.8)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) in {0, -signal.SIGINT}, "before it listens, a signal does what it always does"


def test_watch_ends_quietly_when_nobody_reads_any_more(machine: Machine) -> None:
    with started("--watch", FAST, *paths(machine)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_watch_clears_a_terminal_before_each_picture(machine: Machine) -> None:
    ours, theirs = pty.openpty()
    with started("--watch", FAST, *paths(machine), stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        while shown.count(b"\x1b[H\x1b[2J") < 3:
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    os.close(ours)
    assert shown.startswith(b"\x1b[H\x1b[2JNo job is seen here")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--jobs.naming=owner,magic"], "jobs.naming: 'owner,magic' is not accepted; accepted: rules, each once"),
        (["--jobs.exclude=a,,b"], "jobs.exclude: 'a,,b' is not accepted; accepted: at most"),
        (["--sample.interval=5"], "--sample.interval"),
        (["--containers.sockets=docker.sock"], "containers.sockets"),
        (["--storage.path="], "unrecognized arguments: --storage.path="),
        (["--web.listen-address=:1"], "unrecognized arguments"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_what_is_accepted(flags: list[str], says: str) -> None:
    result = run(*flags)
    assert (result.returncode, result.stdout) == (2, "")
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_the_help_tells_the_columns_and_no_flag_of_the_server() -> None:
    shown = run("--help").stdout
    for part in ("columns:", "exit codes:", "examples:", "--jobs.naming", "--path.procfs", "--attribution.idle"):
        assert part in shown
    for flag in ("--web.", "--storage.", "--log.", "--grid."):
        assert flag not in shown


def test_the_exporters_settings_count_and_what_is_not_to_be_named_is_counted_together(tmp_path: Path) -> None:
    file, state = tmp_path / "settings.yml", tmp_path / "state"
    file.write_text(f"web: {{listen-address: ':1'}}\nstorage: {{path: {state}}}\njobs: {{exclude: secret-*}}\n")
    with burning("secret-plan", tmp_path / "secret", 0.5):
        result = run("--json", *ALONE, f"--config.file={file}")
    assert "secret-plan" not in result.stdout
    (overflow,) = [row for row in json.loads(result.stdout)["reserved"] if row["job_name"] == "_overflow_"]
    assert overflow["power_watts"] > 0
    assert not state.exists(), "nothing is stored"
