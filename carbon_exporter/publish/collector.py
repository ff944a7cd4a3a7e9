"""A `prometheus_client` Collector of the same catalogue, for programs that expose a registry of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from carbon_exporter.publish.catalogue import CATALOGUE, JobLabel, Metric, label_names, utf8
from carbon_exporter.snapshot import Snapshot

__all__ = ["CarbonCollector"]


class CarbonCollector(Collector):
    """Yields the newest snapshot's families, made anew at each scrape. It reads memory only."""

    def __init__(self, latest: Callable[[], Snapshot | None], job_label: JobLabel = "job_name") -> None:
        """`latest` gives the newest snapshot, None before the first."""
        self._latest = latest
        self._job_label: JobLabel = job_label

    def collect(self) -> Iterator[Family]:
        """All families that have samples."""
        snapshot = self._latest()
        if snapshot is not None:
            for metric in CATALOGUE:
                family = self._family(metric)
                cases = metric.exemplars(snapshot) if metric.exemplars else {}
                for values, value in metric.samples(snapshot):
                    labels = [utf8(text) for text in values]
                    if values in cases and isinstance(family, CounterMetricFamily):
                        case = cases[values]
                        exemplar = Exemplar(dict(case.labels), case.value, case.at)
                        family.add_metric(labels, value, exemplar=exemplar)
                    else:
                        family.add_metric(labels, value)
                if family.samples:
                    yield family

    def describe(self) -> Iterable[Family]:
        """All families without samples: a registry needs their names to check them and to filter by `name[]`."""
        return [self._family(metric) for metric in CATALOGUE]

    def _family(self, metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
        labels = label_names(metric, self._job_label)
        kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
        return kind(metric.family, metric.help, labels=labels, unit=metric.unit)
