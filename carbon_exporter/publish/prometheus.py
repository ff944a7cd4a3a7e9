"""Prometheus exposition: a snapshot rendered once to bytes, as text 0.0.4 and OpenMetrics 1.0.0.

Sample lines are the same in both formats, so they are rendered once; only headers differ, and the exemplars that
OpenMetrics has beside some counters. What is constant of a series (its name and escaped labels) is kept from tick to
tick. A page that was asked for lately is made, and
compressed, before the snapshot is swapped in, so that a scrape only writes bytes.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from carbon_exporter.publish.catalogue import CATALOGUE, JobLabel, LabelValues, Metric, label_names, utf8
from carbon_exporter.publish.samples import Exemplar
from carbon_exporter.snapshot import Snapshot

__all__ = ["CONTENT_TYPES", "Exposition", "Format", "Renderer", "accepts_gzip", "negotiate"]

Format = Literal["text", "openmetrics"]

CONTENT_TYPES: dict[Format, str] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
}

_GZIP_LEVEL = 1
"""Ten times faster than 9, for a page a third larger."""


class Exposition:
    """One snapshot's pages. Made by the sampling thread, read by the server's."""

    def __init__(
        self, metrics: tuple[Metric, ...], headers: dict[Format, tuple[bytes, ...]], blocks: dict[Format, list[bytes]]
    ) -> None:
        """`blocks` are the sample lines of each metric, `headers` what stands before them, in each format."""
        self._metrics = metrics
        self._headers = headers
        self._blocks = blocks
        self._pages: dict[tuple[Format, bool], bytes] = {}

    def page(self, form: Format, *, compressed: bool) -> bytes:
        """The whole page; made at the first call for it, then kept."""
        known = self._pages.get((form, compressed))
        if known is None:
            known = (
                gzip.compress(self.page(form, compressed=False), _GZIP_LEVEL, mtime=0)
                if compressed
                else self._join(form)
            )
            self._pages[form, compressed] = known
        return known

    def part(self, form: Format, names: Collection[str], *, compressed: bool) -> bytes:
        """Only the metrics or families of these names, as `name[]` asks for them."""
        page = self._join(form, [metric.name in names or metric.family in names for metric in self._metrics])
        return gzip.compress(page, _GZIP_LEVEL, mtime=0) if compressed else page

    def _join(self, form: Format, chosen: Iterable[bool] | None = None) -> bytes:
        wanted = [True] * len(self._metrics) if chosen is None else chosen
        triples = zip(self._headers[form], self._blocks[form], wanted, strict=True)
        pages = [part for header, block, want in triples if want and block for part in (header, block)]
        return b"".join([*pages, b"# EOF\n"] if form == "openmetrics" else pages)


class Renderer:
    """Renders snapshots. `render` is for one thread; `note_demand` for any."""

    def __init__(self, job_label: JobLabel = "job_name", metrics: tuple[Metric, ...] = CATALOGUE) -> None:
        """`job_label` spells the job's label."""
        self.job_label = job_label
        self._metrics = metrics
        self._prefixes = tuple(_Prefixes(metric.name, label_names(metric, job_label)) for metric in metrics)
        self._headers: dict[Format, tuple[bytes, ...]] = {
            "text": tuple(_text_header(metric) for metric in metrics),
            "openmetrics": tuple(_openmetrics_header(metric) for metric in metrics),
        }
        self._demand: dict[tuple[Format, bool], int] = {}
        self._renders = 0

    def note_demand(self, form: Format, *, compressed: bool) -> None:
        """Someone asked for this page: have it ready from now on."""
        self._demand[form, compressed] = self._renders

    def render(self, snapshot: Snapshot) -> Exposition:
        """All metrics of a snapshot, with the pages that were asked for in the last hundred ticks made beforehand."""
        self._renders += 1
        both = [self._block(index, snapshot) for index in range(len(self._metrics))]
        blocks: dict[Format, list[bytes]] = {
            "text": [text for text, _ in both],
            "openmetrics": [more for _, more in both],
        }
        exposition = Exposition(self._metrics, self._headers, blocks)
        for (form, compressed), when in tuple(self._demand.items()):
            if self._renders - when <= _DEMAND_TICKS:
                exposition.page(form, compressed=compressed)
        return exposition

    def _block(self, index: int, snapshot: Snapshot) -> tuple[bytes, bytes]:
        """The sample lines of one metric as text and as OpenMetrics, mostly the same.

        Prefixes of series that are gone are dropped once they outnumber the rest.
        """
        metric, prefixes = self._metrics[index], self._prefixes[index]
        samples = list(metric.samples(snapshot))
        if len(prefixes) > 2 * len(samples) + 16:
            prefixes.clear()
        if not samples:
            return b"", b""
        numbers = _spell([value for _, value in samples])
        lines = [f"{prefixes[values]}{number}\n" for (values, _), number in zip(samples, numbers, strict=True)]
        text = "".join(lines).encode()
        exemplars = metric.exemplars(snapshot) if metric.exemplars else None
        if not exemplars:
            return text, text
        cases = [_exemplar(exemplars[values]) if values in exemplars else "" for values, _ in samples]
        return text, "".join([f"{line[:-1]}{case}\n" for line, case in zip(lines, cases, strict=True)]).encode()


class _Prefixes(dict[LabelValues, str]):
    """What stands before the value of each sample of one metric: made when it is first asked for."""

    def __init__(self, name: str, labels: tuple[str, ...]) -> None:
        super().__init__()
        self._name, self._labels = name, labels

    def __missing__(self, values: LabelValues) -> str:
        prefix = self[values] = _prefix(self._name, self._labels, values)
        return prefix


_DEMAND_TICKS = 100
_MEDIA: dict[str, Format] = {"application/openmetrics-text": "openmetrics", "text/plain": "text"}


def negotiate(accept: str) -> Format:
    """The format that an Accept header prefers; text where it says nothing of ours."""
    best: Format = "text"
    best_quality = 0.0
    for media, quality in _choices(accept):
        if media in _MEDIA and quality > best_quality:
            best, best_quality = _MEDIA[media], quality
    return best


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an Accept-Encoding header allows gzip: by its name or, without that, by `*`."""
    quality = dict(_choices(accept_encoding))
    return quality.get("gzip", quality.get("*", 0.0)) > 0


def _choices(header: str) -> Iterator[tuple[str, float]]:
    """What a header offers, in lower case, and how much it is wanted."""
    for choice in header.split(","):
        name, *parameters = (part.strip().lower() for part in choice.split(";"))
        yield name, _quality(parameters)


def _quality(parameters: Iterable[str]) -> float:
    """The q of a header's choice: 1 if it is not given, 0 if it is nonsense."""
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _prefix(name: str, labels: tuple[str, ...], values: LabelValues) -> str:
    """`name{label="value",…} `, without labels whose value is empty."""
    pairs = [f'{label}="{_escape(value)}"' for label, value in zip(labels, values, strict=True) if value]
    return f"{name}{{{','.join(pairs)}}} " if pairs else f"{name} "


def _escape(value: str) -> str:
    """A label's value as both formats want it."""
    return utf8(value).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _exemplar(case: Exemplar) -> str:
    """What stands behind a sample: ` # {trace_id="…"} value timestamp`."""
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in case.labels.items() if value)
    return f" # {{{pairs}}} {case.value!r} {case.at!r}"


def _spell(values: Sequence[float]) -> list[str]:
    """Numbers as text that is read back as the same: made together, which takes a sixth of what `repr` of each does."""
    numbers = msgspec.json.encode(values).decode()[1:-1].split(",")
    if "null" not in numbers:
        return numbers
    return [_special(value) if number == "null" else number for value, number in zip(values, numbers, strict=True)]


def _special(value: float) -> str:
    """What JSON has no number for."""
    if math.isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


def _text_header(metric: Metric) -> bytes:
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {metric.name} {text}\n# TYPE {metric.name} {metric.type}\n".encode()


def _openmetrics_header(metric: Metric) -> bytes:
    unit = f"# UNIT {metric.family} {metric.unit}\n" if metric.unit else ""
    return f"# HELP {metric.family} {_escape(metric.help)}\n# TYPE {metric.family} {metric.type}\n{unit}".encode()
