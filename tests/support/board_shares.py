"""Whose the energy of devices is, as an exporter's metrics tell it: joules by device and job, and parts of a while."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from support.exporter import Exporter, Series

__all__ = ["Shares", "info_of", "joules_by_job", "resolver", "until"]

JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Shares:
    """An exporter, scraped while it runs; every scrape must be conserved."""

    exporter: Exporter

    def scrape(self) -> Series:
        """The metrics now. The jobs of each device must add up to the device."""
        series = self.exporter.series()
        devices = _joules(series, "carbon_device_energy_kwh_total", "device")
        for (device,), whole in devices.items():
            jobs = joules_by_job(series, device)
            assert math.fsum(jobs.values()) == pytest.approx(whole, rel=1e-9, abs=1e-9), f"{device}: {jobs}"
        return series

    def watch(self, seconds: float) -> Series:
        """Scrape for so long; the last scrape."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.scrape()
            time.sleep(0.2)
        return self.scrape()

    def wait(self, what: Callable[[Series], bool], patience: float = 30.0) -> Series:
        """Scrape until this holds."""
        until = time.monotonic() + patience
        while not what(series := self.scrape()):
            assert time.monotonic() < until, self.exporter.text
            time.sleep(0.05)
        return series

    @staticmethod
    def between(before: Series, after: Series, device: str) -> dict[str, float]:
        """Each job's part of what a device used between two scrapes; jobs without one are left out."""
        first, last = joules_by_job(before, device), joules_by_job(after, device)
        used = {job: joules - first.get(job, 0.0) for job, joules in last.items()}
        whole = math.fsum(used.values())
        assert whole > 0, f"{device} has used nothing"
        return {job: joules / whole for job, joules in used.items() if joules / whole > 1e-6}


def joules_by_job(series: Series, device: str) -> dict[str, float]:
    """Joules of the jobs on a device, a job called `namespace/name` where it has a namespace."""
    of_all = _joules(series, "carbon_job_energy_kwh_total", "device", "job_namespace", "job_name")
    jobs = {(space, job): joules for (of, space, job), joules in of_all.items() if of == device}
    return {f"{space}/{job}" if space else job: joules for (space, job), joules in jobs.items()}


def info_of(series: Series, family: str, job: str) -> list[dict[str, str]]:
    """The labels of all series of a family of infos that are about the jobs of this name, but for the name."""
    found = (dict(labels) for name, labels in series if name == family)
    return [{key: one[key] for key in one if key != "job_name"} for one in found if one["job_name"] == job]


def resolver(series: Series, name: str) -> float | None:
    """Whether a resolver is well; None if there is none of this name."""
    return series.get(("carbon_resolver_success", frozenset({("resolver", name)})))


def until(condition: Callable[[], bool], what: str, patience: float = 30.0) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)


def _joules(series: Series, family: str, *labels: str) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for (name, values), value in series.items():
        if name == family:
            of = dict(values)
            key = tuple(of.get(label, "") for label in labels)
            found[key] = found.get(key, 0.0) + value * JOULES_PER_KWH
    return found
