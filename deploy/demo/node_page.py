"""What one node's exporter would show at a moment of the history: devices, jobs, grid and itself."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.demo.account import JOULES_PER_KWH, Life, visible
from deploy.demo.cluster import Device, Node
from deploy.demo.grid import HALF_HOUR, PROVIDER, SOURCE, intensity, zone
from deploy.demo.labels import Target
from deploy.demo.view import View

__all__ = ["NodePage"]

_BLANK_WATTS = 240.0
"""What a node draws beyond its devices: fans, board, losses."""


class NodePage:
    """The page of one node in a window of time. Made for moments that rise by `step`."""

    def __init__(self, view: View) -> None:
        """Shows nothing yet."""
        scenario, node, target = view.scenario, view.node, view.target
        self._scenario, self._step = scenario, view.step
        begin, end = view.window
        near = [life for life in view.lives if life.touches((begin - view.step, end))]
        self._jobs = [_JobRows(life, node, target) for life in near]
        self._devices = {device.name: _DeviceRows(device, node, target) for device in node.devices}
        gone = [life for life in view.lives if life not in near and life.seen[-1][1] < begin]
        self._before = dict.fromkeys(self._devices, 0.0)
        """Joules of lives that ended before the window, by device."""
        for life in gone:
            for device, account in life.accounts.items():
                self._before[device] += account.joules(end)
        self._last: tuple[float, dict[str, float]] | None = None
        self._node_rows = tuple(target.series(f"carbon_node_{name}", {"source": "redfish"}) for name in _NODE)
        self._own = _OwnRows(node, target)

    def lines(self, t: float) -> Iterator[str]:
        """Series and value of everything that is shown at `t`."""
        totals = dict(self._before)
        shown = 0
        for rows in self._jobs:
            at = visible(rows.life, t, self._step)
            for device, account in rows.life.accounts.items():
                totals[device] += account.joules(t if at is None else at)
            if at is not None:
                shown += not rows.life.reserved
                yield from rows.lines(t, at, self._step)
        before, self._last = self._last, (t, totals)
        for name, rows_of in self._devices.items():
            watts = None if before is None else (totals[name] - before[1][name]) / (t - before[0])
            yield from rows_of.lines(totals[name], watts, t)
        power, energy = self._node_rows
        everything = sum(totals.values())
        if before is not None:
            yield f"{power}{(everything - sum(before[1].values())) / (t - before[0]) + _BLANK_WATTS:.6g}"
        yield f"{energy}{(everything + _BLANK_WATTS * t) / JOULES_PER_KWH:.12g}"
        yield from self._own.lines(self._scenario.start + t, shown)


_NODE = ("power_watts", "energy_kwh_total")


class _JobRows:
    """The series of one life."""

    def __init__(self, life: Life, node: Node, target: Target) -> None:
        self.life = life
        kinds = {device.name: device.kind for device in node.devices}
        names = {"job_name": life.job, "job_namespace": life.namespace}
        self._rows = []
        for device, account in life.accounts.items():
            labels = {**names, "region": node.region, "device": device, "kind": kinds[device]}
            power, energy, grams = (target.series(f"carbon_job_{name}", labels) for name in _JOB)
            self._rows.append((account, power, energy, grams))

    def lines(self, t: float, at: float, step: float) -> Iterator[str]:
        """Power is the mean since the look before."""
        for account, power, energy, grams in self._rows:
            joules = account.joules(at)
            yield f"{energy}{joules / JOULES_PER_KWH:.12g}"
            yield f"{grams}{account.grams(at):.12g}"
            yield f"{power}{max(0.0, joules - account.joules(t - step)) / step:.6g}"


_JOB = ("power_watts", "energy_kwh_total", "co2e_grams_total")


class _DeviceRows:
    """The series of one device."""

    def __init__(self, device: Device, node: Node, target: Target) -> None:
        self._device = device
        own = {"device": device.name, "kind": device.kind}
        sensor = {"gpu": "nvidia", "cpu": "rapl", "dram": "rapl"}[device.kind]
        more = {"vendor": device.vendor, "model": device.model, "sensor": sensor, "quality": "measured"}
        self._info = target.series("carbon_device_info", {**own, **more, "uuid": f"{node.name}-{device.name}"}) + "1"
        self._gap = target.series("carbon_energy_gap_seconds_total", {"device": device.name})
        self._gap_seconds = [(end, end - start) for start, end in node.reboots]
        self._power, self._energy = (
            target.series(f"carbon_device_{name}", {**own, "region": node.region}) for name in _NODE
        )
        self._vitals = [target.series(f"carbon_device_{name}", own) for name in _VITALS]
        self._divergence = target.series("carbon_device_meter_divergence_ratio", {"device": device.name})

    def lines(self, joules: float, watts: float | None, t: float) -> Iterator[str]:
        yield self._info
        yield f"{self._gap}{sum(length for end, length in self._gap_seconds if t >= end):g}"
        yield f"{self._energy}{joules / JOULES_PER_KWH:.12g}"
        if watts is None:
            return
        yield f"{self._power}{watts:.6g}"
        if self._device.kind == "gpu":
            used = max(0.0, watts - 62.0) / (self._device.limit - 62.0)
            vitals = (self._device.limit, used, 0.9 * used * 85899345920, 31 + 45 * used)
            for series, value in zip(self._vitals, vitals, strict=True):
                yield f"{series}{value:.6g}"
            yield f"{self._divergence}0.01"


_VITALS = ("power_limit_watts", "utilization_ratio", "memory_used_bytes", "temperature_celsius")


class _OwnRows:
    """The grid, and the exporter itself. It may not open its BMC, nor the socket of its container engine."""

    def __init__(self, node: Node, target: Target) -> None:
        self._region = node.region
        zone_of = {"region": node.region, "provider": PROVIDER}
        info = {**zone_of, "quality": "live", "source": SOURCE, "located_by": "setting"}
        build = {"version": "synthetic", "revision": "synthetic", "python": "3"}
        scope = {"scope": "lifecycle", "basis": "average"}
        self._intensity = target.series("carbon_grid_intensity_grams_per_kwh", {**zone_of, **scope})
        self._described = target.series("carbon_grid_intensity_timestamp_seconds", zone_of)
        sensors = [{"sensor": sensor} for sensor in ("nvidia", "rapl")]
        self._now = [
            target.series("carbon_store_last_write_timestamp_seconds"),
            *(target.series("carbon_sensor_last_sample_timestamp_seconds", sensor) for sensor in sensors),
        ]
        self._tracked = target.series("carbon_jobs_tracked")
        self._constant = [
            target.series("carbon_grid_intensity_info", info) + "1",
            target.series("carbon_pue_ratio", {"region": node.region}) + f"{zone(node.region).pue}",
            target.series("carbon_exporter_build_info", build) + "1",
            *(target.series("carbon_sensor_success", sensor) + "1" for sensor in sensors),
            *(target.series("carbon_sensor_duration_seconds", sensor) + "0.004" for sensor in sensors),
            *(target.series("carbon_sensor_errors_total", {**sensor, "reason": "read"}) + "0" for sensor in sensors),
            target.series("carbon_sensor_success", {"sensor": "ipmi"}) + "0",
            *(target.series(f"carbon_resolver_{name}", {"resolver": "slurm"}) + value for name, value in _RESOLVER),
            target.series("carbon_resolver_success", {"resolver": "engines"}) + "0",
            *(target.series(name) + value for name, value in _QUIET),
            target.series("carbon_handoff_refused_total", {"reason": "peers"}) + "0",
            target.series("carbon_http_refused_total", {"reason": "connections"}) + "0",
        ]

    def lines(self, unix: float, jobs: int) -> Iterator[str]:
        yield f"{self._intensity}{intensity(self._region, unix):g}"
        yield f"{self._described}{unix // HALF_HOUR * HALF_HOUR:.0f}"
        yield f"{self._tracked}{jobs}"
        for series in self._now:
            yield f"{series}{unix:.3f}"
        yield from self._constant


_RESOLVER = (("success", "1"), ("duration_seconds", "0.002"))
_QUIET = (
    ("up", "1"),
    ("scrape_duration_seconds", "0.006"),
    ("scrape_samples_scraped", "420"),
    ("carbon_jobs_folded_total", "0"),
    ("carbon_spans_folded_total", "0"),
    ("carbon_handoff_peers", "2"),
    ("carbon_http_connections", "1"),
)
