"""`carbon-exporter sensors` as a user runs it: what it shows, what it records, and that the recording plays back."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.driven import driven_tree, two_sockets
from support.exporter import Exporter, state_of
from support.machine import Clock, Machine
from support.other_user import as_nobody, needs_root, public_directory
from support.powercap import PowercapTree

from carbon_exporter.cli.sensor_view import Seen, Source, as_json, as_text
from carbon_exporter.sensors.base import Device, Vitals
from carbon_exporter.sensors.recording import load_recording
from carbon_exporter.sensors.replay import Replay
from carbon_exporter.units import Watts

COMMAND = [sys.executable, "-m", "carbon_exporter", "sensors"]
FAST = "--sample.interval=200ms"


def environ(**more: str) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "120", **more}


def run(*arguments: str, prefix: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[str]:
    """The command's result; it must end by itself."""
    command = [*prefix, *COMMAND, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ(), **more)


@contextmanager
def started(*arguments: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """The command while it runs; ended by force if need be."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    with subprocess.Popen([*COMMAND, *arguments], text=True, env=environ(), **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One socket with RAPL, and no DRAM counter."""
    machine = Machine(tmp_path / "machine", sockets=(0, 0))
    PowercapTree(machine.root / "sys").add("intel-rapl:0", "package-0")
    return machine


def paths(machine: Machine) -> tuple[str, ...]:
    return tuple(f"--path.{name}fs={machine.root / name}" for name in ("proc", "sys", "dev"))


def findings(machine: Machine, *, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    result = run("--json", *paths(machine), prefix=prefix)
    assert result.returncode == 0, result.stderr
    return {row["sensor"]: row for row in json.loads(result.stdout)}


def wait_for_lines(path: Path, count: int) -> list[str]:
    """The lines of a file, once there are so many."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return lines
        time.sleep(0.02)
    raise AssertionError(f"{path} has not got {count} lines")


def test_each_device_is_told_with_its_quality_and_watts(machine: Machine) -> None:
    found = findings(machine)
    assert [(d["device"], d["quality"], d["power_watts"]) for d in found["rapl"]["devices"]] == [
        ("cpu0", "measured", 0.0)
    ]
    (dram,) = found["model"]["devices"]
    assert (dram["device"], dram["quality"]) == ("dram0", "default")
    assert dram["power_watts"] == pytest.approx(16 * 0.375)


@needs_root
def test_the_file_and_the_command_are_named_where_permission_is_missing() -> None:
    with public_directory() as place:
        machine = Machine(place / "machine")
        tree = PowercapTree(machine.root / "sys")
        tree.add("intel-rapl:0", "package-0")
        tree.deny("intel-rapl:0")
        found = findings(machine, prefix=as_nobody())
        assert found["rapl"]["state"] == "denied"
        assert "intel-rapl:0/energy_uj" in found["rapl"]["reason"]
        assert "sudo setpriv --bounding-set=-all" in found["rapl"]["remedy"]
        assert {d["device"] for d in found["model"]["devices"]} == {"cpu0", "dram0"}


def test_the_table_fits_the_terminal_and_names_every_sensor() -> None:
    with public_directory() as place:  # a short path, for a path is never broken
        machine = Machine(place / "m", sockets=(0, 0))
        PowercapTree(machine.root / "sys").add("intel-rapl:0", "package-0")
        shown = run(*paths(machine)).stdout
    assert shown.startswith("SENSOR")
    assert max(len(line) for line in shown.splitlines()) <= 120
    for sensor in ("nvidia", "rapl", "model"):
        assert f"\n{sensor} " in shown
    assert "how: energy counter" in shown


def recording(path: Path, *records: dict[str, Any]) -> str:
    """A recording of a board and a whole-node meter, as the flag that plays it."""
    devices = [
        {"name": "gpu0", "kind": "gpu", "model": "H100", "bound": "±5 % (the maker's)", "period": 0.1},
        {"name": "redfish", "kind": "node", "period": 5},
    ]
    header = {"carbon_exporter_recording": 1, "devices": devices, "interval": 0.2}
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, *records)))
    return f"--replay.file={path}"


def mean(device: str, since: float, t: float, power: float, **more: Any) -> dict[str, Any]:
    return {"device": device, "quality": "integrated", "power": power, "since": since, "t": t, **more}


def playing(tmp_path: Path) -> str:
    """The board draws 300 W, then has a neighbour; the meter's mean is 900 W from the third tenth on."""
    vitals = {"power_limit": 700, "utilization": 0.97, "memory_used": 2**35, "temperature": 64, "divergence": 0.012}
    records = []
    for n in range(400):
        t = n / 10
        readings = [mean("gpu0", t - 0.1, t, 300, uncertainty=6.0)] if n else []
        record: dict[str, Any] = {"t": t, "readings": readings, "vitals": [{"device": "gpu0", **vitals}]}
        if n == 3:
            record["devices"] = [
                *({"name": f"gpu{board}", "kind": "gpu", "model": "H100"} for board in (0, 1)),
                {"name": "redfish", "kind": "node", "period": 5, "bound": "±2 %"},
            ]
        if n > 3:
            record["failures"] = [{"reason": "a board is lost"}]
            readings += [mean("gpu1", t - 0.1, t, 100), mean("redfish", t - 0.1, t, 900)]
        records.append(record)
    return recording(tmp_path / "play.jsonl", *records)


def test_a_device_that_comes_later_vitals_and_sampling_uncertainty_are_shown(tmp_path: Path) -> None:
    shown = run(playing(tmp_path)).stdout.splitlines()
    rows = {tuple(line.split()[:2]): line for line in shown[:5]}
    first = rows["replay", "gpu0"]
    for part in ("300.0 W", "integrated", "97 %", "32.0 GiB", "64 °C", "700 W"):
        assert part in first
    assert "100.0 W" in rows["replay", "gpu1"]
    assert "400.0 W" in rows["all", "400.0"], "the whole node is in no sum with its parts"
    assert shown[4] == rows["replay", "redfish"]
    uncertainty = float(first.partition("300.0 W")[2].split()[0])
    assert 0 < uncertainty < 6, "independent errors: less for a second than for each tenth of it"
    text = " ".join(" ".join(shown).split())
    assert "gpu0, gpu1: H100" in text
    assert "bound (redfish): ±2 %" in text
    assert "updates (redfish): every 5 s" in text
    assert "replay in use" in text
    assert "trouble: a board is lost" in text
    assert "check (gpu0): the counter tells 1.2 % more than its power" in text


def test_the_same_is_told_to_programs(tmp_path: Path) -> None:
    (source,) = json.loads(run("--json", playing(tmp_path)).stdout)
    assert (source["state"], source["reason"]) == ("active", "a board is lost")
    board, _, node = source["devices"]
    assert (board["power_watts"], board["power_limit_watts"]) == (pytest.approx(300), 700)
    assert (board["utilization_ratio"], board["memory_used_bytes"], board["temperature_celsius"]) == (0.97, 2**35, 64)
    assert 0 < board["sampling_uncertainty_watts"] < 6
    assert (node["kind"], node["bound"], node["update_period_seconds"]) == ("node", "±2 %", 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watch_shows_one_picture_after_another_until_it_is_stopped(machine: Machine, number: int) -> None:
    with started("--watch", FAST, *paths(machine)) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while sum(line.startswith("SENSOR") for line in lines) < 5:  # two in a picture: of devices, and of sources
            lines.append(process.stdout.readline())
            assert lines[-1], "it has ended"
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == ""
    text = "".join(lines)
    assert text.count("\n\nSENSOR  DEVICE") == 2, "an empty line between two pictures"
    assert "\x1b" not in text


def test_watch_as_json_is_one_document_a_line_for_as_long_as_it_is_told(machine: Machine) -> None:
    result = run("--watch", "--json", "--for=1s", FAST, *paths(machine))
    assert result.returncode == 0
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(documents) >= 2
    for document in documents:
        assert {"nvidia", "rapl", "model"} <= {source["sensor"] for source in document}


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
    with started("--watch", "--for=600ms", FAST, *paths(machine), stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # Linux tells the end of a terminal so
            pass
        assert process.wait(20) == 0
    os.close(ours)
    assert shown.startswith(b"\x1b[H\x1b[2JSENSOR")
    assert shown.count(b"\x1b[H\x1b[2J") >= 2


def test_a_recording_can_be_read_by_its_owner_alone_and_is_never_overwritten(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    result = run("--record", str(file), "--for=500ms", FAST, *paths(machine))
    assert (result.returncode, result.stdout) == (0, "")
    assert f"recording to {file} every 0.2 s" in result.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    times = [json.loads(line)["t"] for line in before.splitlines()[1:]]
    assert times[0] == 0.0
    assert times[-1] >= 0.45, "the end is recorded too"
    again = run("--record", str(file), "--for=500ms", FAST, *paths(machine))
    assert again.returncode == 1
    assert f"{file} exists already; name a file that does not exist yet" in again.stderr
    assert file.read_bytes() == before


def test_a_recording_says_nothing_of_the_host_the_user_or_the_paths_of_people(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "carol" / "machine", model="Xeon", sockets=(0, 0))
    tree = PowercapTree(machine.root / "sys")
    tree.add("intel-rapl:0", "package-0")
    tree.add("intel-rapl:1", "package-1")
    with started("--record", "-", FAST, *paths(machine)) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        tree.set_text("intel-rapl:1", "energy_uj", "garbage")
        while "failures" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], "the recording has ended"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 0
    text = "".join(lines) + out
    for word in ("carol", str(tmp_path), os.uname().nodename):
        assert word not in text
    assert "<path>/sys/class/powercap/intel-rapl:0/energy_uj" in text
    (failure,) = json.loads(lines[-1])["failures"]
    assert failure["device"] == "cpu1"
    assert "energy_uj does not hold a whole number" in failure["reason"]


def test_a_killed_recording_has_every_line_that_was_written(machine: Machine, tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    with started("--record", str(file), FAST, *paths(machine)) as process:
        wait_for_lines(file, 4)
        process.kill()
        process.wait(20)
    assert len(load_recording(file).moments) >= 3
    assert {device.name for device in Replay(file, Clock()).devices} == {"cpu0", "dram0"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--record", "r", "--watch"], "--watch: '--watch --record' is not accepted"),
        (["--record", "r", "--json"], "--json: '--json --record' is not accepted"),
        (["--record", ""], "--record: '' is not accepted"),
        (["--for", "5s"], "--for: '5s' is not accepted; accepted: together with --watch or --record"),
        (["--watch", "--for", "5"], "--for: '5' is not accepted; accepted: a duration from 100ms to 30d"),
        (["--watch", "--sample.interval=5"], "--sample.interval"),
        (["--replay.file=/nowhere.jsonl"], "/nowhere.jsonl"),
    ],
)
def test_flags_that_cannot_be_are_named_with_what_is_accepted(tmp_path: Path, flags: list[str], says: str) -> None:
    result = run(*flags, cwd=tmp_path)
    assert result.returncode == 2
    assert says in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(machine: Machine, tmp_path: Path) -> None:
    result = run("--record", str(tmp_path / "none" / "r.jsonl"), *paths(machine))
    assert result.returncode == 1
    assert f"cannot be written to {tmp_path}/none/r.jsonl: No such file or directory" in result.stderr
    with Path("/dev/full").open("w") as full, started("--record", "-", *paths(machine), stdout=full) as process:
        assert process.wait(20) == 1
        assert process.stderr is not None
        assert "cannot be written to standard output: No space left on device" in process.stderr.read()


def test_the_help_says_what_a_recording_holds() -> None:
    shown = run("--help").stdout
    for part in ("a recording holds:", "no serial number", "exit codes:", "examples:", "--redfish.url"):
        assert part in shown


def test_a_recording_of_moving_counters_replays_to_the_same_energy(tmp_path: Path, in_memory: Path) -> None:
    sysfs, file, storage = in_memory / "sys", tmp_path / "r.jsonl", tmp_path / "state"
    two_sockets(sysfs, range_uj=2_000_000_000, limit_watts=200)
    with driven_tree(sysfs, "50:200:0.7"):
        recorded = run("--record", str(file), "--for=3s", FAST, f"--path.sysfs={sysfs}")
    assert recorded.returncode == 0, recorded.stderr
    moments = load_recording(file).moments
    first, last = ({row.device: row.energy or 0.0 for row in moments[n].record.readings} for n in (0, -1))
    drawn = {name: (last[name] - first[name]) % 2000.0 for name in first}
    assert set(drawn) == {"cpu0", "cpu1", "dram0", "dram1"}
    assert drawn["cpu0"] > 3 * 60
    with Exporter(f"--replay.file={file}", FAST, f"--storage.path={storage}", "--grid.region=FR") as exporter:
        exporter.wait_for_log("the recording has ended", 30)
        infos = {dict(key[1])["device"] for key in exporter.series() if key[0] == "carbon_device_info"}
        assert exporter.stop() == 0
    state = state_of(storage)
    assert infos == set(drawn)
    assert {name: mark["energy"] for name, mark in state["marks"].items()} == last
    assert {row[0]: row[3] for row in state["devices"]} == pytest.approx(drawn, rel=1e-6)
    assert set(state["gap_seconds"].values()) == {0.0}


BOARDS = tuple(
    Device(f"gpu{n}", "gpu", "nvidia", "NVIDIA", "H100", method="energy counter", bound="±5 %", period=0.1)
    for n in range(8)
)
SOURCES = (
    Source(
        "nvidia", "active", BOARDS, ("gpu3: processes cannot be listed",), ("gpu5: the board is lost",), ("reset it",)
    ),
    Source("redfish", "active", (Device("redfish", "node", "redfish", period=5.0),)),
    Source("rapl", "denied", (), (), ("energy_uj may not be read",), ("run as root",)),
    Source("model", "missing", (), (), ("nothing to model",)),
)
SEEN = {
    **{b.name: Seen("measured", 400.0, 0.0, Vitals(b.name, Watts(700.0), 0.5, 2**36, 60.0)) for b in BOARDS},
    "redfish": Seen("integrated", 4000.0, 12.5),
}


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_eight_boards_are_eight_rows_and_share_what_they_have_in_common(width: int) -> None:
    text = as_text(SOURCES, SEEN, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[1] for line in lines[1:9]] == [board.name for board in BOARDS]
    assert lines[9].split() == ["all", "3,200.0", "W"]
    assert lines[10].startswith("redfish")
    for line in (
        *("gpu0 to gpu7: H100", "how: energy counter", "bound: ±5 %", "updates: every 100 ms", "updates: every 5 s"),
        *("note: gpu3: processes cannot be listed", "trouble: gpu5: the board is lost", "→ reset it"),
        *("not allowed", "energy_uj may not be read", "→ run as root", "not here", "bound: not known"),
    ):
        assert text.count(line) == 1


def test_a_narrow_terminal_loses_columns_and_says_so() -> None:
    text = as_text(SOURCES, SEEN, 60)
    assert "TEMP" not in text.splitlines()[0]
    assert "no room for TEMP" in text
    assert "no room" not in as_text(SOURCES, SEEN, 90)


def test_a_sum_is_only_shown_where_every_device_has_watts() -> None:
    seen = {**SEEN, "gpu7": Seen("measured")}
    assert not [line for line in as_text(SOURCES, seen, 120).splitlines() if line.startswith("all")]
    assert as_json(SOURCES, {})[0]["devices"][0]["power_watts"] is None
