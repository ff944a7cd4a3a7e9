"""The summary that a run leaves on stderr: a line, or a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from carbon_exporter.sdk.progress import say

if TYPE_CHECKING:
    from carbon_exporter.sdk.run import CarbonRun

__all__ = ["Summary", "summary_line", "summary_table", "tell_summary"]

Summary: TypeAlias = Literal["line", "table", "none"]


def summary_line(run: CarbonRun) -> str:
    """`carbon-exporter: run 4711: 61.2 s, 0.0021 kWh, 123 W, 0.087 g CO2e, 3 epochs (measured)`."""
    span = run.span
    parts = [f"{run.duration_seconds:.1f} s", f"{run.energy_kwh:.3g} kWh", f"{span.power_watts:.3g} W"]
    parts.append(f"{run.co2e_grams:.3g} g CO2e")
    if run.cost is not None:
        parts.append(f"{run.cost:.3g} {run.currency}".rstrip())
    if run.epochs_done:
        parts.append(f"{run.epochs_done} epochs")
    line = f"carbon-exporter: run {run.name}: {', '.join(parts)} ({_quality(run)})"
    every = run.all_ranks
    if every is None:
        return line
    return f"{line}; {every.ranks} of {run.world_size} ranks: {every.energy_kwh:.3g} kWh, {every.co2e_grams:.3g} g CO2e"


def summary_table(run: CarbonRun) -> str:
    """The same as rows, with what it is made of and what was said of the run."""
    span = run.span
    rows = [("run", run.name), *((key.replace("_", " "), str(value)) for key, value in run.fields.items())]
    rows += [("duration", f"{run.duration_seconds:.1f} s"), ("epochs", str(run.epochs_done))]
    rows += [("energy", f"{run.energy_kwh:.4g} kWh")]
    rows += [(f"  {kind}", f"{kwh:.4g} kWh") for kind, kwh in span.energy_by_kind.items()]
    rows += [("mean power", f"{span.power_watts:.4g} W"), ("CO2e", f"{run.co2e_grams:.4g} g")]
    if (every := run.all_ranks) is not None:
        rows.append(
            (f"{every.ranks} of {run.world_size} ranks", f"{every.energy_kwh:.4g} kWh, {every.co2e_grams:.4g} g")
        )
    if run.cost is not None:
        rows.append(("cost", f"{run.cost:.4g} {run.currency}".rstrip()))
    rows += [(name, f"{value:.6g}") for name, value in span.to_dict()["values"].items()]
    rows.append(("quality", _quality(run)))
    width = max(len(name) for name, _ in rows)
    return "\n".join(["carbon-exporter:", *(f"  {name:<{width}}  {value}" for name, value in rows)])


def tell_summary(run: CarbonRun, form: Summary) -> None:
    """Write it to stderr."""
    say(summary_table(run) if form == "table" else summary_line(run))


def _quality(run: CarbonRun) -> str:
    quality = run.span.quality
    return "not measured" if quality == "none" else quality
