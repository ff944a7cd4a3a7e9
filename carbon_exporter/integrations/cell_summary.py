"""What a notebook's cell cost, as a small table of HTML, or as lines of text where there is no HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from carbon_exporter.report import figures
from carbon_exporter.sdk.base import Price
from carbon_exporter.sdk.span import CarbonSpan
from carbon_exporter.units import JOULES_PER_KWH

__all__ = ["CellSummary"]

_ESTIMATES = {"modelled": "an estimate by a model", "default": "an estimate by typical figures"}
_CELL = 'style="text-align: left; padding: 0 1em 0 0"'


@dataclass(frozen=True, slots=True)
class CellSummary:
    """Rows of a name and what it says, already as people read them."""

    title: str
    rows: tuple[tuple[str, str], ...]

    @staticmethod
    def of(span: CarbonSpan, price: Price | None) -> CellSummary:
        """A span that has ended, as far as it is known; `price` is what its energy was priced with."""
        time = ("time", figures.duration(span.duration_seconds).text)
        if span.quality == "none":
            return CellSummary(span.name, (time, ("energy", "not measured: no meter has answered")))
        told = [("energy", f"{_energy(span.energy_kwh)} ± {_energy(span.uncertainty / JOULES_PER_KWH)}")]
        told.append(("CO2e", figures.mass(span.co2e_grams).text))
        told += [time, ("mean power", figures.power(span.power_watts).text)]
        told += [(device, _energy(kwh)) for device, kwh in sorted(span.energy_by_device.items())]
        if price is not None:
            intensity = figures.intensity(price.grams_per_kwh).text
            told.append(("grid", f"{price.region}, {intensity} ({price.source})"))
        told.append(("quality", _quality(span)))
        return CellSummary(span.name, tuple(told))

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        return "\n".join([f"carbon: {self.title}", *(f"  {name:<{width}}  {text}" for name, text in self.rows)])

    def _repr_html_(self) -> str:
        """What Jupyter shows; its colours are the notebook's own."""
        rows = "".join(
            f'<tr><th scope="row" {_CELL}>{escape(name)}</th><td {_CELL}>{escape(text)}</td></tr>'
            for name, text in self.rows
        )
        caption = f"<caption {_CELL}>carbon: {escape(self.title)}</caption>"
        return f'<table class="carbon-cell">{caption}<tbody>{rows}</tbody></table>'


def _energy(kwh: float) -> str:
    return figures.energy(kwh).text


def _quality(span: CarbonSpan) -> str:
    told = [span.quality]
    if span.quality in _ESTIMATES:
        told.append(f"{_ESTIMATES[span.quality]}, not a measurement")
    if span.shared:
        told.append("divided among blocks that ran at once")
    if not span.settled:
        told.append("the last readings are not in yet")
    return "; ".join(told)
