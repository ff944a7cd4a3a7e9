"""The management controller by IPMI: messages as bytes, and the device by the kernel's ioctl calls."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ipmi_shim import Controller, answer, build
from support.other_user import needs_root, public_directory, run_as_nobody
from support.traces import Trace, burst, constant, square

from carbon_exporter.errors import SensorError, SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Host, Kind
from carbon_exporter.sensors.ipmi import ABSENT_REMEDY, OPEN_REMEDY, probe
from carbon_exporter.sensors.ipmi_dcmi import parse_power

NOTHING: frozenset[Kind] = frozenset()
PROBED = """
    try:
        probe(host, frozenset())
    except Exception as error:
        said([type(error).__name__, error.reason, error.remedy])
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def controller(library: Path, tmp_path: Path) -> Controller:
    return Controller(library, tmp_path)


def data_of(line: str) -> bytes:
    return bytes.fromhex(line.partition(" ")[2])


def test_an_answer_holds_watts() -> None:
    assert parse_power(data_of(answer(300))) == 300.0
    assert parse_power(data_of(answer(65534)) + b"\0") == 65534.0


@pytest.mark.parametrize("code", [0xC1, 0xC2, 0xC7, 0xC9, 0xCC, 0xD6])
def test_a_controller_without_the_command_is_no_meter(code: int) -> None:
    with pytest.raises(SensorUnavailable, match=f"code {code:#04x}"):
        parse_power(bytes((code,)))


@pytest.mark.parametrize("code", [0xC0, 0xC3, 0xD4, 0xD5, 0xFF, 0x80])
def test_a_controller_that_is_busy_or_fails_is_a_failure(code: int) -> None:
    with pytest.raises(SensorReadError, match=f"code {code:#04x}"):
        parse_power(bytes((code, 0xDC)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (data_of(answer(0)), "0 W, which is no reading"),
        (data_of(answer(65535)), "65535 W, which is no reading"),
        (data_of(answer(300, state=0)), "not active"),
        (data_of(answer(300))[:-1], "18 bytes is no DCMI power reading"),
        (b"\0\xdd" + data_of(answer(300))[2:], "no DCMI power reading"),
        (b"", "could not make an answer"),
    ],
)
def test_what_is_no_reading_is_a_failure(data: bytes, reason: str) -> None:
    with pytest.raises(SensorReadError, match=reason):
        parse_power(data)


@given(st.one_of(st.binary(max_size=64), st.binary(max_size=30).map(lambda data: b"\0\xdc" + data)))
def test_any_bytes_are_power_or_one_of_our_errors(data: bytes) -> None:
    with suppress(SensorError):
        assert 0 < parse_power(data) < 65535


@pytest.mark.parametrize("device", ["ipmi0", "ipmi/0", "ipmidev/0"])
def test_the_device_is_asked_by_ioctl_with_the_message_of_dcmi(controller: Controller, device: str) -> None:
    controller.script(answer(300))
    program = """
        sensor = probe(host, frozenset({"node"}))
        (device,) = sensor.devices
        said([device.name, device.kind, device.method, sensor.quality.value, sensor.sampling_period])
    """
    name, kind, method, quality, period = controller.run(program, device)
    assert (name, kind, quality, period) == ("ipmi", "node", "integrated", 2.0)
    assert str(controller.root / device) in method
    assert controller.log() == ["c f 0 8 2c 02 dc 01 00 00"]


def test_power_is_integrated_between_readings_and_the_first_is_a_mark(controller: Controller) -> None:
    controller.script(answer(300), answer(200), answer(400), answer(400), answer(500))
    program = """
        sensor = probe(host, frozenset())
        said_of = [facts(sensor.read())]
        for sampled in (False, True):
            clock.now += 2
            sensor.sample() if sampled else said_of.append(facts(sensor.read()))
        clock.now += 3
        said_of.append(facts(sensor.read()))
        said(said_of)
    """
    first, second, third = controller.run(program)
    assert first["readings"] == [[None, None, 1000.0]]
    assert second["readings"] == [[300.0, 1000.0, 1002.0]]
    assert third["readings"] == [[(400 * 2 + 450 * 3) / 5, 1002.0, 1007.0]]
    assert [one["failures"] for one in (first, second, third)] == [[], [], []]


def test_it_is_never_asked_twice_within_a_second(controller: Controller) -> None:
    controller.script(answer(300))
    program = """
        sensor = probe(host, frozenset())
        for _ in range(40):
            sensor.sample()
            sensor.read()
            clock.now += 0.25
        said(None)
    """
    controller.run(program)
    assert len(controller.log()) == 1 + 10


def test_events_and_answers_to_others_are_passed_over(controller: Controller) -> None:
    controller.script(answer(300, verb="event"), answer(200, verb="other"))
    assert controller.run("said([ask(root / 'ipmi0'), ask(root / 'ipmi0')])") == [300.0, 200.0]


@pytest.mark.parametrize(
    ("line", "kind", "reason"),
    [
        ("answer c1", "SensorUnavailable", "does not know the command"),
        ("answer c0", "SensorUnavailable", "is busy"),
        (answer(0), "SensorUnavailable", "0 W"),
        ("send 22", "SensorUnavailable", "does not take an IPMI message: Invalid argument"),
        ("receive 5", "SensorUnavailable", "does not take an IPMI message: Input/output error"),
        ("open 6", "SensorUnavailable", "cannot be opened: No such device or address"),
        ("open 13", "SensorPermission", "may not be opened: Permission denied"),
        ("open 1", "SensorPermission", "may not be opened: Operation not permitted"),
    ],
)
def test_a_controller_that_gives_no_reading_at_the_start_is_no_meter(
    controller: Controller, line: str, kind: str, reason: str
) -> None:
    controller.script(line)
    name, said, remedy = controller.run(PROBED)
    assert name == kind
    assert reason in said
    assert remedy == (OPEN_REMEDY if kind == "SensorPermission" else "")


def test_a_silent_controller_is_given_up_after_the_time_out(controller: Controller) -> None:
    controller.script("silent")
    program = """
        try:
            ask(root / "ipmi0", 0.2)
        except SensorReadError as error:
            said(error.reason)
    """
    assert "has not answered in time" in controller.run(program)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("answer c0", "is busy"),
        ("answer c1", "does not know the command"),
        (answer(0), "0 W"),
        (answer(65535), "65535 W"),
        (answer(300, state=0), "not active"),
        ("answer 00 dc", "2 bytes"),
        ("send 16", "Device or resource busy"),
        ("receive 90", "Message too long"),
        ("open 19", "No such device"),
        ("open 13", "Permission denied"),
    ],
)
def test_a_failure_costs_its_own_time_and_no_energy_is_invented(controller: Controller, line: str, reason: str) -> None:
    program = f"""
        script({answer(100)!r})
        sensor = probe(host, frozenset())
        sensor.read()
        results = []
        for line in ({line!r}, {line!r}, {answer(100)!r}, {answer(100)!r}):
            script(line)
            clock.now += 10
            results.append(facts(sensor.read()))
        said(results)
    """
    first, second, third, fourth = controller.run(program)
    for failed in (first, second):
        assert failed["readings"] == []
        ((device, said, _),) = failed["failures"]
        assert device == "ipmi"
        assert reason in said
    assert third == {"readings": [[None, None, 1030.0]], "failures": []}
    assert fourth == {"readings": [[100.0, 1030.0, 1040.0]], "failures": []}


@pytest.mark.parametrize("trace", [constant(700.0), square(400.0, 1500.0, 40.0), burst(400.0, 1200.0, 15.0, 60.0)])
def test_a_known_trace_is_integrated_within_three_percent(controller: Controller, trace: Trace) -> None:
    program = f"""
        import random
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from support.traces import Trace
        from support.ipmi_shim import answer
        trace, rng, joules = {trace!r}, random.Random(3), 0.0
        def move():
            script(answer(round(trace.mean(clock.now, 1.0))))
        move()
        sensor = probe(host, frozenset())
        end = clock.now + 300
        for tick in range(11):
            while clock.now < 1000 + 30 * tick:
                clock.now = min(clock.now + 2 * rng.uniform(0.5, 1.5), 1000 + 30 * tick)
                move()
                sensor.sample()
            readings = sensor.read().readings
            joules += sum((r.at - r.since) * r.power for r in readings if r.power is not None)
        said(joules)
    """
    assert controller.run(program) == pytest.approx(trace.joules(1000.0, 1300.0), rel=0.03)


def test_without_a_device_there_is_no_meter(tmp_path: Path) -> None:
    with pytest.raises(SensorUnavailable, match="ipmi0 does not exist") as caught:
        probe(Host(devfs=tmp_path), NOTHING)
    assert caught.value.remedy == ABSENT_REMEDY


def test_a_file_that_is_no_ipmi_device_is_no_meter(tmp_path: Path) -> None:
    (tmp_path / "ipmi0").write_text("")
    with pytest.raises(SensorUnavailable, match="Inappropriate ioctl"):
        probe(Host(devfs=tmp_path), NOTHING)


@needs_root
def test_a_device_for_root_only_tells_the_udev_rule() -> None:
    with public_directory() as directory:
        (directory / "ipmi0").write_text("")
        (directory / "ipmi0").chmod(0o600)

        def refused() -> None:
            with pytest.raises(SensorPermission, match="may not be opened") as caught:
                probe(Host(devfs=directory), NOTHING)
            assert "udev rule" in caught.value.remedy

        run_as_nobody(refused)
