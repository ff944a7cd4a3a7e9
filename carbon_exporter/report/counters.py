"""What is asked of a Prometheus about one job: expressions, made of its labels.

Totals are sums of what counters really gained in windows that touch, as grafana/rules/leaf.yml has it: the newest
sample less the newest from before, which may be up to an hour old; a counter that is new, or was reset, begins at its
own first sample. Nothing is extrapolated, so the windows add up to the whole, whatever their length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "ENERGY",
    "RULE_SECONDS",
    "Counters",
    "RawCounters",
    "RecordedCounters",
    "Selection",
    "any_of",
    "gain",
    "gained",
    "quoted",
]

ENERGY = "carbon_job_energy_kwh_total"
GRAMS = "carbon_job_co2e_grams_total"
RULE_SECONDS = 300
"""The windows of the recording rules."""
EVALUATED_SECONDS = 60
"""How often they are evaluated."""

_META = re.compile(r"[\\.+*?()|\[\]{}^$]")
_SPANS = {
    "energy_kwh": "carbon_span_energy_kwh",
    "co2e_grams": "carbon_span_co2e_grams",
    "seconds": "carbon_span_duration_seconds",
    "ended": "carbon_spans",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """One job, by the labels of its series."""

    name: str
    namespace: str = ""
    cluster: str = ""
    """Empty: of all clusters."""
    job_label: str = "job_name"

    @property
    def job(self) -> str:
        """The matcher of its name alone."""
        return f"{self.job_label}={quoted(self.name)}" + (f",cluster={quoted(self.cluster)}" if self.cluster else "")

    @property
    def matchers(self) -> str:
        """Name, namespace and cluster; an empty value matches a label that is absent."""
        return f"{self.job},job_namespace={quoted(self.namespace)}"

    def of(self, metric: str, window: float | None = None) -> str:
        """The job's series of a metric; with a window their samples of so many seconds."""
        return f"{metric}{{{self.matchers}}}" + (f"[{window:g}s]" if window else "")


def quoted(text: str) -> str:
    """A string of PromQL: its escapes are those of Go, which has all of JSON's."""
    return json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False)


def any_of(texts: Iterable[str]) -> str:
    """A pattern of PromQL that is each of these texts and nothing else; engines look them up instead of matching."""
    return quoted("|".join(_META.sub(r"\\\g<0>", text) for text in texts))


def gained(series: str, window: int) -> str:
    """What each counter that a selector matches gained in a window of so many seconds."""
    now, first = (f"{name}({series}[{window}s])" for name in ("last_over_time", "min_over_time"))
    before = f"last_over_time({series}[1h] offset {window}s)"
    return f"{now} - (({before} <= {now}) or {first})"


def gain(series: str, labels: str, window: int) -> str:
    """What they gained together, by labels."""
    return f"sum by ({labels}) ({gained(series, window)})"


class Counters(Protocol):
    """Where totals come from: counters as scraped, or what the rules have recorded of them."""

    @property
    def method(self) -> str:
        """In words, after `Totals are`."""
        ...

    @property
    def finest(self) -> int | None:
        """Seconds of a window, where that is not free."""
        ...

    def presence(self, window: int) -> str:
        """Something wherever the job was there within the window."""
        ...

    def energy(self, window: int) -> str:
        """Energy of the window in kWh, by cluster, instance, device, kind and region as far as they are known."""
        ...

    def grams(self, window: int) -> str:
        """Grams of the window, by region."""
        ...

    def spans(self, window: int) -> dict[str, str]:
        """For each number of `SpanFacts` that adds up: of the window, by span and rank."""
        ...


@dataclass(frozen=True, slots=True)
class RawCounters:
    """Of the counters themselves."""

    selection: Selection
    method: str = "differences of the job's counters, nothing extrapolated"
    finest: int | None = None

    def presence(self, window: int) -> str:  # noqa: D102 - the protocol says it
        return f"sum(count_over_time({self.selection.of(ENERGY, window)}))"

    def energy(self, window: int) -> str:  # noqa: D102
        return self._gain(ENERGY, "cluster, instance, device, kind, region", window)

    def grams(self, window: int) -> str:  # noqa: D102
        return self._gain(GRAMS, "region", window)

    def spans(self, window: int) -> dict[str, str]:  # noqa: D102
        return {name: self._gain(f"{metric}_total", "span, rank", window) for name, metric in _SPANS.items()}

    def _gain(self, metric: str, labels: str, window: int) -> str:
        return gain(self.selection.of(metric), labels, window)


@dataclass(frozen=True, slots=True)
class RecordedCounters:
    """Of the series that the recording rules made: what a Prometheus has that holds no others.

    Each minute they hold what the last five have gained, so a fifth of their sum is the whole, from whenever it is
    counted: a series that begins, ends or has gaps needs no care.
    """

    selection: Selection
    method: str = "sums of the recorded five-minute increases of the job's counters"
    finest: int | None = RULE_SECONDS

    def presence(self, window: int) -> str:  # noqa: D102
        return f"sum(count_over_time({self.selection.of('job_kind:carbon_job_energy_kwh:increase5m', window)}))"

    def energy(self, window: int) -> str:  # noqa: D102
        return self._gain("job_kind:carbon_job_energy_kwh", "cluster, kind, region", window)

    def grams(self, window: int) -> str:  # noqa: D102
        return self._gain("job:carbon_job_co2e_grams", "region", window)

    def spans(self, window: int) -> dict[str, str]:  # noqa: D102
        return {name: self._gain(f"span:{metric}", "span, rank", window) for name, metric in _SPANS.items()}

    def _gain(self, record: str, labels: str, window: int) -> str:
        # Prometheus 2 counts a sample on the edge of two windows in both of them, but for the missing millisecond.
        samples = f"{self.selection.of(f'{record}:increase5m')}[{1000 * window - 1}ms]"
        return f"sum by ({labels}) (sum_over_time({samples})) * {EVALUATED_SECONDS} / {RULE_SECONDS}"
