"""However a script ends, and whoever does not listen: it ends as it would have without us, and little is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import ending
from support.exporter import Exporter, Series
from support.fakenvml import FakeNvml, Process, environment
from support.powercap import PowercapTree
from support.waiting import until

from carbon_exporter.units import JOULES_PER_KWH

WATTS = 300.0
INTERVAL = 1.0
LATE_SECONDS = 2.5 * INTERVAL
"""The last sampling interval, and what a busy machine adds to it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A board of 300 W, an exporter that can be ended and begun again, and its socket."""

    directory: Path
    fake: FakeNvml
    socket: str

    @property
    def environ(self) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith(("CARBON_", "OTEL_"))}
        names = {"CARBON_JOB": "endings", "CARBON_SDK_SOCKET": self.socket, "CUDA_VISIBLE_DEVICES": "0"}
        return {**own, **environment(self.fake), **names}

    def exporter(self, *flags: str) -> Exporter:
        room = ("--containers.sockets=", "--jobs.max=1000", "--series.max=100000", f"--sample.interval={INTERVAL}s")
        places = (f"--path.sysfs={self.directory / 'sys'}", f"--storage.path={self.directory / 'state'}")
        return Exporter(*room, *places, f"--sdk.socket={self.socket}", *flags, environ=environment(self.fake))

    def script(self, how: str, seconds: float, *flags: str, **environ: str) -> subprocess.Popen[str]:
        """A script that holds the board, from when it works."""
        command = [sys.executable, ending.__file__, how, str(seconds), *flags]
        pipe = subprocess.PIPE
        script = subprocess.Popen(command, env={**self.environ, **environ}, stdout=pipe, stderr=pipe, text=True)
        self.fake.boards[0].processes([Process(script.pid, sm=50)])
        assert script.stdout is not None
        assert script.stdout.readline() == "working\n"
        return script


@contextmanager
def node(directory: Path) -> Iterator[Node]:
    PowercapTree(directory / "sys")
    fake = FakeNvml(directory / "nvml", boards=1)
    fake.boards[0].constant(WATTS)
    with tempfile.TemporaryDirectory(prefix="sdk") as short:
        yield Node(directory, fake, f"{short}/sdk.sock")


def ended(script: subprocess.Popen[str]) -> tuple[int, str]:
    """Its status and what it said at last."""
    _, errors = script.communicate(timeout=30)
    return script.returncode, errors


def joules(series: Series, span: str) -> float:
    """Of all spans of this name, on the board."""
    wanted = {("span", span), ("kind", "gpu"), ("job_name", "endings")}
    found = (
        value for (name, labels), value in series.items() if name == "carbon_span_energy_kwh_total" and wanted <= labels
    )
    return JOULES_PER_KWH * sum(found)


def roots(series: Series, how: str) -> float:
    """Joules of the spans that have no parent: those of another thread share with the first one's."""
    steps = joules(series, "step") if how == "thread" else 0.0
    return joules(series, "all") + steps


def plainly(how: str, number: int | None = None) -> tuple[int, str]:
    """How the same script ends without spans."""
    pipe = subprocess.PIPE
    command = [sys.executable, ending.__file__, how, "0.7", "--plain"]
    script = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    assert script.stdout is not None
    assert script.stdout.readline() == "working\n"
    if number is not None:
        script.send_signal(number)
    return ended(script)


ENDS: list[tuple[str, signal.Signals | None]] = [
    ("return", None),
    ("raise", None),
    ("exit", None),
    ("os-exit", None),
    ("wait", signal.SIGTERM),
    ("wait", signal.SIGKILL),
    ("wait", signal.SIGINT),
    ("thread", None),
]
"""The one with a thread comes last: its steps are roots, and before it they were children."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ends", [ENDS[3:6], pytest.param(ENDS, marks=pytest.mark.soak)], ids=["abrupt ones", "all"])
def test_over_the_socket_at_most_the_last_interval_is_missing_however_a_script_ends(
    tmp_path: Path, ends: list[tuple[str, signal.Signals | None]]
) -> None:
    with node(tmp_path) as here, here.exporter() as exporter:
        exporter.wait_for_samples(2)
        for how, number in ends:
            before = roots(exporter.series(), how)
            script = here.script(how, 4.0)
            began = time.monotonic()
            if number is not None:
                time.sleep(4.0)
                script.send_signal(number)
            status, said = ended(script)
            seconds = time.monotonic() - began
            plain_status, plain_said = plainly(how, number)
            assert status == plain_status, how
            assert said.splitlines()[-1:] == plain_said.splitlines()[-1:], how
            exporter.wait_for_samples(3)
            told = (roots(exporter.series(), how) - before) / WATTS
            assert seconds - LATE_SECONDS <= told <= seconds + 1.0, (how, number)


@pytest.mark.timeout(180)
def test_an_exporter_that_is_killed_and_comes_back_has_it_all_once(tmp_path: Path) -> None:
    with node(tmp_path) as here:
        exporter = here.exporter()
        with exporter:
            exporter.wait_for_samples(2)
            script = here.script("return", 14.0)
            began = time.monotonic()
            until(lambda: joules(exporter.series(), "all") > 0)
            before = joules(exporter.series(), "all")
            exporter.kill()
        away = time.monotonic()
        time.sleep(2.0)
        with here.exporter() as exporter:
            away = time.monotonic() - away
            assert ended(script) == (0, "")
            seconds = time.monotonic() - began
            exporter.wait_for_samples(3)
            told = joules(exporter.series(), "all")
        assert before > 0
        assert told >= before, "what was scraped is not forgotten"
        assert told <= WATTS * (seconds + 1.0), "nothing twice"
        assert told >= WATTS * (seconds - away - 5.0 - LATE_SECONDS), "what was measured came, once it was back"


@contextmanager
def silent_server() -> Iterator[int]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("name", "environ"),
    [
        ("a dead exporter's socket", {"CARBON_SDK_SOCKET": "{dead}"}),
        ("a socket that is none", {"CARBON_SDK_SOCKET": "/dev/null"}),
        ("an exporter that never answers", {"CARBON_SDK_SOCKET": "{silent}"}),
        ("a dead Pushgateway", {"CARBON_PUSHGATEWAY": "http://127.0.0.1:1"}),
        ("a Pushgateway that never answers", {"CARBON_PUSHGATEWAY": "http://127.0.0.1:{port}"}),
        ("nonsense", {"CARBON_SDK": "nonsense", "CARBON_REGION": "nowhere"}),
        ("a full disk", {"TMPDIR": "/dev/full", "XDG_RUNTIME_DIR": "/dev/full", "HOME": "/dev/full"}),
        ("turned off", {"CARBON_SDK": "off"}),
    ],
)
@pytest.mark.parametrize("how", ["raise", "wait"])
def test_whoever_does_not_listen_is_no_trouble(tmp_path: Path, how: str, name: str, environ: Mapping[str, str]) -> None:
    number = signal.SIGTERM if how == "wait" else None
    with node(tmp_path) as here, silent_server() as port, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(here.socket + ".silent")
        silent.listen()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(here.socket + ".dead")
        places = {"dead": here.socket + ".dead", "silent": here.socket + ".silent", "port": port}
        script = here.script(how, 0.7, **{key: value.format(**places) for key, value in environ.items()})
        began = time.monotonic()
        if number is not None:
            time.sleep(0.7)
            script.send_signal(number)
        status, said = ended(script)
        assert time.monotonic() - began < 6, name
    plain_status, plain_said = plainly(how, number)
    assert status == plain_status
    assert set(plain_said.splitlines()[-1:]) <= set(said.splitlines()), "its own last words are there"


@pytest.mark.parametrize("how", ["return", "wait"])
@pytest.mark.parametrize("answers", [False, True], ids=["a dead collector", "one that never answers"])
def test_a_collector_that_does_not_take_the_metrics_is_no_trouble(tmp_path: Path, how: str, answers: bool) -> None:
    number = signal.SIGTERM if how == "wait" else None
    with node(tmp_path) as here, silent_server() as port:
        collector = f"--collector=http://127.0.0.1:{port if answers else 1}/v1/metrics"
        script = here.script(how, 0.7, collector, CARBON_SDK="opentelemetry")
        began = time.monotonic()
        if number is not None:
            time.sleep(0.7)
            script.send_signal(number)
        status, said = ended(script)
        assert time.monotonic() - began < 6
    plain_status, plain_said = plainly(how, number)
    assert status == plain_status
    assert set(plain_said.splitlines()[-1:]) <= set(said.splitlines())
