"""The fields of a CodeCarbon emission report, in its units, and why some have no counterpart here."""

from __future__ import annotations

from carbon_exporter.report.facts import Facts
from carbon_exporter.report.figures import Figure, number

__all__ = ["codecarbon_rows"]

GRAMS_PER_KG = 1000.0
SECONDS_PER_YEAR = 365 * 86_400
GRAMS_PER_KT = 1e9
PARTS = (("CPU", "cpu"), ("GPU", "gpu"), ("RAM", "dram"))


def codecarbon_rows(facts: Facts) -> list[tuple[str | Figure, ...]]:
    """Field, value, note."""
    watts = {one.kind: one.mean_watts for one in facts.kinds}
    kwh = {one.kind: one.energy_kwh for one in facts.kinds}
    rate = facts.co2e_grams / facts.seconds if facts.seconds else 0.0
    return [
        ("duration (s)", _plain(facts.seconds), ""),
        ("emissions (kg CO2e)", _plain(facts.co2e_grams / GRAMS_PER_KG), "PUE included"),
        ("emissions rate (kg/s)", _plain(rate / GRAMS_PER_KG), "mean over the duration"),
        ("emissions rate (kt/year)", _plain(rate * SECONDS_PER_YEAR / GRAMS_PER_KT), "if it went on like this"),
        *((f"{name} power (W)", _plain(watts.get(kind, 0.0)), "mean of the job's share") for name, kind in PARTS),
        *((f"{name} energy (kWh)", _plain(kwh.get(kind, 0.0)), "") for name, kind in PARTS),
        ("energy consumed (kWh)", _plain(facts.energy_kwh), "all kinds; IT energy, the PUE is in the emissions alone"),
        *_places(facts),
        *_machines(facts),
        ("PUE", ", ".join(number(one.pue[1]) for one in facts.regions if one.pue) or "-", "of the site"),
        ("tracking mode", "job", "the job's share of each device, on all nodes; not the whole machine"),
        ("OS, Python version", "-", "not published: a job may be of any language, its nodes are Linux"),
        ("RAM total size (GB)", "-", "not published; the energy of memory is above"),
        ("longitude, latitude", "-", "never looked up: the grid zone is what decides"),
        ("WUE, water consumed", "-", "not measured"),
        ("CPU, GPU, RAM utilisation", "-", "of the devices, not of a job: carbon_device_utilization_ratio"),
        ("project, run id", facts.job.name, "the job; a run's id is an attribute of its spans"),
    ]


def _places(facts: Facts) -> list[tuple[str | Figure, ...]]:
    zones = [one.region for one in facts.regions if one.region]
    return [
        ("country", ", ".join(one.name or one.region for one in facts.regions) or "-", "by the grid zone"),
        (
            "country ISO code",
            ", ".join(dict.fromkeys(zone.partition("-")[0] for zone in zones)) or "-",
            "of two letters",
        ),
        ("region", ", ".join(zone for zone in zones if "-" in zone) or "-", "ISO 3166-2, where the grid's is known"),
        ("cloud provider, region, on cloud", "-", "not looked up: the grid zone is set or told by the time zone"),
    ]


def _machines(facts: Facts) -> list[tuple[str | Figure, ...]]:
    rows: list[tuple[str | Figure, ...]] = []
    for name, kind in PARTS[:2]:
        devices = [one for one in facts.devices if one.kind == kind]
        note = "packages, not logical processors" if kind == "cpu" else "that the job used"
        rows.append((f"{name} count", _plain(sum(one.count for one in devices)), note))
        rows.append((f"{name} model", ", ".join(dict.fromkeys(one.title for one in devices)) or "-", ""))
    return rows


def _plain(value: float) -> Figure:
    return Figure(f"{value:.6g}", value)
