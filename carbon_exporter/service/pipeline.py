"""The pipeline: the rooms joined, one tick at a time. Readings go in at one end, a snapshot comes out at the other.

The state is written before the snapshot is returned, so that nothing that was ever published can be forgotten.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from carbon_exporter.carbon.account import Account, CarbonEntry
from carbon_exporter.carbon.grid import Grid
from carbon_exporter.config import Settings
from carbon_exporter.energy.ledger import EnergySlice, Ledger
from carbon_exporter.energy.node import NodeMeters
from carbon_exporter.errors import JobResolutionError, SensorOutdated
from carbon_exporter.jobs.attribute import split
from carbon_exporter.jobs.base import IDLE, RESERVED, UNATTRIBUTED, Activity, Job, JobSlice, ResolverHealth
from carbon_exporter.jobs.boards import Boards
from carbon_exporter.jobs.book import JobBook
from carbon_exporter.jobs.namer import Namer
from carbon_exporter.jobs.observer import Observer
from carbon_exporter.jobs.privacy import Privacy
from carbon_exporter.jobs.remainder import Remainder
from carbon_exporter.jobs.roll import JobRoll
from carbon_exporter.sensors.base import Device, Host, Occupancy, Quality, Sample, Sensor
from carbon_exporter.sensors.crew import Crew
from carbon_exporter.sensors.lookout import Lookout
from carbon_exporter.sensors.registry import Finding
from carbon_exporter.service.keeper import Keeper
from carbon_exporter.service.picture import Draw, device_states, draws, job_power, node_states, sensor_health
from carbon_exporter.service.spans import SpanBook, SpanLimits
from carbon_exporter.service.state import Rooms, encode, restore
from carbon_exporter.snapshot import Snapshot, Today
from carbon_exporter.units import Grams, Joules

__all__ = ["Pipeline"]

_log = logging.getLogger(__name__)
_HISTORY_TICKS = 120
"""Activities that are remembered, so that a device that was silent for a while is split by what ran in that while."""
_FRESH_INTERVALS = 3.0
"""A device that gave nothing for this many intervals has no power any more."""
_OWN_SERIES = 60
"""About what the exporter says of itself and the grid; the rest of series.max is the devices' and the jobs'."""
_DEVICE_SERIES = 9
_METER_TICKS = 6
"""By then a whole-node meter has given its first reading, or does not work."""


class Pipeline:
    """One node's accounting. Not for use from several threads."""

    def __init__(
        self,
        settings: Settings,
        *,
        host: Host,
        grid: Grid,
        keeper: Keeper,
        sensors: Iterable[Sensor],
        findings: Sequence[Finding],
        lookout: Lookout | None = None,
        namer: Namer | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        """Everything it works with; the state file is read here, and the sensors' workers start.

        Without a `lookout` the sensors stay as they are; without a `namer` only paths and environments name jobs.
        """
        self.settings = settings
        self.grid = grid
        self.crew = Crew(sensors, host.wall)
        self._host = host
        self._keeper = keeper
        self._lookout = lookout
        self._findings = tuple(findings)
        self._privacy = privacy or Privacy()
        self.namer = namer or Namer()
        self.observer = Observer(host, reservations=settings.idle == "reserved", namer=self.namer)
        self.spans = SpanBook(_span_limits(settings))
        self.slices: Sequence[EnergySlice] = ()
        """What the last tick found, whole-node meters left out."""
        self.qualities: Mapping[str, Quality] = {}
        """How the last reading of each device was got."""
        self.occupancies: tuple[Occupancy, ...] = ()
        """Who was on the boards when they last told."""
        self._ledger = Ledger()
        self._account = Account()
        self._book = JobBook(
            most=settings.jobs_max, linger=settings.jobs_linger, retain=settings.jobs_retain, privacy=self._privacy
        )
        self._roll = JobRoll(self._privacy)
        self._boards = Boards()
        self._nodes = NodeMeters()
        self._remainder = Remainder(settings.remainder) if settings.remainder else None
        self._posted: frozenset[Job] = frozenset()
        """Jobs that something was posted to at this tick: shown once more even if they have just left."""
        self._history: deque[Activity] = deque(maxlen=_HISTORY_TICKS)
        self._latest: dict[str, Draw] = {}
        self._resolvers: tuple[ResolverHealth, ...] = ()
        self._resolver_trouble: set[str] = set()
        self._started = host.wall()
        self._samples = 0
        self._today = Today(_date(self._started), Joules(0.0), Grams(0.0))
        self._boot_id = _boot_id(host)
        self._restore()

    def apply(self, settings: Settings, grid: Grid) -> None:
        """Go on with other settings from the next tick; what was used until now keeps its price.

        Sensors are looked for again: what they were missing may have been mended.
        """
        if self._lookout is not None:
            self._lookout.look_soon()
        self.settings = settings
        self.grid = grid
        self.observer.reservations = settings.idle == "reserved"
        self._book.linger, self._book.retain = settings.jobs_linger, settings.jobs_retain
        self.spans.limits = _span_limits(settings)

    def tick(self) -> Snapshot:
        """Read, post, split, price, store: the next snapshot."""
        self._look_out()
        sample = self.crew.gather(deadline=min(self.settings.interval * 0.8, 2.0))
        self.qualities = {**self.qualities, **{reading.device.name: reading.quality for reading in sample.readings}}
        activity = self._observe(sample)
        slices = self._ledger.post(sample.readings)
        self._nodes.announce(self.crew.devices)
        parts = self._split(slices)
        if self._samples == 0:
            parts += self._zeroes()
        entries = self._account.price(parts, self.grid.region, self.grid.intensity, self.grid.pue)
        posted = self._account.turn(entries)
        self._add_to_today(posted)
        self._account.keep(self._book.remembered())
        self._roll.call(self.observer.names, self._book.published())
        self.spans.turn(self._host.clock())
        self._samples += 1
        self.save()
        self._posted = frozenset([key.job for key, _, _ in posted])
        return self._snapshot(sample, parts, activity)

    def save(self) -> bool:
        """Write the state as it is now; whether it is as safe as the settings ask for."""
        self._keeper.save(
            encode(self._rooms(), self._today, self._boot_id, now=self._host.clock(), wall=self._host.wall())
        )
        return self.is_safe

    @property
    def is_safe(self) -> bool:
        """Whether the last state was written, or none is to be."""
        return self._keeper.health.state != "failing"

    def shows(self, job: Job) -> bool:
        """Whether a job may be published by name, and is not beyond the limit."""
        return self._privacy.shows(job) and job not in self._book.folded

    @property
    def outdated(self) -> SensorOutdated | None:
        """The trouble of a sensor that only a fresh process can mend; None if there is none."""
        return next((member.outdated for member in self.crew.members if member.outdated), None)

    def close(self) -> None:
        """End the sensors' workers."""
        self.crew.close()

    def _look_out(self) -> None:
        """Take up sensors that have come since the start."""
        found = self._lookout.poll(self.crew.sensors) if self._lookout else None
        if found is None:
            return
        sensors, findings = found
        for finding, known in zip(findings, self._findings, strict=True):
            if finding.state != known.state:
                _log.info("sensor %s was %s and is %s; %s", finding.sensor, known.state, finding.state, finding.reason)
        self._findings = findings
        self.crew.reform(sensors)

    def _split(self, slices: Sequence[EnergySlice]) -> list[JobSlice]:
        """Who pays for what was used; whole-node meters are counted apart."""
        self._latest.update(draws(slices))
        parts: list[JobSlice] = []
        self.slices = tuple(self._nodes.post(slices))
        for one in self.slices:
            parts += split(one, self._history, self.settings.idle, self._boards.holdings(one.device.name))
        if self._remainder is not None:
            self._warn_without_meter(self._remainder.source)
            rest = self._remainder.post([one for one in slices if one.device.kind == "node"], parts)
            self._latest.update(draws(_as_one(rest)))
            parts += rest
        return parts

    def _warn_without_meter(self, source: str) -> None:
        """Say once that there is no meter whose remainder could be charged; one may be slow to begin."""
        if self._samples != _METER_TICKS:
            return
        meters = [device for device in self.crew.devices if device.kind == "node"]
        if not any(source in (device.name, device.sensor) for device in meters):
            there = ", ".join(sorted({device.name for device in meters})) or "none; `carbon-exporter sensors` says why"
            _log.warning("attribution.remainder: no whole-node meter is called %s; there are: %s", source, there)

    def _rooms(self) -> Rooms:
        """What survives a restart."""
        return Rooms(self._ledger, self._account, self._book, self._nodes, self._boards, self.spans, self._remainder)

    def _restore(self) -> None:
        state = self._keeper.load()
        if state is not None:
            if state.today.date == self._today.date:
                self._today = state.today
            now, wall = self._host.clock(), self._host.wall()
            self._add_to_today(restore(self._rooms(), state, self._boot_id, now=now, wall=wall))

    def _observe(self, sample: Sample) -> Activity | None:
        """What ran since the last tick; remembered for the split, with jobs beyond the limit folded."""
        activity = None
        procfs = ResolverHealth("processes", success=True)
        try:
            activity = self.observer.observe()
        except JobResolutionError as error:
            procfs = replace(procfs, success=False, reason=error.reason, remedy=error.remedy)
        observer = self.observer
        self.occupancies = sample.occupancies or self.occupancies
        self._boards.look(sample.occupancies, observer.job_of, observer.allocations(), observer.vague)
        own = (procfs, *observer.health())
        for health in own:
            self._note_trouble(health)
        self._resolvers = (*own, *self.namer.health())  # the directories log their trouble themselves
        if activity is not None:
            self._book.most = self._most_jobs()
            activity = self._book.admit(activity, self.observer.marked_jobs, self._boards.holders())
            self._boards.fold(self._book.folded)
            self._history.append(activity)
        return activity

    def _most_jobs(self) -> int:
        """jobs.max, or fewer where their series would go beyond series.max, as many as a job has now on the average."""
        jobs, devices = [job for job, _ in self._account.jobs if job not in RESERVED], self._devices()
        always = sum([device.kind in {"cpu", "dram"} for device in devices])
        per_job = 1 + 3 * max(1, always, math.ceil(len(jobs) / max(1, len(set(jobs)))))
        own = _OWN_SERIES + _DEVICE_SERIES * len(devices) + self.spans.series
        return max(1, min(self.settings.jobs_max, (self.settings.series_max - own) // per_job))

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
        """Those whose energy somebody pays: whole-node meters are not among them."""
        devices = [device for device in self.crew.devices if device.kind != "node"]
        return [*devices, self._remainder.device] if self._remainder else devices

    def _zeroes(self) -> list[JobSlice]:
        """Nothing used yet, by those who are always there: so that their counters begin at zero."""
        now = self._host.clock()
        return [
            JobSlice(job, device, now, now, Joules(0.0)) for device in self._devices() for job in (IDLE, UNATTRIBUTED)
        ]

    def _running(self, activity: Activity | None) -> set[Job]:
        """Jobs that used something, or hold a board."""
        ran = {usage.job for usage in activity.usages} if activity else set()
        return ran | (self._boards.holders() & self._book.published())

    def _add_to_today(self, posted: Iterable[CarbonEntry]) -> None:
        date = _date(self._host.wall())
        today = self._today if self._today.date == date else Today(date, Joules(0.0), Grams(0.0))
        joules, grams = float(today.joules), float(today.grams)
        for _, used, emitted in posted:
            joules, grams = joules + used, grams + emitted
        self._today = Today(date, Joules(joules), Grams(grams))

    def _snapshot(self, sample: Sample, parts: Sequence[JobSlice], activity: Activity | None) -> Snapshot:
        shown = self._book.published() | RESERVED | self._posted
        oldest = self._host.clock() - _FRESH_INTERVALS * self.settings.interval
        return Snapshot(
            at=self._host.wall(),
            started=self._started,
            interval=self.settings.interval,
            samples=self._samples,
            grid=self.grid,
            store=self._keeper.health,
            today=self._today,
            devices=tuple(device_states(self._devices(), sample, self._latest, self._ledger.gap_seconds, oldest)),
            nodes=tuple(node_states(self.crew.devices, self._nodes.totals, self._latest, oldest)),
            partitions=self._boards.partition_jobs(),
            device_totals=dict(self._account.devices),
            job_totals={key: total for key, total in self._account.jobs.items() if key.job in shown},
            job_power=job_power(self._account.pending, parts),
            jobs={job: told for job, told in self._roll.told.items() if job in shown},
            running={job: self._roll.why(job) for job in self._running(activity)},
            jobs_folded=self._book.folded_total,
            spans=self.spans.shown(self._privacy.shows),
            runs=self.spans.runs.shown(self._privacy.shows),
            spans_folded=self.spans.account.folded_total,
            sensors=tuple(sensor_health(self.crew.members, self._findings)),
            resolvers=self._resolvers,
        )


def _as_one(parts: Sequence[JobSlice]) -> list[EnergySlice]:
    """The shares of one device's energy put together again."""
    if not parts:
        return []
    first, joules = parts[0], Joules(math.fsum(part.joules for part in parts))
    return [EnergySlice(first.device, first.start, first.end, joules, Quality.INTEGRATED)]


def _span_limits(settings: Settings) -> SpanLimits:
    series, linger, retain = settings.series_max, settings.jobs_linger, settings.jobs_retain
    return SpanLimits(settings.spans_max, series, linger, retain, settings.runs_max)


def _date(unix_seconds: float) -> str:
    """The local day, ISO 8601."""
    return datetime.fromtimestamp(unix_seconds).astimezone().date().isoformat()


def _boot_id(host: Host) -> str:
    """The kernel's name for this boot; empty where it has none, which then counts as another boot each time."""
    try:
        return (host.procfs / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
