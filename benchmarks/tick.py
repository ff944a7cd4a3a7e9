"""Where does the CPU time of one tick go, room by room? The pipeline runs in this process, with a clock of its own."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.crowd import crowd
from benchmarks.figure import Figure, Plan
from carbon_exporter.carbon.grid import locate_grid
from carbon_exporter.carbon.static import StaticProvider
from carbon_exporter.config import Settings
from carbon_exporter.jobs.base import Activity, JobSlice
from carbon_exporter.publish.prometheus import Renderer
from carbon_exporter.sensors.base import Host, Sample
from carbon_exporter.sensors.crew import Crew
from carbon_exporter.service import find_sensors
from carbon_exporter.service.keeper import Keeper
from carbon_exporter.service.pipeline import Pipeline
from carbon_exporter.snapshot import Snapshot

__all__ = ["figures"]

_TICKS = 12
"""A minute of the default interval: what is done every 15 or 60 s falls into it as often as it should."""
_WARM_TICKS = 3
_PAUSE_SECONDS = 0.2
"""Between two ticks. Less than the real interval, so that caches are warmer than in life: `idle` tells the truth."""
_PHASES = ("read", "observe", "post, split, price, encode", "store", "snapshot", "render and gzip")


class _Stopwatch:
    """CPU time of this process by phase."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(_PHASES, 0.0)

    @contextmanager
    def of(self, phase: str) -> Iterator[None]:
        """Adds what the block takes."""
        began = time.process_time()
        try:
            yield
        finally:
            self.seconds[phase] += time.process_time() - began


class _TimedCrew(Crew):
    """Its threads' work counts too: the stopwatch is the whole process's."""

    stopwatch: _Stopwatch

    def gather(self, deadline: float) -> Sample:
        with self.stopwatch.of("read"):
            return super().gather(deadline)


class _TimedKeeper(Keeper):
    stopwatch: _Stopwatch

    def save(self, body: bytes) -> None:
        with self.stopwatch.of("store"):
            super().save(body)


class _TimedPipeline(Pipeline):
    stopwatch: _Stopwatch

    def _observe(self, sample: Sample) -> Activity | None:
        with self.stopwatch.of("observe"):
            return super()._observe(sample)

    def _snapshot(self, sample: Sample, parts: Sequence[JobSlice], activity: Activity | None) -> Snapshot:
        with self.stopwatch.of("snapshot"):
            return super()._snapshot(sample, parts, activity)


def figures(plan: Plan) -> Iterator[Figure]:
    """CPU milliseconds of a tick, the mean over a minute's ticks, whole and by phase."""
    with crowd() as around:
        runs = [_run() for _ in range(plan.runs)]
    whole = tuple(sum(run.values()) for run in runs)
    percent = 100 * statistics.median(whole) / 1000 / Settings().interval
    yield Figure("tick", whole, "ms CPU", note=f"{percent:.2f} % of one core at the default interval; {around}")
    for phase in _PHASES:
        yield Figure(f"  {phase}", tuple(run[phase] for run in runs), "ms CPU")


def _run() -> dict[str, float]:
    """Milliseconds a tick by phase."""
    watch, interval = _Stopwatch(), Settings().interval
    clock = _Clock()
    renderer = Renderer()
    renderer.note_demand("openmetrics", compressed=True)
    with tempfile.TemporaryDirectory() as folder, _pipeline(Path(folder), clock, watch) as pipeline:
        for number in range(_WARM_TICKS + _TICKS):
            if number == _WARM_TICKS:
                watch.seconds = dict.fromkeys(_PHASES, 0.0)
            clock.ahead += interval - _PAUSE_SECONDS
            time.sleep(_PAUSE_SECONDS)
            _tick(pipeline, renderer, watch)
    return {phase: 1000 * seconds / _TICKS for phase, seconds in watch.seconds.items()}


def _tick(pipeline: Pipeline, renderer: Renderer, watch: _Stopwatch) -> None:
    before = sum(watch.seconds.values())
    began = time.process_time()
    snapshot = pipeline.tick()
    whole = time.process_time() - began
    watch.seconds["post, split, price, encode"] += whole - (sum(watch.seconds.values()) - before)
    with watch.of("render and gzip"):
        renderer.render(snapshot)


class _Clock:
    """The monotonic clock, moved ahead so that a tick seems to come an interval after the last."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@contextmanager
def _pipeline(storage: Path, clock: Callable[[], float], watch: _Stopwatch) -> Iterator[Pipeline]:
    """This machine's pipeline with the stopwatch in it."""
    settings, host = Settings(), Host(clock=clock)
    _TimedCrew.stopwatch = _TimedKeeper.stopwatch = _TimedPipeline.stopwatch = watch
    sensors, findings = find_sensors(settings, host)
    keeper = _TimedKeeper(storage)
    grid = locate_grid("FR", StaticProvider(settings.scope), settings.pue, {})
    try:
        pipeline = _TimedPipeline(settings, host=host, grid=grid, keeper=keeper, sensors=(), findings=findings)
        pipeline.crew = _TimedCrew(sensors)
        yield pipeline
        pipeline.close()
    finally:
        keeper.close()
