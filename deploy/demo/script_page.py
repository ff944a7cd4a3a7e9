"""What training scripts, runs and forecasts would show at a moment of the history.

Series of providers and forecasts are in the contract's shape; no exporter shows them yet.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from deploy.demo.account import JOULES_PER_KWH, Account, Life, visible
from deploy.demo.cluster import Job, Node
from deploy.demo.grid import HORIZONS, PROVIDER, forecast
from deploy.demo.labels import Target
from deploy.demo.view import View

__all__ = ["SETUP_SECONDS", "ScriptPage"]

SETUP_SECONDS = 120.0
"""From a training's start to its first epoch."""
_EVALUATION = 0.1
"""Share of an epoch in which it is evaluated: a span within it."""


class ScriptPage:
    """What the scripts on one node tell, and the grid's forecast."""

    def __init__(self, view: View) -> None:
        """Shows nothing yet."""
        scenario, node, target = view.scenario, view.node, view.target
        self._scenario, self._node, self._step = scenario, node, view.step
        near = {life.job: life for life in view.lives if life.touches(view.window)}
        jobs = [job for job in scenario.jobs if node.name in job.nodes and job.name in near]
        self._runs = [_Run(job, near[job.name], node, target) for job in jobs if job.training]
        self._infos = [(job, _info(job, target)) for job in jobs]
        provider = {"provider": PROVIDER}
        self._constant = [
            target.series("carbon_provider_success", provider) + "1",
            target.series("carbon_provider_duration_seconds", provider) + "0.21",
            target.series("carbon_provider_failures_total", {**provider, "reason": "timeout"}) + "0",
        ]
        self._forecasts = [
            (
                target.series(
                    "carbon_grid_forecast_grams_per_kwh", {"region": node.region, **provider, "horizon": name}
                ),
                ahead,
            )
            for name, ahead in HORIZONS.items()
        ]

    def lines(self, t: float) -> Iterator[str]:
        """Series and value of everything that is told at `t`."""
        for job, info in self._infos:
            if job.start <= t <= job.end:
                yield info
        for run in self._runs:
            at = visible(run.life, t, self._step)
            if at is not None:
                yield from run.lines(at, self._step)
        yield from self._constant
        for series, ahead in self._forecasts:
            yield f"{series}{forecast(self._node.region, self._scenario.start + t, ahead):g}"


def _info(job: Job, target: Target) -> str:
    who = {"job_id": str(job.number), "scheduler": "slurm", "queue": "gpu", "job_user": job.user}
    return target.series("carbon_job_info", {"job_name": job.name, "job_namespace": job.namespace, **who}) + "1"


class _Run:
    """One rank of one training."""

    def __init__(self, job: Job, life: Life, node: Node, target: Target) -> None:
        if job.training is None:
            raise ValueError(f"{job.name} trains nothing")
        self.life, self._job, self._training = life, job, job.training
        self._first = job.start + SETUP_SECONDS
        rank = str(job.nodes.index(node.name)) if len(job.nodes) > 1 else ""
        names = {"job_name": job.name, "job_namespace": job.namespace, "rank": rank}
        run = {**names, "run": str(job.number)}
        kinds = {device.name: device.kind for device in node.devices}
        where = {**names, "region": node.region}
        self._energy = [
            (
                [account for device, account in life.accounts.items() if kinds[device] == kind],
                [target.series("carbon_span_energy_kwh_total", {**where, "span": one, "kind": kind}) for one in _SPANS],
            )
            for kind in sorted({kinds[device] for device in life.accounts})
        ]
        self._rest = [
            tuple(
                target.series(f"carbon_span{name}", {**names, "span": span, **labels}) for name, labels in _rest(node)
            )
            for span in _SPANS
        ]
        values = ("loss", "accuracy", "samples")
        self._values = [target.series("carbon_span_value", {**names, "span": "epoch", "name": name}) for name in values]
        what = self._training
        about = {"model": what.model, "dataset": what.dataset, "batch_size": str(what.batch_size)}
        self._info = target.series("carbon_run_info", {**run, **about}) + "1"
        self._totals = [target.series(f"carbon_run_{name}", run) for name in _RUN]

    def lines(self, at: float, step: float) -> Iterator[str]:
        """As at `at`. Counters of spans are seen at 0, too."""
        accounts = list(self.life.accounts.values())
        first, end = self._first, self._job.end
        grams = sum(account.grams(at) for account in accounts)
        yield self._info
        for series, value in zip(self._totals, (_kwh(accounts, at), grams, *self._predicted(accounts)), strict=True):
            yield f"{series}{value:.12g}"
        if at < first:
            return
        at = first if at - first < step else at
        epochs = int((min(at, end) - first) / self._training.epoch_seconds)
        for several, series_of in self._energy:
            used = _kwh(several, at) - _kwh(several, first)
            for series, share in zip(series_of, _SPANS.values(), strict=True):
                yield f"{series}{used * share:.12g}"
        told = sum(account.grams(at) - account.grams(first) for account in accounts)
        for (co2e, seconds, ended), share in zip(self._rest, _SPANS.values(), strict=True):
            yield f"{co2e}{told * share:.12g}"
            yield f"{seconds}{(min(at, end) - first) * share:.12g}"
            yield f"{ended}{epochs}"
        if epochs:
            for series, value in zip(self._values, self._learned(epochs), strict=True):
                yield f"{series}{value:.6g}"

    def _learned(self, epochs: int) -> tuple[float, float, float]:
        """Loss, accuracy and samples seen after so many epochs."""
        done = epochs * self._training.epoch_seconds / (self._job.end - self._first)
        return 0.4 + 2.2 * math.exp(-4 * done), 0.92 * (1 - math.exp(-3 * done)), epochs * 50_000.0

    def _predicted(self, accounts: list[Account]) -> tuple[float, float]:
        """Kilowatt-hours and grams at the end, three percent too high."""
        end = self._job.end
        return 1.03 * _kwh(accounts, end), 1.03 * sum(account.grams(end) for account in accounts)


_SPANS = {"epoch": 1.0, "evaluate": _EVALUATION}
"""By name: the share of all energy."""
_RUN = ("energy_kwh_total", "co2e_grams_total", "predicted_energy_kwh", "predicted_co2e_grams")


def _rest(node: Node) -> tuple[tuple[str, dict[str, str]], ...]:
    return ("_co2e_grams_total", {"region": node.region}), ("_duration_seconds_total", {}), ("s_total", {})


def _kwh(accounts: list[Account], t: float) -> float:
    return sum(account.joules(t) for account in accounts) / JOULES_PER_KWH
