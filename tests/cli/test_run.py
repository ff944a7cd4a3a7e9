"""`carbon-exporter run`: the command behaves as if it ran alone, and its cost is told."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from carbon_exporter.cli.run import summary

RUN = [sys.executable, "-m", "carbon_exporter", "run"]
SUMMARY = re.compile(
    r"^carbon-exporter: (.+): (\S+ s|\S+), (\S+) kWh, (\S+) W, (\S+) g CO2e(?: \((.+)\))?\n"
    r"carbon-exporter: (.+); quality: (\w+)\n\Z",
    re.MULTILINE,
)
STANDARD_SIGNALS = (1 << 31) - 1
"""Of a mask: the C library keeps the two after them for itself."""
TELLS = (
    "import os, signal, sys, time\n"
    "told = lambda number, frame: print('got', signal.Signals(number).name, flush=True)\n"
    "for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT, signal.SIGQUIT,\n"
    "               signal.SIGWINCH, signal.SIGCONT):\n"
    "    signal.signal(number, told)\n"
    "print('ready', flush=True)\n"
)
"""A child that says which signals it gets."""
WAITS = TELLS + "until = time.monotonic() + 30\nwhile time.monotonic() < until: time.sleep(0.02)\n"


def environment(**more: str) -> dict[str, str]:
    """Without an exporter, at a known place, and without meters, which take their time to settle."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("CARBON_", "OTEL_", "SLURM_"))}
    return {**plain, "CARBON_SDK": "off", "CARBON_REGION": "FR", **more}


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def finished(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RUN, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment(**more)
    )


def shown(stderr: str) -> re.Match[str]:
    found = SUMMARY.search(stderr)
    assert found, stderr
    return found


@dataclass
class Known:
    """Figures to print."""

    energy_kwh: float = 0.0123456
    co2e_grams: float = 5.4321
    duration_seconds: float = 3723.4
    power_watts: float = 534.2
    energy_by_kind: dict[str, float] = field(default_factory=lambda: {"cpu": 0.0023456, "gpu": 0.01})
    quality: str = "measured"


def test_the_summary_has_three_digits_of_everything() -> None:
    assert summary("train", Known(), "FR") == (
        "carbon-exporter: train: 1:02:03, 0.0123 kWh, 534 W, 5.43 g CO2e (FR)\n"
        "carbon-exporter: gpu 0.0100 kWh, cpu 0.00235 kWh; quality: measured"
    )
    nothing = Known(0.0, 0.0, 0.04, 0.0, {}, "none")
    assert summary("x", nothing, "") == (
        "carbon-exporter: x: 0.0 s, 0 kWh, 0 W, 0 g CO2e\ncarbon-exporter: nothing could be measured; quality: none"
    )


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """In a process group of its own, its output through a pipe; it has said `ready`."""
    with subprocess.Popen(
        [*RUN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
        preexec_fn=os.setpgrp,  # noqa: PLW1509 - Python 3.10 has no process_group, and a new session could not stop
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            kill_group(process.pid)


def kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_the_commands(code: int) -> None:
    assert finished("--", "sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGSEGV, signal.SIGUSR1])
def test_a_command_that_dies_of_a_signal_takes_us_with_it(number: signal.Signals) -> None:
    done = finished("sh", "-c", f"kill -{number.value} $$")
    assert done.returncode == -number
    assert shown(done.stderr)[1] == "sh"


def test_a_shell_sees_128_and_the_signal() -> None:
    line = f"{sys.executable} -m carbon_exporter run sh -c 'kill -9 $$'; echo $?"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=True, env=environment())
    assert done.stdout == "137\n"


def test_a_command_that_is_not_there_is_127_and_one_that_may_not_run_126(tmp_path: Path) -> None:
    missing = finished("no-such-command-here")
    assert missing.returncode == 127
    assert missing.stderr == "carbon-exporter run: no-such-command-here: No such file or directory\n"
    (tmp_path / "plain").write_text("not a program")
    for path in (tmp_path / "plain", tmp_path):
        refused = finished("--", str(path))
        assert refused.returncode == 126
        assert "Permission denied" in refused.stderr


def test_without_a_command_nothing_is_run() -> None:
    assert finished().returncode == 2
    assert finished("--").returncode == 2
    assert finished("--unknown", "true").returncode == 2


def test_a_script_without_an_interpreter_line_is_a_shells(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('echo "$0 $1"; exit 7\n')
    script.chmod(0o755)
    done = finished(str(script), "one")
    assert (done.returncode, done.stdout) == (7, f"{script} one\n")


@pytest.mark.parametrize("separator", [(), ("--",)])
def test_arguments_reach_the_command_as_they_are(separator: tuple[str, ...]) -> None:
    arguments = ["--job", "x", "-h", "--", "", "two words", "--no-live", "*"]
    done = finished("--no-live", *separator, *python("import sys; print(sys.argv[1:])"), *arguments)
    assert done.stdout == f"{arguments}\n"


def test_standard_input_and_output_pass_untouched() -> None:
    body = os.urandom(1 << 20)
    done = subprocess.run([*RUN, "cat"], input=body, capture_output=True, timeout=60, check=True, env=environment())
    assert done.stdout == body


def test_a_command_whose_reader_has_gone_dies_of_sigpipe_as_ever() -> None:
    line = f"{sys.executable} -m carbon_exporter run yes 2>/dev/null | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True, env=environment()
    )
    assert done.stdout == "y\n141\n"


def test_the_job_is_named_by_flag_environment_or_command() -> None:
    show = ("sh", "-c", "echo $CARBON_JOB")
    for arguments, environ, name in (
        (("--job", "nightly"), {"CARBON_JOB": "other"}, "nightly"),
        ((), {"CARBON_JOB": "other"}, "other"),
        ((), {}, "sh"),
    ):
        done = finished(*arguments, "--", *show, **environ)
        assert done.stdout == f"{name}\n"
        assert shown(done.stderr)[1] == name


def test_the_summary_has_the_energy_of_what_the_command_started() -> None:
    burn = "import time\nwhile time.process_time() < 1.5: pass\n"
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    done = finished("--job", "burner", *python(inner), CARBON_SDK="auto", CARBON_SDK_SOCKET="/nowhere/sdk.sock")
    _, duration, kwh, watts, grams, region, kinds, quality = shown(done.stderr).groups()
    seconds = float(duration.removesuffix(" s"))
    assert seconds >= 1.5
    assert float(kwh) * 3.6e6 == pytest.approx(float(watts) * seconds, rel=0.1)
    assert float(watts) > 0.1
    assert float(grams) > 0
    assert region == "FR"
    assert "cpu" in kinds
    assert quality in {"measured", "integrated", "modelled", "default"}


BURNS_IN_A_SPAN = """
import time
from carbon_exporter import carbon_span
with carbon_span("inner") as span:
    until = time.process_time() + 2
    while time.process_time() < until:
        sum(range(1000))
span.wait(5)
print(span.energy_kwh)
"""


def test_a_command_that_measures_itself_is_in_the_summary_all_the_same() -> None:
    done = finished("--no-live", *python(BURNS_IN_A_SPAN), CARBON_SDK="auto", CARBON_SDK_SOCKET="/nonexistent")
    inner = float(done.stdout)
    assert inner > 0
    assert inner * 0.8 < float(shown(done.stderr)[3]) < inner * 3


@pytest.mark.parametrize(
    "name", ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGINT", "SIGQUIT", "SIGCONT", "SIGWINCH"]
)
def test_a_signal_that_a_process_sends_us_is_passed_on(name: str) -> None:
    with running(*python(WAITS)) as process:
        process.send_signal(signal.Signals[name])
        assert process.stdout is not None
        assert process.stdout.readline() == f"got {name}\n"


def test_a_command_that_ignores_nothing_ends_by_the_signal_sent_to_us() -> None:
    with running("sh", "-c", "echo ready; exec sleep 30") as process:
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM


def test_what_was_ignored_before_stays_ignored() -> None:
    show = "grep SigIgn /proc/self/status"
    ignored = []
    for line in (show, f"exec {sys.executable} -m carbon_exporter run {show}"):
        done = subprocess.run(
            ["sh", "-c", f"trap '' HUP INT; {line}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=environment(),
        )
        ignored.append(int(done.stdout.split()[1], 16) & STANDARD_SIGNALS)
    assert ignored[0] == ignored[1] != 0


def test_stop_and_continue_reach_the_command() -> None:
    with running("sh", "-c", "echo ready; exec sleep 30") as process:
        child = child_of(process.pid)
        process.send_signal(signal.SIGTSTP)
        until(lambda: state_of(child) == "T" and state_of(process.pid) == "T")
        process.send_signal(signal.SIGCONT)
        until(lambda: state_of(child) == "S" and state_of(process.pid) == "S")
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM


class Terminal:
    """`run` as the leader of a session on a real pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [*RUN, *arguments], environment(TERM="xterm", COLUMNS="120"))  # noqa: S606
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        self.text = ""

    def read_until(self, text: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < end, f"{text!r} is not in {self.text!r}"
            if not self._read():
                break
        assert text in self.text, self.text

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Its wait status, once it has written all."""
        while self._read():
            pass
        os.close(self._master)
        return os.waitpid(self.pid, 0)[1]

    def _read(self) -> bool:
        try:
            data = os.read(self._master, 4096)
        except OSError:  # the other side is closed
            return False
        self.text += data.decode(errors="replace")
        return bool(data)


def test_the_commands_terminal_is_ours() -> None:
    terminal = Terminal(*python("import sys; print(sys.stdin.isatty(), sys.stdout.isatty(), input('name? '))"))
    terminal.read_until("name? ")
    terminal.type("ada\n")
    terminal.read_until("True True ada")
    assert terminal.end() == 0


def test_ctrl_c_reaches_the_command_once_and_we_end_as_it_does() -> None:
    terminal = Terminal(*python(WAITS))
    terminal.read_until("ready")
    terminal.type("\x03")
    terminal.read_until("got SIGINT")
    time.sleep(0.3)
    terminal.type("\x1c")
    terminal.read_until("got SIGQUIT")
    os.kill(terminal.pid, signal.SIGTERM)
    terminal.read_until("got SIGTERM")
    os.kill(child_of(terminal.pid), signal.SIGKILL)
    assert os.WTERMSIG(terminal.end()) == signal.SIGKILL
    assert terminal.text.count("got SIGINT") == 1

    terminal = Terminal("sh", "-c", "echo ready; exec sleep 30")
    terminal.read_until("ready")
    terminal.type("\x03")
    assert os.WTERMSIG(terminal.end()) == signal.SIGINT


def test_a_shell_can_suspend_and_resume_it() -> None:
    script = (
        "set -m\n"
        f"{sys.executable} -m carbon_exporter run --no-live sh -c 'echo ready; read line; echo line:$line'\n"
        "echo stopped:$?\n"
        "fg\n"
        "echo ended:$?\n"
    )
    pid, master = pty.fork()
    if pid == 0:
        os.execve("/bin/bash", ["bash", "--norc", "-c", script], environment(TERM="xterm"))  # noqa: S606
    shell = Terminal.__new__(Terminal)
    shell.pid, shell._master, shell.text = pid, master, ""
    shell.read_until("ready")
    time.sleep(0.3)
    shell.type("\x1a")
    shell.read_until("stopped:148")
    time.sleep(0.3)
    shell.type("hello\n")
    shell.read_until("line:hello")
    shell.read_until("ended:0")
    assert shell.end() == 0


LINE = "\r\x1b[K"


def test_a_line_on_a_terminal_shows_how_it_stands_and_is_taken_away() -> None:
    terminal = Terminal("--job", "live", "sleep", "2.5")
    assert terminal.end() == 0
    assert re.search(r"\r\x1b\[Klive: \d\.\d s, \S+ kWh, \S+ W, \S+ g CO2e\r", terminal.text), terminal.text
    assert f"{LINE}carbon-exporter: live: " in terminal.text


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no-live", "sleep", "2.5"),
        ("sh", "-c", "stty -icanon; sleep 2.5"),
    ],
    ids=["unwanted", "full screen"],
)
def test_no_line_where_it_is_unwanted_or_would_disturb(arguments: tuple[str, ...]) -> None:
    terminal = Terminal(*arguments)
    assert terminal.end() == 0
    assert LINE not in terminal.text


def test_no_line_where_there_is_no_terminal() -> None:
    done = finished("sleep", "1.5")
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 2
