"""How far off is energy from a board without a counter, sampled 20 times a second, and does the bound it claims hold?

Simulated: known traces through registers of several kinds into the exporter's own integrator, 100 runs of 60 s each.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from support.sampled import INSTANT, Register, Run, sample
from support.traces import Trace, burst, constant, square

from benchmarks.figure import Figure, Plan, percentile

__all__ = ["figures"]

TRACES = {
    "constant": constant(300),
    "square, 0.7 s": square(100, 500, 0.7),
    "0.1 s of 1.5 s": burst(80, 600, 0.1, 1.5),
    "0.5 s of 2 s": burst(80, 600, 0.5, 2.0),
    "2 s of 2.5 s": burst(80, 600, 2.0, 2.5),
    "2 s of 10 s": burst(80, 600, 2.0, 10.0),
    "10 s of 25 s": burst(80, 600, 10.0, 25.0),
}
REGISTERS = {"instant": INSTANT, "mean of 1 s, new every 0.1 s": Register(window=1.0, refresh=0.1)}
SELDOM = {f"instant, new every {refresh} s": Register(refresh=refresh) for refresh in (0.02, 0.1)}
"""For comparison: such a register keeps step with work that repeats itself as regularly, at any rate of sampling."""
SELDOM_TRACES = ("square, 0.7 s", "0.5 s of 2 s")
ERROR_LIMIT_PERCENT = 3.0
MISSES_LIMIT = 5.5
"""The bound is one of 95 cases in 100."""
_RUNS = 100


def figures(plan: Plan) -> Iterator[Figure]:
    """For each register and trace: the error that 95 of 100 runs keep below, and runs and readings beyond the bound."""
    for kind, register in {**REGISTERS, **SELDOM}.items():
        limited = kind in REGISTERS
        for name in TRACES if limited else SELDOM_TRACES:
            rounds = [_runs(TRACES[name], register, seed) for seed in range(plan.runs)]
            yield from _compare(f"{name}, {kind}", rounds, limited=limited)


def _runs(trace: Trace, register: Register, seed: int) -> list[Run]:
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets; the same ones each time
    return [sample(trace, register, chance) for _ in range(_RUNS)]


def _compare(what: str, rounds: list[list[Run]], *, limited: bool) -> Iterator[Figure]:
    errors = tuple(percentile([100 * abs(run.error) for run in runs], 95) for runs in rounds)
    worst = max(100 * abs(run.error) for runs in rounds for run in runs)
    bound = sum(100 * run.bound for runs in rounds for run in runs) / sum(map(len, rounds))
    missed = tuple(float(sum(not run.holds for run in runs)) for runs in rounds)
    beyond = tuple(100.0 - 100 * sum(run.held for run in runs) / sum(run.readings for run in runs) for runs in rounds)
    error_limit, misses_limit = (ERROR_LIMIT_PERCENT, MISSES_LIMIT) if limited else (None, None)
    yield Figure(what, errors, "% off", error_limit, f"95 of 100 runs of 60 s; at most {worst:.2f} %")
    yield Figure(
        "  runs beyond the bound", missed, "of 100", misses_limit, f"bound {bound:.2f} % of the energy of 60 s"
    )
    yield Figure("  readings beyond theirs", beyond, "%", misses_limit)
