"""`@track`: with and without arguments, plain and async; the function stays what it was."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Iterator

import pytest
from support.span_engine import SteadyOdometer, names, plain, tracked

from carbon_exporter import CarbonRun, track
from carbon_exporter.errors import ConfigError


@track
def bare(rows: list[int], *, scale: int = 1) -> int:
    """Adds up."""
    run = CarbonRun.current()
    assert run is not None
    for _ in run.epochs(range(2)):
        pass
    return scale * sum(rows)


@track("nightly", model="m", summary="none")
def named() -> str:
    run = CarbonRun.current()
    return run.name if run else ""


@track(summary="none")
async def waits() -> bool:
    await asyncio.sleep(0)
    return CarbonRun.current() is not None


def test_a_tracked_function_is_the_same_function(capsys: pytest.CaptureFixture[str]) -> None:
    with tracked() as tracker:
        assert bare([1, 2], scale=3) == 9
        tracker.finish()
        assert names(plain(tracker).account) == ["epoch", "run"]
    assert (bare.__name__, bare.__doc__) == ("bare", "Adds up.")
    assert list(inspect.signature(bare).parameters) == ["rows", "scale"]
    assert "2 epochs" in capsys.readouterr().err


def test_options_are_those_of_a_run() -> None:
    with tracked():
        assert named() == "nightly"
    with pytest.raises(ConfigError, match="budget"):
        track(budget="much")


def test_an_async_function_is_tracked_until_it_is_done() -> None:
    with tracked():
        assert asyncio.run(waits())
    assert inspect.iscoroutinefunction(waits)


def test_a_tracked_task_that_ends_keeps_no_other_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    gaps = []

    @track(summary="line")
    async def work() -> None:
        await asyncio.sleep(0.02)

    async def heartbeat() -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - began)

    async def both() -> None:
        beats = asyncio.create_task(heartbeat())
        await asyncio.gather(work(), work())
        await asyncio.sleep(0.02)
        beats.cancel()

    with tracked(SteadyOdometer(lag=60.0)):
        asyncio.run(both())
    assert capsys.readouterr().err.count("carbon-exporter: run ") == 2
    assert max(gaps) < 0.3, "seconds; readings were not waited for"


def test_what_it_raises_is_its_own() -> None:
    @track(summary="none")
    def fails() -> None:
        raise KeyError("mine")

    with tracked(), pytest.raises(KeyError, match="mine"):
        fails()


def test_what_runs_in_pieces_is_refused_with_the_remedy() -> None:
    def pieces() -> Iterator[int]:
        yield 1

    with pytest.raises(TypeError, match=r"with CarbonRun\(\)"):
        track(pieces)
    with pytest.raises(TypeError, match="functions"):
        track(int)
