"""The account: energy priced when it was used, and the totals of every job and device.

Entries are announced before they are posted: a job that is new has its counters at zero in the exposition that first
names it, and its energy one interval later. So a scraper sees the step, and in every exposition the jobs' totals add
up to the devices'.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from carbon_exporter.carbon.base import Intensity
from carbon_exporter.jobs.base import RESERVED, Job, JobSlice
from carbon_exporter.sensors.base import Kind
from carbon_exporter.units import Grams, Joules, grams_emitted

__all__ = ["Account", "CarbonEntry", "DeviceKey", "JobKey", "JobTotal"]


class DeviceKey(NamedTuple):
    """A device in a region: what a device's counter is labelled by."""

    device: str
    kind: Kind
    region: str


class JobKey(NamedTuple):
    """A job on a device in a region: what a job's counters are labelled by."""

    job: Job
    device: DeviceKey


class CarbonEntry(NamedTuple):
    """Energy and what it emitted, priced at the intensity of the time it was used."""

    key: JobKey
    joules: Joules
    grams: Grams


class JobTotal(NamedTuple):
    """What a job has used and emitted since its counters began. Both only ever grow."""

    joules: Joules
    grams: Grams


_NOTHING = JobTotal(Joules(0.0), Grams(0.0))


class Account:
    """Totals by job and by device. Not for use from several threads."""

    def __init__(self) -> None:
        """Start at zero; `restore` puts an earlier life's totals back."""
        self.jobs: dict[JobKey, JobTotal] = {}
        self.devices: dict[DeviceKey, Joules] = {}
        self.pending: tuple[CarbonEntry, ...] = ()
        """Announced and not yet posted."""

    def restore(
        self, jobs: dict[JobKey, JobTotal], devices: dict[DeviceKey, Joules], pending: Iterable[CarbonEntry]
    ) -> tuple[CarbonEntry, ...]:
        """Go on from an earlier life; what was pending then is posted now, and returned."""
        self.jobs, self.devices, self.pending = dict(jobs), dict(devices), tuple(pending)
        return self.turn(())

    def price(self, slices: Iterable[JobSlice], region: str, intensity: Intensity, pue: float) -> list[CarbonEntry]:
        """Entries for slices used while `intensity` (g/kWh) and `pue` (>= 1) were in force."""
        keys: dict[str, DeviceKey] = {}
        entries, rate = [], intensity.grams_per_kwh
        for job, device, _, _, joules in slices:
            key = keys.get(device.name)
            if key is None:
                key = keys[device.name] = DeviceKey(device.name, device.kind, region)
            entries.append(CarbonEntry(JobKey(job, key), joules, grams_emitted(joules, rate, pue)))
        return entries

    def turn(self, entries: Iterable[CarbonEntry]) -> tuple[CarbonEntry, ...]:
        """Post what is pending and announce `entries`; returns what was posted."""
        posted, self.pending = self.pending, tuple(entries)
        for key, joules, grams in posted:
            if joules > 0:  # announcing has made the counters already
                self._post(key, joules, grams)
        last = None
        for key, _, _ in self.pending:
            if key not in self.jobs:
                self.jobs[key] = _NOTHING
            if key.device is not last:  # a device's entries follow each other
                last = key.device
                self.devices.setdefault(last, Joules(0.0))
        return posted

    def keep(self, jobs: Collection[Job]) -> None:
        """Forget the totals of all other jobs; the devices' stay. Reserved names and pending ones always stay."""
        wanted = {*jobs, *RESERVED, *[key.job for key, _, _ in self.pending]}
        if not wanted.issuperset([job for job, _ in self.jobs]):
            self.jobs = {key: total for key, total in self.jobs.items() if key.job in wanted}

    def _post(self, key: JobKey, joules: Joules, grams: Grams) -> None:
        old_joules, old_grams = self.jobs.get(key, _NOTHING)
        self.jobs[key] = JobTotal(Joules(old_joules + joules), Grams(old_grams + grams))
        self.devices[key.device] = Joules(self.devices.get(key.device, 0.0) + joules)
