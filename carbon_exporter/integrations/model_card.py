"""The block `co2_eq_emissions` of a Hugging Face model card, of a run in this process.

Its keys and their meaning are the Hub's: https://huggingface.co/docs/hub/model-cards-co2. Emissions are in grams.
`carbon-exporter report` writes the same block of what a Prometheus has stored.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from carbon_exporter import __version__
from carbon_exporter.errors import ConfigError
from carbon_exporter.sdk.run import CarbonRun
from carbon_exporter.sdk.tracker import current

__all__ = ["Share", "TrainingType", "emissions", "share_of", "training_type_of"]

TrainingType: TypeAlias = Literal["", "pre-training", "fine-tuning"]


def training_type_of(told: str) -> TrainingType:
    """The same, if the Hub knows it; empty leaves it out. Raises `ConfigError`."""
    if told not in {"", "pre-training", "fine-tuning"}:
        raise ConfigError("CarbonCallback", "training_type", told, "pre-training, fine-tuning")
    return cast("TrainingType", told)


class Share(NamedTuple):
    """What one rank has of a training."""

    grams: float
    devices: frozenset[tuple[str, str, str]]
    """Host, name and model of each."""

    def told(self) -> list[Any]:
        """As JSON has it."""
        return [self.grams, sorted(self.devices)]

    @classmethod
    def of(cls, told: Sequence[Any]) -> Share:
        """From that."""
        grams, devices = told
        return cls(grams, frozenset((host, name, title) for host, name, title in devices))


def share_of(run: CarbonRun) -> Share:
    """This rank's; memory goes without saying."""
    engine = current().engine
    known = {one.name: one for one in engine.meters.devices} if engine else {}
    used = [known[name] for name in run.span.energy_by_device if name in known and known[name].kind != "dram"]
    host = socket.gethostname()
    return Share(run.co2e_grams, frozenset((host, one.name, one.model or one.kind.upper()) for one in used))


def emissions(
    run: CarbonRun, others: Iterable[Share] = (), *, training_type: str = "", geographical_location: str = ""
) -> dict[str, Any]:
    """The block; `others` are the other ranks. What is not known is left out."""
    shares = [share_of(run), *others]
    devices = frozenset[tuple[str, str, str]]().union(*(one.devices for one in shares))
    counted = Counter(title for _, _, title in sorted(devices))
    block = {
        "emissions": float(f"{sum(one.grams for one in shares):.6g}"),
        "source": f"carbon-exporter {__version__}: {_how(run)}",
        "training_type": training_type,
        "geographical_location": geographical_location or _configured_region(),
        "hardware_used": ", ".join(f"{count} x {title}" for title, count in counted.items()),
    }
    return {key: value for key, value in block.items() if value != ""}


def _how(run: CarbonRun) -> str:
    engine = current().engine
    price = engine.choice.price() if engine else None
    if run.span.quality == "none":
        return "nothing was measured"
    return f"energy {run.span.quality}" + (f", grid intensity {price.source}, PUE included" if price else "")


def _configured_region() -> str:
    """The script's own word, else that of the exporter beside it. A script's guess by its time zone is none."""
    tracker = current()
    told = tracker.options.region or os.environ.get("CARBON_REGION", "")
    if told or tracker.engine is None or tracker.engine.choice.path != "exporter":
        return told
    price = tracker.engine.choice.price()
    return price.region if price and price.region != "world" else ""
