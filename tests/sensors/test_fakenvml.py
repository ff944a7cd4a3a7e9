"""The fake NVML is honest: what it shows through the real pynvml is what the test said, and what the documents say."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.fakenvml import OLD_DRIVER, Board, FakeNvml, Process, Slice, environment, load_in_process, unload
from support.traces import History, Trace, burst, constant, square

pynvml: Any = importlib.import_module("pynvml")  # has no types
TICK = 0.03
"""Seconds between two refreshes where a test wants to be quick."""


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeNvml]:
    machine = FakeNvml(tmp_path / "nvml", boards=3)
    load_in_process(machine)
    pynvml.nvmlInit()
    yield machine
    unload()


def refused(code: int, call: Callable[[], object]) -> None:
    with pytest.raises(pynvml.NVMLError) as error:
        call()
    assert error.value.value == code


def show(handle: object, *fields: int | tuple[int, int]) -> list[tuple[int, float]]:
    """Return code and value of each field, in watts and joules."""
    values = pynvml.nvmlDeviceGetFieldValues(handle, list(fields))
    return [(v.nvmlReturn, (v.value.ullVal if v.valueType == 3 else v.value.uiVal) / 1e3) for v in values]


@pytest.mark.parametrize(
    ("trace", "joules"),
    [(constant(200), 2000.0), (square(50, 350, 0.7), 2030.0), (burst(100, 600, 0.2, 1.5), 1700.0)],
)
def test_a_trace_and_its_integral_are_the_same_thing(trace: Trace, joules: float) -> None:
    assert trace.joules(0, 10) == pytest.approx(joules)
    step = 1e-3
    by_sum = sum(trace.power((n + 0.5) * step) * step for n in range(-2500, 10_000))
    assert trace.joules(-2.5, 10) == pytest.approx(by_sum, rel=1e-3)
    later = History(trace)
    later.change(4.0, constant(10))
    assert later.joules(1, 6) == pytest.approx(trace.joules(1, 4) + 20)
    assert [later.power(3.99), later.power(4.0)] == [trace.power(3.99), 10]


def test_the_counter_is_the_exact_integral_as_of_the_last_refresh(fake: FakeNvml) -> None:
    for board, trace in zip(
        fake.boards, (constant(250), square(100, 500, 0.14), burst(80, 600, 0.02, 0.1)), strict=True
    ):
        board.refresh(0.0)
        handle = pynvml.nvmlDeviceGetHandleByIndex(board.slot)
        start, first = time.monotonic(), pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        board.draw(trace)
        for _ in range(5):
            time.sleep(0.05)
            before = time.monotonic()
            mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - first
            after = time.monotonic()
            least, most = board.true_joules(start, before), board.true_joules(start, after)
            assert least - 0.05 <= mj / 1e3 <= most + 0.05


def test_registers_stand_still_between_two_refreshes(fake: FakeNvml) -> None:
    board = fake.boards[0]
    board.refresh(TICK)
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    seen: dict[float, float] = {}
    until = time.monotonic() + 20
    while len(seen) < 5 and time.monotonic() < until:
        before = time.monotonic()
        joules = show(handle, 83)[0][1]
        if before // TICK == time.monotonic() // TICK:
            assert seen.setdefault(before // TICK, joules) == joules
        time.sleep(TICK / 10)
    values = [seen[tick] for tick in sorted(seen)]
    assert len(values) == 5
    assert values == sorted(set(values))


def test_the_average_is_of_one_second_and_the_instant_is_not(fake: FakeNvml) -> None:
    board = fake.boards[0]
    board.refresh(0.0)
    board.square(100, 500, 0.25)
    time.sleep(1.1)
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    looks = []
    for _ in range(40):
        looks.append([watts for _, watts in show(handle, 185, 186)] + [pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3])
        time.sleep(0.013)
    assert {average for average, _, _ in looks} == {300.0}
    assert {instant for _, instant, _ in looks} == {100.0, 500.0}
    assert {usage for _, _, usage in looks} == {100.0, 500.0}
    board.averaging()
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 300_000
    assert show(handle, 185, 186) == [(0, 300.0), (3, 0.0)]


def test_a_counter_can_be_set_reset_shifted_and_wrong(fake: FakeNvml) -> None:
    board = fake.boards[1]
    board.refresh(0.0)
    handle = pynvml.nvmlDeviceGetHandleByIndex(1)

    def joules() -> float:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3

    board.counter(77)
    assert joules() == 77
    board.counter(None)
    assert joules() >= 1e9
    board.shift_counter(-2e8)
    assert 8e8 <= joules() < 9e8
    board.reset_counter()
    assert joules() < 100
    board.without_counter()
    refused(3, joules)
    assert show(handle, 83, 191, 186) == [(3, 0), (3, 0), (0, 100)]


def test_a_module_answers_by_scope(fake: FakeNvml) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert show(handle, (186, 0), (186, 1)) == [(0, 100.0), (3, 0.0)]
    fake.boards[0].module(80.0)
    assert show(handle, (186, 0), (186, 1)) == [(3, 0.0), (0, 180.0)]


def test_errors_hit_their_board_and_family_only(fake: FakeNvml) -> None:
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(3)]
    fake.boards[0].error(15)
    refused(15, lambda: pynvml.nvmlDeviceGetPowerUsage(handles[0]))
    refused(15, lambda: pynvml.nvmlDeviceGetHandleByIndex(0))
    fake.boards[1].error(999, "energy")
    refused(999, lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handles[1]))
    assert [code for code, _ in show(handles[1], 83, 186, 190)] == [999, 0, 0]
    fake.boards[1].error(4, "util")
    refused(4, lambda: pynvml.nvmlDeviceGetUtilizationRates(handles[1]))
    assert [code for code, _ in show(handles[2], 83, 186, 190)] == [0, 0, 0]
    fake.clear()
    assert [code for code, _ in show(handles[0], 83, 186, 190)] == [0, 0, 0]
    assert pynvml.nvmlDeviceGetUtilizationRates(handles[1]).gpu == 0


def test_a_hang_blocks_its_board_until_it_is_over(fake: FakeNvml) -> None:
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(2)]
    fake.boards[0].hang(60)
    done = threading.Event()

    def look() -> None:
        pynvml.nvmlDeviceGetPowerUsage(handles[0])
        done.set()

    threading.Thread(target=look, daemon=True).start()
    assert not done.wait(0.1)
    assert pynvml.nvmlDeviceGetPowerUsage(handles[1]) == 100_000
    pynvml.nvmlDeviceGetHandleByIndex(0)
    fake.clear()
    assert done.wait(20)


def test_handles_of_an_ended_session_are_stale_and_crash_nothing(fake: FakeNvml) -> None:
    old = pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlInit()
    pynvml.nvmlShutdown()
    assert pynvml.nvmlDeviceGetIndex(old) == 0
    pynvml.nvmlShutdown()
    refused(1, lambda: pynvml.nvmlDeviceGetIndex(old))
    refused(1, pynvml.nvmlDeviceGetCount)
    refused(1, pynvml.nvmlShutdown)
    pynvml.nvmlInit()
    refused(2, lambda: pynvml.nvmlDeviceGetIndex(old))
    new = pynvml.nvmlDeviceGetHandleByIndex(0)
    fake.end_sessions()
    refused(1, lambda: pynvml.nvmlDeviceGetIndex(new))
    pynvml.nvmlInit()
    refused(2, lambda: pynvml.nvmlDeviceGetIndex(new))
    assert pynvml.nvmlDeviceGetCount() == 3


def test_a_session_can_fail_at_its_start_and_later(fake: FakeNvml) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    fake.session_error(18)
    refused(18, lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    refused(18, pynvml.nvmlInit)
    fake.session_error(0)
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 100_000


def test_boards_come_and_go_and_keep_their_uuids(fake: FakeNvml) -> None:
    def uuids() -> list[str]:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        return [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]

    first, second, third = (board.uuid for board in fake.boards)
    gone = pynvml.nvmlDeviceGetHandleByUUID(second)
    fake.remove(1, code=28)
    assert uuids() == [first, third]
    refused(28, lambda: pynvml.nvmlDeviceGetPowerUsage(gone))
    refused(6, lambda: pynvml.nvmlDeviceGetHandleByUUID(second))
    fake.restore(1)
    assert uuids() == [first, second, third]


def test_processes_stand_in_the_list_of_their_kind(fake: FakeNvml) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    lists = (
        pynvml.nvmlDeviceGetComputeRunningProcesses,
        pynvml.nvmlDeviceGetGraphicsRunningProcesses,
        pynvml.nvmlDeviceGetMPSComputeRunningProcesses,
    )
    assert [call(handle) for call in lists] == [[], [], []]
    fake.boards[0].processes(
        [Process(11, memory=None), Process(12, sm=30), Process(13, kind="graphics"), Process(14, sm=5, kind="mps")]
    )
    assert [[one.pid for one in call(handle)] for call in lists] == [[11, 12], [13], [14]]
    assert [one.usedGpuMemory for one in lists[0](handle)] == [None, 1 << 30]


def test_samples_of_utilisation_are_new_ones_of_those_who_computed(fake: FakeNvml) -> None:
    board, handle = fake.boards[0], pynvml.nvmlDeviceGetHandleByIndex(0)
    refused(6, lambda: pynvml.nvmlDeviceGetProcessUtilization(handle, 0))
    board.samples(0.05)
    board.processes([Process(11), Process(12, sm=30), Process(14, sm=5, kind="mps")])
    samples = pynvml.nvmlDeviceGetProcessUtilization(handle, 0)
    assert [(sample.pid, sample.smUtil) for sample in samples] == [(12, 30), (14, 5)]
    seen = samples[0].timeStamp
    assert abs(seen / 1e6 - time.time()) < 60
    refused(6, lambda: pynvml.nvmlDeviceGetProcessUtilization(handle, seen + 3600_000_000))
    time.sleep(0.06)
    assert pynvml.nvmlDeviceGetProcessUtilization(handle, seen)[0].timeStamp > seen
    board.samples(0.05, code_if_none=0)
    refused(0, lambda: pynvml.nvmlDeviceGetProcessUtilization(handle, seen + 3600_000_000))


def test_slices_have_processes_and_no_power(fake: FakeNvml) -> None:
    board, parent = fake.boards[0], pynvml.nvmlDeviceGetHandleByIndex(0)
    board.mig([Slice(7), Slice(2, "3g.40gb", 3, 60)])
    board.processes([Process(11, gi=7, ci=0), Process(12, gi=2, ci=0)])
    assert pynvml.nvmlDeviceGetMigMode(parent) == [1, 1]
    slices = [pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, index) for index in range(2)]
    refused(6, lambda: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, 2))
    assert [pynvml.nvmlDeviceGetGpuInstanceId(part) for part in slices] == [7, 2]
    assert [pynvml.nvmlDeviceGetAttributes_v2(part).gpuInstanceSliceCount for part in slices] == [1, 3]
    assert pynvml.nvmlDeviceGetName(slices[1]) == "NVIDIA H100 80GB HBM3 MIG 3g.40gb"
    assert pynvml.nvmlDeviceGetUUID(slices[0]) != pynvml.nvmlDeviceGetUUID(slices[1])
    for call in (pynvml.nvmlDeviceGetTotalEnergyConsumption, pynvml.nvmlDeviceGetPowerUsage):
        refused(3, partial(call, slices[0]))
    refused(3, lambda: pynvml.nvmlDeviceGetUtilizationRates(parent))
    refused(3, lambda: pynvml.nvmlDeviceGetProcessUtilization(parent, 0))
    of_all = pynvml.nvmlDeviceGetComputeRunningProcesses(parent)
    assert [(one.pid, one.gpuInstanceId) for one in of_all] == [(11, 7), (12, 2)]
    assert [one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses(slices[1])] == [12]
    assert pynvml.nvmlDeviceGetGpuInstanceProfileInfo(parent, 4, version=1).multiprocessorCount == 132
    board.mig([Slice(7)])
    refused(2, lambda: pynvml.nvmlDeviceGetGpuInstanceId(slices[1]))


def busy(board: Board, gi: int | None) -> float:
    """Per cent by GPM of a board or of an instance."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(board.slot)
    get = pynvml.c_nvmlGpmMetricsGet_t()
    get.version, get.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, 1
    get.metrics[0].metricId = pynvml.NVML_GPM_METRIC_SM_UTIL
    samples = [pynvml.nvmlGpmSampleAlloc() for _ in range(2)]
    for sample in samples:
        if gi is None:
            pynvml.nvmlGpmSampleGet(handle, sample)
        else:
            pynvml.nvmlGpmMigSampleGet(handle, gi, sample)
    get.sample1, get.sample2 = samples
    pynvml.nvmlGpmMetricsGet(get)
    for sample in samples:
        pynvml.nvmlGpmSampleFree(sample)
    assert get.metrics[0].nvmlReturn == 0
    return float(get.metrics[0].value)


def test_gpm_tells_how_busy_a_board_and_a_slice_are(fake: FakeNvml) -> None:
    board, handle = fake.boards[2], pynvml.nvmlDeviceGetHandleByIndex(2)
    assert pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice == 0
    board.gpm()
    board.busy(40)
    assert pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice == 1
    assert busy(board, None) == 40.0
    board.mig([Slice(7, busy=90.0), Slice(8, busy=12.5)])
    assert busy(board, 8) == 12.5


def test_every_call_is_counted_for_its_board_and_family(fake: FakeNvml) -> None:
    before, family = fake.calls, dict(fake.boards[1].calls)
    handle = pynvml.nvmlDeviceGetHandleByIndex(1)
    show(handle, 83, 186)
    pynvml.nvmlDeviceGetMemoryInfo(handle)
    pynvml.nvmlDeviceGetCount()
    grown = {name: count - family[name] for name, count in fake.boards[1].calls.items() if count > family[name]}
    assert grown == {"identity": 1, "fields": 1, "memory": 1}
    assert fake.calls - before == 4
    assert sum(fake.boards[0].calls.values()) == 0


def test_a_forked_child_has_no_session(fake: FakeNvml) -> None:
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    code = (
        "import os, pynvml as n; n.nvmlInit(); h = n.nvmlDeviceGetHandleByIndex(0); child = os.fork()\n"
        "try: n.nvmlDeviceGetPowerUsage(h); answer = 0\n"
        "except n.NVMLError as e: answer = e.value\n"
        "if not child: n.nvmlInit(); n.nvmlDeviceGetHandleByIndex(0); os._exit(answer)\n"
        "print(answer, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    env = {**os.environ, **environment(fake)}
    assert subprocess.check_output([sys.executable, "-c", code], env=env, text=True).split() == ["0", "1"]
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 100_000


def test_an_old_driver_lacks_functions(fake: FakeNvml) -> None:
    code = (
        "import pynvml as n; n.nvmlInit(); h = n.nvmlDeviceGetHandleByIndex(0); print(n.nvmlDeviceGetPowerUsage(h))\n"
        "try: n.nvmlDeviceGetFieldValues(h, [83])\n"
        "except n.NVMLError as e: print(e.value)"
    )
    env = {**os.environ, **environment(fake, without=OLD_DRIVER)}
    assert subprocess.check_output([sys.executable, "-c", code], env=env, text=True).split() == ["100000", "13"]
