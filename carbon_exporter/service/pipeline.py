"""The pipeline: the rooms joined, one tick at a time. Readings go in at one end, a snapshot comes out at the other.

The state is written before the snapshot is returned, so that nothing that was ever published can be forgotten.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from carbon_exporter.carbon.account import Account, CarbonEntry, JobKey
from carbon_exporter.carbon.grid import Grid
from carbon_exporter.config import Settings
from carbon_exporter.energy.ledger import EnergySlice, Ledger
from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.attribute import split
from carbon_exporter.jobs.base import IDLE, RESERVED, UNATTRIBUTED, Activity, Job, JobSlice, ResolverHealth
from carbon_exporter.jobs.book import JobBook
from carbon_exporter.jobs.observer import Observer
from carbon_exporter.sensors.base import Device, Host, Reading
from carbon_exporter.sensors.registry import Finding
from carbon_exporter.sensors.worker import SensorWorker, gather
from carbon_exporter.service.keeper import Keeper
from carbon_exporter.service.state import Rooms, encode, restore
from carbon_exporter.snapshot import DeviceState, SensorHealth, Snapshot, Today
from carbon_exporter.units import Grams, Joules, Watts, mean_watts

__all__ = ["Pipeline"]

_log = logging.getLogger(__name__)
_HISTORY_TICKS = 120
"""Activities that are remembered, so that a device that was silent for a while is split by what ran in that while."""
_FRESH_INTERVALS = 3.0
"""A device that gave nothing for this many intervals has no power any more."""
_OWN_SERIES = 60
"""About what the exporter says of itself, the grid and the devices; the rest of series.max is the jobs'."""


class Pipeline:
    """One node's accounting. Not for use from several threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        host: Host,
        grid: Grid,
        keeper: Keeper,
        workers: Sequence[SensorWorker],
        findings: Sequence[Finding],
    ) -> None:
        """Everything it works with; the state file is read here."""
        self.settings = settings
        self.grid = grid
        self._host = host
        self._keeper = keeper
        self._workers = tuple(workers)
        self._findings = tuple(findings)
        self._observer = Observer(host, reservations=settings.idle == "reserved")
        self._ledger = Ledger()
        self._account = Account()
        self._book = JobBook(most=settings.jobs_max, linger=settings.jobs_linger, retain=settings.jobs_retain)
        self._posted: frozenset[Job] = frozenset()
        """Jobs that something was posted to at this tick: shown once more even if they have just left."""
        self._history: deque[Activity] = deque(maxlen=_HISTORY_TICKS)
        self._latest: dict[str, EnergySlice] = {}
        self._resolvers: tuple[ResolverHealth, ...] = ()
        self._resolver_trouble: set[str] = set()
        self._started = host.wall()
        self._samples = 0
        self._today = Today(_date(self._started), Joules(0.0), Grams(0.0))
        self._boot_id = _boot_id(host)
        self._restore()

    def apply(self, settings: Settings, grid: Grid) -> None:
        """Go on with other settings from the next tick; what was used until now keeps its price."""
        self.settings = settings
        self.grid = grid
        self._observer.reservations = settings.idle == "reserved"
        self._book.linger, self._book.retain = settings.jobs_linger, settings.jobs_retain

    def tick(self) -> Snapshot:
        """Read, post, split, price, store: the next snapshot."""
        readings = gather(self._workers, deadline=min(self.settings.interval * 0.8, 2.0))
        activity = self._observe()
        slices = self._ledger.post(readings)
        parts = [part for one in slices for part in split(one, self._history, self.settings.idle)]
        if self._samples == 0:
            parts += self._zeroes()
        entries = self._account.price(parts, self.grid.region, self.grid.intensity, self.grid.pue)
        posted = self._account.turn(entries)
        self._add_to_today(posted)
        self._account.keep(self._book.remembered())
        self._latest.update({one.device.name: one for one in slices})
        self._samples += 1
        rooms = Rooms(self._ledger, self._account, self._book)
        self._keeper.save(encode(rooms, self._today, self._boot_id, now=self._host.clock(), wall=self._host.wall()))
        self._posted = frozenset(entry.key.job for entry in posted)
        return self._snapshot(readings, parts, activity)

    def _restore(self) -> None:
        state = self._keeper.load()
        if state is not None:
            if state.today.date == self._today.date:
                self._today = state.today
            rooms = Rooms(self._ledger, self._account, self._book)
            self._add_to_today(restore(rooms, state, self._boot_id, now=self._host.clock(), wall=self._host.wall()))

    def _observe(self) -> Activity | None:
        """What ran since the last tick; remembered for the split, with jobs beyond the limit folded."""
        activity = None
        procfs = ResolverHealth("processes", success=True)
        try:
            activity = self._observer.observe()
        except JobResolutionError as error:
            procfs = replace(procfs, success=False, reason=error.reason, remedy=error.remedy)
        self._resolvers = (procfs, *self._observer.health())
        for health in self._resolvers:
            self._note_trouble(health)
        if activity is not None:
            self._book.most = self._most_jobs()
            activity = self._book.admit(activity, self._observer.marked_jobs)
            self._history.append(activity)
        return activity

    def _most_jobs(self) -> int:
        """jobs.max, or fewer where their series would go beyond series.max."""
        per_job = 1 + 3 * max(1, len(self._devices()))
        return max(1, min(self.settings.jobs_max, (self.settings.series_max - _OWN_SERIES) // per_job))

    def _note_trouble(self, health: ResolverHealth) -> None:
        """Say once what a resolver cannot see, and once that it can again."""
        known = health.resolver in self._resolver_trouble
        if not health.success and not known:
            _log.warning("%s: %s; %s", health.resolver, health.reason, health.remedy)
            self._resolver_trouble.add(health.resolver)
        elif health.success and known:
            _log.info("%s: all can be seen again", health.resolver)
            self._resolver_trouble.discard(health.resolver)

    def _devices(self) -> list[Device]:
        return [device for worker in self._workers for device in worker.sensor.devices]

    def _zeroes(self) -> list[JobSlice]:
        """Nothing used yet, by those who are always there: so that their counters begin at zero."""
        now = self._host.clock()
        return [
            JobSlice(job, device, now, now, Joules(0.0)) for device in self._devices() for job in (IDLE, UNATTRIBUTED)
        ]

    def _add_to_today(self, posted: Iterable[CarbonEntry]) -> None:
        date = _date(self._host.wall())
        today = self._today if self._today.date == date else Today(date, Joules(0.0), Grams(0.0))
        joules, grams = float(today.joules), float(today.grams)
        for entry in posted:
            joules, grams = joules + entry.joules, grams + entry.grams
        self._today = Today(date, Joules(joules), Grams(grams))

    def _snapshot(self, readings: Sequence[Reading], parts: Sequence[JobSlice], activity: Activity | None) -> Snapshot:
        shown = self._book.published() | RESERVED | self._posted
        return Snapshot(
            at=self._host.wall(),
            started=self._started,
            interval=self.settings.interval,
            samples=self._samples,
            grid=self.grid,
            store=self._keeper.health,
            today=self._today,
            devices=tuple(self._device_states(readings)),
            device_totals=dict(self._account.devices),
            job_totals={key: total for key, total in self._account.jobs.items() if key.job in shown},
            job_power=self._job_power(parts),
            running={usage.job: self._observer.rules.get(usage.job, "") for usage in activity.usages}
            if activity
            else {},
            jobs_folded=self._book.folded_total,
            sensors=tuple(self._sensor_health()),
            resolvers=self._resolvers,
        )

    def _device_states(self, readings: Sequence[Reading]) -> Iterable[DeviceState]:
        now = self._host.clock()
        quality = {reading.device.name: reading.quality for reading in readings}
        for device in self._devices():
            last = self._latest.get(device.name)
            fresh = last is not None and now - last.end <= _FRESH_INTERVALS * self.settings.interval
            power = mean_watts(last.joules, last.end - last.start) if last and fresh else None
            known = last.quality if last else quality.get(device.name)
            yield DeviceState(device, known, power, self._ledger.gap_seconds.get(device.name, 0.0))

    def _job_power(self, parts: Iterable[JobSlice]) -> dict[JobKey, Watts]:
        """Each job's share of the interval that ended now."""
        keys = zip(self._account.pending, parts, strict=True)
        return {
            entry.key: mean_watts(part.joules, part.end - part.start) for entry, part in keys if part.end > part.start
        }

    def _sensor_health(self) -> Iterable[SensorHealth]:
        active = {worker.sensor.name: worker for worker in self._workers}
        for finding in self._findings:
            worker = active.get(finding.sensor)
            if worker is None:
                yield SensorHealth(finding.sensor, finding.state, reason=finding.reason, remedy=finding.remedy)
                continue
            trouble = worker.trouble
            yield SensorHealth(
                finding.sensor,
                "failed" if trouble else "active",
                tuple(device.name for device in worker.sensor.devices),
                finding.quality,
                trouble.reason if trouble else finding.reason,
                trouble.remedy if trouble else finding.remedy,
                worker.seconds,
                worker.last_sample,
                dict(worker.errors),
            )


def _date(unix_seconds: float) -> str:
    """The local day, ISO 8601."""
    return datetime.fromtimestamp(unix_seconds).astimezone().date().isoformat()


def _boot_id(host: Host) -> str:
    """The kernel's name for this boot; empty where it has none, which then counts as another boot each time."""
    try:
        return (host.procfs / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
