"""How the series of a modelled cluster are called."""

from __future__ import annotations

from typing import Final

from benchmarks.cluster.load import DEVICES, KINDS
from benchmarks.cluster.schedule import Run
from benchmarks.tsdb.index import Labels

__all__ = ["REGIONS", "Site", "device_labels", "labels", "without"]

_KIND: Final = {device: kind for kind, place in KINDS.items() for device in DEVICES[place]}

REGIONS: Final = ("SE", "FR", "US-CA", "DE", "PL")


class Site:
    """A cluster, all in one region."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.region = number % len(REGIONS)
        self.place = {"cluster": f"cluster-{number:02d}", "region": REGIONS[self.region]}

    def instance(self, node: int) -> str:
        """As a target is called."""
        return f"node-{self.number:02d}-{node:04d}:12011"

    def job(self, run: Run) -> dict[str, str]:
        """Every run has a name of its own, which is the most that there can be."""
        return {"job_namespace": f"team-{run.team:02d}", "job_name": f"train-{self.number:02d}-{run.number:06d}"}


def labels(name: str, *parts: dict[str, str]) -> Labels:
    """The series of that name with these labels."""
    merged = {"__name__": name}
    for part in parts:
        merged.update(part)
    return tuple(sorted(merged.items()))


def device_labels(site: Site, node: int, device: str) -> dict[str, str]:
    """Of a device's series, without cluster and region."""
    return {"instance": site.instance(node), "job": "carbon-exporter", "device": device, "kind": _KIND[device]}


def without(parts: dict[str, str], *names: str) -> dict[str, str]:
    """All but these labels."""
    return {name: value for name, value in parts.items() if name not in names}
