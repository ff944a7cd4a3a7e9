"""A stored training whose energy is known: two nodes, a restart, an outage, spans with a loss, and neighbours."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

from support.stored import Store

__all__ = ["BEGAN", "ENDED", "PUE", "SCRAPE", "Trained", "gained", "neighbours", "trained"]

BEGAN = 1_772_366_400 + 137
"""1 March 2026, 12:02:17 UTC."""
ENDED = BEGAN + 5 * 3600
LINGER = 300
SCRAPE = 30
OUTAGE = range(BEGAN + 7200, BEGAN + 7200 + 1500)
"""Nothing is scraped for 25 minutes."""
KINDS = {"gpu0": ("gpu", 310.0), "gpu1": ("gpu", 290.0), "cpu0": ("cpu", 120.0), "dram0": ("dram", 15.0)}
QUALITY = {"gpu": "measured", "cpu": "measured", "dram": "default"}
PUE = 1.2


@dataclass
class Trained:
    """What was stored and what it adds up to."""

    store: Store = field(default_factory=Store)
    kwh: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """By kind."""
    grams: float = 0.0

    @property
    def energy(self) -> float:
        """All of it, in kWh."""
        return math.fsum(self.kwh.values())


def trained(
    store: Store, *, label: str = "job_name", name: str = "train", namespace: str = "", nodes: str = "ab"
) -> Trained:
    """Store it. The job's counters begin at 0 when it is seen and stay for five minutes after its end."""
    world = Trained(store)
    job = {label: name, "job_namespace": namespace}
    for number, node in enumerate(nodes):
        # With the label `job` the scrape honors labels, so that its own does not stand in the way.
        target = {"instance": f"node-{node}:12011"} | ({} if label == "job" else {"job": "carbon-exporter"})
        phase = 7 * number
        for device, (kind, watts) in KINDS.items():
            _device(world, {**target, "device": device}, kind)
            _use(world, {**target, **job, "region": "FR", "device": device, "kind": kind}, watts + 10 * number, phase)
        _grid(world, target)
        gauge = [(at, 1.0) for at in _scrapes(phase)]
        world.store.add("carbon_job_info", {**target, **job, "scheduler": "slurm", "job_id": "4711"}, gauge)
        _spans(world, {**target, **job}, str(number), phase)
    return world


def gained(store: Store, metric: str, name: str, begin: int, end: int) -> float:
    """What the counters of a job gained: of each its newest sample up to `end` less its newest up to `begin`."""
    sums = []
    for labels, samples in store.series[metric].items():
        if f'="{name}"' in labels:
            before = [value for at, value in samples if at <= begin] or [samples[0][1]]
            sums.append([value for at, value in samples if at <= end][-1] - before[-1])
    return math.fsum(sums)


def neighbours(store: Store) -> None:
    """Others at the same time: of a similar name, of one name in two namespaces, and one whose counter was reset."""
    for name, namespace in (("train-2", ""), ("shared", "team-a"), ("shared", "team-b"), ("reborn", "")):
        reset = BEGAN + 3610 if name == "reborn" else BEGAN
        labels = {"instance": "node-c:12011", "job_name": name, "job_namespace": namespace, "region": "FR"}
        samples = [(at, (at - (reset if at >= reset else BEGAN)) / 3.6e4) for at in _scrapes(0)]
        store.add("carbon_job_energy_kwh_total", {**labels, "device": "cpu0", "kind": "cpu"}, samples)


def _scrapes(phase: int, end: int = ENDED + LINGER) -> list[int]:
    return [at for at in range(BEGAN + phase, end, SCRAPE) if at not in OUTAGE]


def _level(at: float) -> float:
    """Share of full power: it swings, as epochs do."""
    return 0.6 + 0.4 * math.sin(at / 900)


def _intensity(at: float) -> float:
    return 40.0 if at < BEGAN + 9000 else 60.0


def _use(world: Trained, labels: dict[str, str], watts: float, phase: int) -> None:
    kwh = grams = 0.0
    energy, co2e, last = [(BEGAN + phase, 0.0)], [(BEGAN + phase, 0.0)], BEGAN + phase
    for at in range(BEGAN + phase + SCRAPE, ENDED + LINGER, SCRAPE):
        used = max(0.0, min(at, ENDED) - last) * watts * _level(at) / 3.6e6
        kwh, grams, last = kwh + used, grams + used * _intensity(at) * PUE, at
        if at not in OUTAGE:
            energy.append((at, kwh))
            co2e.append((at, grams))
    world.store.add("carbon_job_energy_kwh_total", labels, energy)
    world.store.add("carbon_job_co2e_grams_total", labels, co2e)
    world.kwh[labels["kind"]] += kwh
    world.grams += grams


def _device(world: Trained, labels: dict[str, str], kind: str) -> None:
    model = {"gpu": "NVIDIA A100-SXM4-40GB", "cpu": "AMD EPYC 7742 64-Core Processor", "dram": ""}[kind]
    vendor = {"gpu": "NVIDIA", "cpu": "AMD", "dram": ""}[kind]
    uuid = f"GPU-{labels['instance']}-{labels['device']}" if kind == "gpu" else ""
    sensor = {"gpu": "nvidia", "cpu": "rapl", "dram": "model"}[kind]
    info = {**labels, "kind": kind, "vendor": vendor, "model": model, "uuid": uuid, "sensor": sensor}
    world.store.add("carbon_device_info", {**info, "quality": QUALITY[kind]}, [(at, 1.0) for at in _scrapes(0)])
    gaps = [(at, 0.0 if at < BEGAN + 3600 else 12.5) for at in _scrapes(0)]
    world.store.add("carbon_energy_gap_seconds_total", labels, gaps if labels["device"] == "cpu0" else gaps[:9])


def _grid(world: Trained, target: dict[str, str]) -> None:
    where = {**target, "region": "FR", "provider": "static"}
    told = {"quality": "yearly", "source": "Ember (2026)", "year": "2025", "located_by": "setting"}
    world.store.add("carbon_grid_intensity_info", {**where, **told}, [(at, 1.0) for at in _scrapes(0)])
    levels = [(at, _intensity(at)) for at in _scrapes(0)]
    scope = {"scope": "lifecycle", "basis": "average"}
    world.store.add("carbon_grid_intensity_grams_per_kwh", {**where, **scope}, levels)
    world.store.add("carbon_pue_ratio", {**target, "region": "FR"}, [(at, PUE) for at in _scrapes(0)])


def _spans(world: Trained, labels: dict[str, str], rank: str, phase: int) -> None:
    span = {**labels, "span": "epoch", "rank": rank}
    epochs = [(at, float((at - BEGAN) // 3600)) for at in _scrapes(phase)]
    world.store.add("carbon_spans_total", span, epochs)
    world.store.add("carbon_span_duration_seconds_total", span, [(at, 3500.0 * count) for at, count in epochs])
    world.store.add(
        "carbon_span_energy_kwh_total", {**span, "region": "FR", "kind": "gpu"}, [(at, 0.4 * n) for at, n in epochs]
    )
    world.store.add("carbon_span_co2e_grams_total", {**span, "region": "FR"}, [(at, 20.0 * n) for at, n in epochs])
    world.store.add(
        "carbon_span_value", {**span, "name": "loss"}, [(at, 1 / (1 + n) + float(rank)) for at, n in epochs]
    )
