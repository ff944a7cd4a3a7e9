"""Asks a Prometheus which runs there were: what each used, how long it took, and what it had recorded at its end.

Energy and CO2e are sums of what the run's counters gained, over all ranks, as for a job. A run has begun at the scrape
before its energy first grew, and has ended at the scrape at which it grew last.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from carbon_exporter.errors import QueryError
from carbon_exporter.report.client import PrometheusClient, Series
from carbon_exporter.report.counters import any_of, gain, quoted
from carbon_exporter.report.run_facts import Run, Value
from carbon_exporter.report.stretch import DAY, Stretch, in_parts, pieces

__all__ = ["RunFilter", "find_runs"]

ENERGY, GRAMS = "carbon_run_energy_kwh_total", "carbon_run_co2e_grams_total"
WINDOW = 300
BACK = 3600
"""Seconds in which the sample before is looked for: the look-back of the rules."""
GOES_ON = 300
"""Seconds after the last growth of its energy, without a sample that says otherwise, in which a run may go on."""
ABOUT = ("model", "dataset", "batch_size")
Key = tuple[str, str, str, str]
"""Cluster, namespace, job, run; empty where there is none."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are asked for; what is empty asks for all."""

    jobs: tuple[str, ...] = ()
    namespace: str | None = None
    cluster: str = ""
    job_label: str = "job_name"

    @property
    def matchers(self) -> str:
        """Of PromQL, after the opening brace."""
        wanted = [f'{self.job_label}!=""']
        if self.jobs:
            wanted.append(f"{self.job_label}=~{any_of(self.jobs)}")
        if self.namespace is not None:
            wanted.append(f"job_namespace={quoted(self.namespace)}")
        if self.cluster:
            wanted.append(f"cluster={quoted(self.cluster)}")
        return ",".join(wanted)

    @property
    def identity(self) -> str:
        """The labels that tell runs apart, as `by` takes them."""
        return f"cluster, job_namespace, {self.job_label}, run"

    def key(self, series: Series) -> Key:
        """Whose series it is."""
        cluster, namespace, job, run = map(series.label, ("cluster", "job_namespace", self.job_label, "run"))
        return cluster, namespace, job, run

    def one(self, metric: str, key: Key, *, run: bool = True) -> str:
        """The series of one run, or of its job."""
        names = ("cluster", "job_namespace", self.job_label, "run")[: 4 if run else 3]
        return f"{metric}{{{','.join(f'{name}={quoted(text)}' for name, text in zip(names, key, strict=False))}}}"


def find_runs(client: PrometheusClient, wanted: RunFilter, begin: int, end: int) -> tuple[Run, ...]:
    """Those that used energy from `begin` to `end`, in Unix seconds, in the order in which they began.

    Raises `QueryError` where the server does not answer or knows no such run.
    """
    totals = _totals(client, wanted, begin, end)
    if not totals:
        raise QueryError(
            "this server has no such run between --from and --to",
            remedy="CarbonRun publishes runs: does it scrape them, with these --job, --namespace and --job-label?",
        )
    runs = [_run(client, wanted, key, total, (begin, end)) for key, total in totals.items()]
    return tuple(sorted(runs, key=lambda run: (run.began, run.job, run.name)))


@dataclass(slots=True)
class _Total:
    """What the windows of a run add up to; the first and the last in which its energy grew."""

    energy: list[float] = field(default_factory=list)
    grams: list[float] = field(default_factory=list)
    first: tuple[int, int] = (0, 0)
    last: tuple[int, int] = (0, 0)

    def add(self, begin: int, end: int, kwh: float) -> None:
        """Windows come in order of time."""
        if not self.energy:
            self.first = begin, end
        self.last = begin, end
        self.energy.append(kwh)


def _totals(client: PrometheusClient, wanted: RunFilter, begin: int, end: int) -> dict[Key, _Total]:
    """By windows of five minutes, in those days in which some run used energy."""
    series = {metric: f"{metric}{{{wanted.matchers}}}" for metric in (ENERGY, GRAMS)}
    made: dict[Key, _Total] = defaultdict(_Total)
    for day in _days(client, series[ENERGY], begin, end):
        for piece in pieces(day.begin, day.end, WINDOW):
            rows = _gains(client, series[ENERGY], wanted.identity, piece)
            for at, step, one, kwh in sorted(rows, key=lambda row: row[0]):
                made[wanted.key(one)].add(at - step, at, kwh)
            for _, _, one, grams in _gains(client, series[GRAMS], wanted.identity, piece):
                if wanted.key(one) in made:
                    made[wanted.key(one)].grams.append(grams)
    return made


def _days(client: PrometheusClient, series: str, begin: int, end: int) -> list[Stretch]:
    found = {
        Stretch(at - step, at, step)
        for day in pieces(begin, end, DAY, 3650 * DAY)
        for at, step, _, _ in _gains(client, series, "", day)
    }
    return sorted(found, key=lambda day: day.begin)


def _gains(
    client: PrometheusClient, series: str, labels: str, stretch: Stretch
) -> Iterable[tuple[int, int, Series, float]]:
    """Windows in which something was gained: their end, their seconds, whose, and how much."""

    def ask(part: Stretch) -> list[Series]:
        return client.windows(f"{gain(series, labels, part.step)} > 0", part.begin, part.end, part.step)

    for part, rows in in_parts(stretch, ask):
        for one in rows:
            yield from ((round(at), part.step, one, value) for at, value in one.points)


def _run(client: PrometheusClient, wanted: RunFilter, key: Key, total: _Total, asked: tuple[int, int]) -> Run:
    energy = wanted.one(ENERGY, key)
    before = client.instant(f"{energy}[{total.first[1] - total.first[0] + BACK}s]", total.first[1])
    until = min(total.last[1] + GOES_ON, asked[1])
    after = client.instant(f"{energy}[{until - total.last[0] + BACK}s]", until)
    began = min((growth[0][0] for growth in map(_growths, before) if growth), default=total.first[0])
    ended = max((growth[-1][1] for growth in map(_growths, after) if growth), default=total.last[1])
    # What it recorded last is told at the latest with the scrape at which its energy stands still.
    settled = min((at for series in after for at, _ in series.points if at > ended), default=0.0)
    cluster, namespace, job, name = key
    moment = settled or ended
    about = _about(client, wanted, key, moment)
    return Run(
        cluster=cluster,
        namespace=namespace,
        job=job,
        name=name,
        about=about,
        ranks=len({series.label("rank") for series in (*before, *after)}),
        began=max(began, asked[0]),
        ended=ended,
        energy_kwh=math.fsum(total.energy),
        co2e_grams=math.fsum(total.grams),
        values=_values(client, wanted, key, (began, moment)),
        goes_on=not settled and asked[1] - ended < GOES_ON,
        cut=began < asked[0],
    )


def _growths(series: Series) -> list[tuple[float, float]]:
    """Pairs of moments between which it grew."""
    pairs = zip(series.points, series.points[1:], strict=False)
    return [(before[0], now[0]) for before, now in pairs if now[1] > before[1]]


def _about(client: PrometheusClient, wanted: RunFilter, key: Key, at: float) -> tuple[tuple[str, str], ...]:
    info = f"group by ({', '.join(ABOUT)}) (last_over_time({wanted.one('carbon_run_info', key)}[{BACK}s]))"
    told: dict[str, set[str]] = defaultdict(set)
    for row in client.instant(info, at):
        for name in ABOUT:
            told[name] |= {row.label(name)} - {""}
    return tuple((name, ", ".join(sorted(told[name]))) for name in ABOUT if told[name])


def _values(
    client: PrometheusClient, wanted: RunFilter, key: Key, time: tuple[float, float]
) -> tuple[tuple[Value, float], ...]:
    """Of the ranks that belong to the run, in spans that went on during the run: others are of a run before it."""
    lasted = max(math.ceil(time[1] - time[0]), 1)
    window = f"[{min(lasted, BACK)}s]"
    spans = wanted.one("carbon_span_duration_seconds_total", key, run=False)
    told = wanted.one("carbon_span_value", key, run=False)
    stale = f"last_over_time({spans}{window}) == last_over_time({spans}[{BACK}s] offset {lasted}s)"
    asked = (
        f"avg by (span, name) ((last_over_time({told}{window}) "
        f"and on (instance, rank) last_over_time({wanted.one(ENERGY, key)}{window})) "
        f"unless on (instance, rank, span) ({stale}))"
    )
    rows = client.instant(asked, time[1])
    return tuple(sorted(((row.label("span"), row.label("name")), row.points[0][1]) for row in rows))
