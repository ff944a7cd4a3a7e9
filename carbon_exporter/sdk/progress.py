"""Progress: a run's numbers beside somebody else's bar, and lines that do not break it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from carbon_exporter.sdk.trouble import trouble

if TYPE_CHECKING:
    from carbon_exporter.sdk.run import CarbonRun

__all__ = ["beside", "rich_column", "say", "show_beside"]


def beside(run: CarbonRun) -> str:
    """What fits beside a bar: `0.12 kWh, 43 g, in all 1.2 kWh`."""
    text = f"{run.energy_kwh:.3g} kWh, {run.co2e_grams:.3g} g"
    return f"{text}, in all {run.prediction.energy_kwh.value:.3g} kWh" if run.prediction else text


def show_beside(bar: object, run: CarbonRun) -> None:
    """Put the numbers after a tqdm bar; anything else is left alone."""
    show = getattr(bar, "set_postfix_str", None)
    if callable(show):
        try:
            show(beside(run))
        except Exception as error:  # noqa: BLE001 - whatever a bar raises, the loop goes on
            trouble("showing numbers beside a bar", error)


def rich_column(run: CarbonRun) -> Any:
    """A column of `rich.progress.Progress`. Raises `ImportError` without rich."""
    from rich.progress import ProgressColumn  # noqa: PLC0415 - only who has such a bar
    from rich.text import Text  # noqa: PLC0415

    class CarbonColumn(ProgressColumn):
        """The numbers of a run."""

        max_refresh = 0.5

        def render(self, task: Any) -> Text:  # noqa: ARG002 - all tasks of a bar are of one run
            """As they are now."""
            return Text(beside(run))

    return CarbonColumn()


def say(text: str) -> None:
    """Write lines to stderr: above the bars of tqdm, if there are any. rich has put its own stderr in place."""
    tqdm = sys.modules.get("tqdm")
    bars = getattr(getattr(tqdm, "tqdm", None), "_instances", None)
    if tqdm is not None and bars:
        tqdm.tqdm.write(text, file=sys.stderr)
    elif sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - a summary, where the user looks
