"""What does a framework's callback cost a step? The same training with it and without, in turns, in one process.

Lightning, whose own overhead of a step is the smallest that has hooks for callbacks. Steps wait instead of working, so
that the machine's noise stays small; what the callback's threads use shows in the processor time.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.figure import Figure, Plan
from carbon_exporter.sdk import tracker

__all__ = ["figures"]

STEP_LIMIT_MS, SHARE_LIMIT_PERCENT = 1.0, 0.5
STEP_SECONDS = 0.05
"""From this length of a step on the share is promised."""
_EPOCHS = 2
_LONG_STEPS = 100
"""Of an epoch: ten seconds in two, still far shorter than any training that somebody would measure."""
_REST_SECONDS = 3.0
"""Until the sampler of the fit before has ended, which it does two seconds after the last block."""


def figures(plan: Plan) -> Iterator[Figure]:
    """Milliseconds more a step, and percent more of a run whose steps take 50 ms."""
    if importlib.util.find_spec("lightning") is None:
        print("callbacks: not measured, lightning is not installed", file=sys.stderr)
        return
    os.environ.setdefault("CARBON_SDK_SOCKET", "/nowhere")
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)
    _fit(0.0, 10, measured=True)  # loads, and opens the meters
    short = [_more(0.0, 100, plan) for _ in range(plan.runs)]
    yield Figure("callback, a step more", tuple(1e3 * one.seconds / one.steps for one in short), "ms", STEP_LIMIT_MS)
    long = [_more(STEP_SECONDS, _LONG_STEPS, plan) for _ in range(plan.runs)]
    percents = tuple(100 * one.seconds / one.bare for one in long)
    note = f"Lightning, {_EPOCHS} epochs of {_LONG_STEPS} steps of 50 ms"
    yield Figure("callback, a run more", percents, "%", SHARE_LIMIT_PERCENT, note)
    percents = tuple(100 * one.cpu_seconds / one.bare for one in long)
    yield Figure("  processor time more", percents, "% of a core", note="of all threads, the sampler's too")
    tracker.finish()


class _More(NamedTuple):
    """What a fit with the callback takes more than one without, the median of pairs."""

    seconds: float
    cpu_seconds: float
    bare: float
    """Seconds without it."""
    steps: int


def _more(step: float, steps: int, plan: Plan) -> _More:
    pairs = [
        (_fit(step, steps, measured=False), _fit(step, steps, measured=True)) for _ in range(1 if plan.quick else 3)
    ]
    seconds, cpu = (statistics.median(it[n] - bare[n] for bare, it in pairs) for n in (0, 1))
    return _More(seconds, cpu, statistics.median(bare[0] for bare, _ in pairs), steps * _EPOCHS)


def _fit(step: float, steps: int, *, measured: bool) -> tuple[float, float]:
    """Wall-clock and processor time; one that is not measured has no thread of ours beside it."""
    from lightning.pytorch import Trainer  # noqa: PLC0415 - where it is installed
    from torch import ones  # noqa: PLC0415 - likewise
    from torch.utils.data import DataLoader  # noqa: PLC0415 - likewise

    from carbon_exporter.integrations.lightning import CarbonCallback  # noqa: PLC0415 - likewise

    off: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_model_summary"), False)
    callbacks = [CarbonCallback(summary="none")] if measured else []
    trainer = Trainer(callbacks=callbacks, enable_progress_bar=False, accelerator="cpu", max_epochs=_EPOCHS, **off)
    rows: Any = ones(steps, 1)
    model, loader = _model(step), DataLoader(rows)
    if not measured:
        time.sleep(_REST_SECONDS)
    began, used = time.perf_counter(), time.process_time()
    trainer.fit(model, loader)
    return time.perf_counter() - began, time.process_time() - used


def _model(step: float) -> Any:
    """One weight, and a step that takes so many seconds."""
    import torch  # noqa: PLC0415 - likewise
    from lightning.pytorch import LightningModule  # noqa: PLC0415 - likewise

    class Probe(LightningModule):  # type: ignore[misc] # it has no types here
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
            time.sleep(step)
            loss: torch.Tensor = self.layer(batch).square().mean()
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Probe()
