"""Jupyter and IPython: `%%carbon` says below a cell what it cost.

    %load_ext carbon_exporter.integrations.jupyter

    %%carbon fit
    model.fit(x, y)

The cell is not run by us. Its first line is made into a call that opens a span, and what follows runs as a cell without
the magic does: with its own result, its own exceptions, its `await`, and other magics below. IPython says when it is
done; then the span is closed, and the summary shown.
"""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass, field
from typing import Any

from carbon_exporter.integrations.cell_summary import CellSummary
from carbon_exporter.integrations.missing import missing
from carbon_exporter.sdk.span import CarbonSpan, carbon_span
from carbon_exporter.sdk.tracker import current
from carbon_exporter.sdk.trouble import trouble

try:
    from IPython.core import inputtransformer2
    from IPython.core.error import UsageError
    from IPython.core.magic_arguments import MagicArgumentParser
    from IPython.display import display
except ImportError as error:
    raise missing(__name__, "ipython", error) from error

__all__ = ["load_ipython_extension", "unload_ipython_extension"]

SETTLE_SECONDS = 2.0
"""How long a cell's end may wait for the last readings of the meters,"""
FIRST_SECONDS = 3.0
"""and how much longer if no meter has told anything yet: the first cell may end before they are open."""
_MAGIC, _OPENER = "%%carbon", "carbon_open"


def load_ipython_extension(shell: Any) -> None:
    """What `%load_ext` calls."""
    shell.carbon_cells = cells = Cells(shell)
    shell.register_magic_function(cells.run, "cell", "carbon")
    shell.register_magic_function(cells.open, "line", _OPENER)
    # Before IPython's own, but not among those by which a prompt knows whether more lines are to come.
    shell.input_transformer_manager.line_transforms.insert(0, opening)
    shell.events.register("pre_run_cell", cells.begin)
    shell.events.register("post_run_cell", cells.end)
    current().start()  # meters take a second or two to open


def unload_ipython_extension(shell: Any) -> None:
    """What `%unload_ext` calls."""
    cells = shell.carbon_cells
    shell.input_transformer_manager.line_transforms.remove(opening)
    shell.events.unregister("pre_run_cell", cells.begin)
    shell.events.unregister("post_run_cell", cells.end)
    del shell.magics_manager.magics["cell"]["carbon"], shell.magics_manager.magics["line"][_OPENER]
    del shell.carbon_cells


def opening(lines: list[str]) -> list[str]:
    """The lines of a cell, in which `%%carbon …` has become a call. IPython asks this several times for each cell."""
    magic, _, options = lines[0].strip().partition(" ") if lines else ("", "", "")
    if magic != _MAGIC:
        return lines
    return [f"get_ipython().run_line_magic({_OPENER!r}, {options!r})\n", *inputtransformer2.cell_magic(lines[1:])]


@dataclass
class Cell:
    """A cell that runs, perhaps within another, and what it has opened."""

    info: Any
    spans: list[tuple[argparse.Namespace, CarbonSpan]] = field(default_factory=list)


class Cells:
    """The cells of one shell."""

    def __init__(self, shell: Any) -> None:
        """None runs yet."""
        self._shell = shell
        self._running: list[Cell] = []

    def begin(self, info: Any) -> None:
        """IPython's word that a cell begins."""
        self._running.append(Cell(info))

    def open(self, line: str) -> None:
        """Measure the rest of the cell that runs; `%%carbon` calls this."""
        try:
            options = _parser().parse_args(shlex.split(line))
        except ValueError as error:  # a quotation mark too few
            raise UsageError(f"{_MAGIC}: {error}") from None
        if not self._running:
            return  # a silent cell, of which IPython does not say when it ends
        boards = options.devices.split(",") if options.devices else None
        span = carbon_span(options.name, job=options.job, devices=boards, sync=options.sync)
        span.__enter__()
        self._running[-1].spans.append((options, span))

    def end(self, result: Any) -> None:
        """IPython's word that a cell has ended."""
        error = getattr(result, "error_in_exec", None)
        for cell in self._ended(getattr(result, "info", None)):
            for options, span in reversed(cell.spans):
                span.__exit__(type(error) if error else None, error, None)
                if options.into:
                    self._shell.user_ns[options.into] = span
                if not options.quiet:
                    _show(span)

    def run(self, line: str, cell: str) -> None:
        """Say below this cell what it cost: energy, CO2e, time and devices.

        %%carbon [NAME] [--job JOB] [--devices gpu0,gpu1] [--sync] [--quiet] [--into VARIABLE]

        NAME is the span's, `cell` by default: few different ones, for each has series of its own. --job, --devices and
        --sync are those of `carbon_span`. --quiet shows nothing; --into keeps the span, with all its numbers, in a
        variable. What stands below runs as without the magic.
        """
        self._shell.run_cell(f"{_MAGIC} {line}\n{cell}").raise_error()  # only other magics call this one

    def _ended(self, info: Any) -> list[Cell]:
        """The cell of this, and what it ran; of one that was interrupted IPython makes up another `info`."""
        places = [place for place, cell in enumerate(self._running) if cell.info is info]
        if not places and self._running and getattr(info, "raw_cell", None) in {None, self._running[-1].info.raw_cell}:
            places = [len(self._running) - 1]
        if not places:
            return []
        ended, self._running = self._running[places[0] :], self._running[: places[0]]
        return ended[::-1]


def _parser() -> Any:
    parser = MagicArgumentParser(prog=_MAGIC)
    parser.add_argument("name", nargs="?", default="cell")
    parser.add_argument("--job")
    parser.add_argument("--devices")
    parser.add_argument("--sync", action="store_true")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--into")
    return parser


def _show(span: CarbonSpan) -> None:
    try:
        if not span.wait(SETTLE_SECONDS) and span.quality == "none":
            span.wait(FIRST_SECONDS)
        engine = current().engine
        display(CellSummary.of(span, engine.choice.price() if engine else None))
    except Exception as error:  # noqa: BLE001 - a guest does not break the house
        trouble("showing what a cell cost", error)
