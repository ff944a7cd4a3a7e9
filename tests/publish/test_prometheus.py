"""The exposition: both formats as other programs read them, and as prometheus_client would have written them."""

from __future__ import annotations

import gzip
import math
import re
import subprocess
from collections.abc import Callable, Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.snapshots import HOSTILE, many_jobs, snapshot, snapshots
from support.tools import need

from carbon_exporter.carbon.account import DeviceKey, JobKey
from carbon_exporter.jobs.base import Job
from carbon_exporter.publish.catalogue import CATALOGUE, JOB_LABELS, JobLabel, Metric
from carbon_exporter.publish.collector import CarbonCollector
from carbon_exporter.publish.prometheus import Format, Renderer, accepts_gzip, negotiate
from carbon_exporter.snapshot import Snapshot
from carbon_exporter.units import Watts

Sample = tuple[str, tuple[tuple[str, str], ...], float]
FORMATS: tuple[Format, ...] = ("text", "openmetrics")
PARSERS: dict[Format, Callable[[str], Iterable[Family]]] = {"text": parse_text, "openmetrics": parse_openmetrics}
WRITERS: dict[Format, Callable[[CollectorRegistry], bytes]] = {
    "text": generate_latest,
    "openmetrics": exposition.generate_latest,
}
LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)", re.DOTALL)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"', re.DOTALL)


def render(seen: Snapshot, form: Format = "text", job_label: JobLabel = "job_name") -> str:
    """A page as a client decodes it."""
    return Renderer(job_label).render(seen).page(form, compressed=False).decode()


def by_prometheus_client(seen: Snapshot, form: Format, job_label: JobLabel = "job_name") -> str:
    """The page of a registry in which the Collector is mounted."""
    registry = CollectorRegistry()
    registry.register(CarbonCollector(lambda: seen, job_label))
    return WRITERS[form](registry).decode()


def samples(page: str, form: Format) -> list[Sample]:
    """What a parser makes of a page; an empty label is no label to Prometheus."""
    return [
        (sample.name, tuple(sorted((k, v) for k, v in sample.labels.items() if v)), sample.value)
        for family in PARSERS[form](page)
        for sample in family.samples
    ]


def canonical(page: str) -> list[str]:
    """The page's lines with labels sorted, empty ones left out, and numbers spelt one way; escapes stay as they are."""
    lines = []
    for line in page.split("\n"):
        match = None if line.startswith("#") else LINE.fullmatch(line)
        if match:
            labels = sorted(pair for pair in LABEL.findall(match[2] or "") if pair[1])
            line = f"{match[1]} {labels} {float(match[3])!r}"  # noqa: PLW2901 - the same line, respelt
        lines.append(line)
    return lines


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=40, deadline=None)
@given(seen=snapshots())
@example(seen=snapshot())
@example(seen=many_jobs(300))
def test_a_page_is_line_for_line_what_prometheus_client_writes(form: Format, seen: Snapshot) -> None:
    assert canonical(render(seen, form)) == canonical(by_prometheus_client(seen, form))


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=40, deadline=None)
@given(seen=snapshots())
@example(seen=snapshot())
def test_a_page_is_read_back_as_the_samples_it_was_made_of(form: Format, seen: Snapshot) -> None:
    ours = samples(render(seen, form), form)
    wanted = [
        (metric.name, tuple(sorted((k, v) for k, v in zip(metric.labels, values, strict=True) if v)), value)
        for metric in CATALOGUE
        for values, value in metric.samples(seen)
    ]
    clean = [(n, tuple((k, v.encode(errors="replace").decode()) for k, v in pairs), x) for n, pairs, x in wanted]
    assert list(map(repr, ours)) == list(map(repr, clean))


@pytest.mark.parametrize("spelling", JOB_LABELS)
@pytest.mark.parametrize("form", FORMATS)
def test_every_spelling_of_the_jobs_label_is_the_collectors_too(form: Format, spelling: JobLabel) -> None:
    page = render(snapshot(), form, spelling)
    assert canonical(page) == canonical(by_prometheus_client(snapshot(), form, spelling))
    assert f'{{{spelling}="train",region="FR"' in page


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
@pytest.mark.parametrize("form", FORMATS)
def test_a_hostile_name_stays_one_label_of_one_sample(form: Format, name: str) -> None:
    key = JobKey(Job(name), DeviceKey("cpu0", "cpu", "FR"))
    page = render(snapshot(job_power={key: Watts(7.0)}), form)
    (power,) = (labels for metric, labels, _ in samples(page, form) if metric == "carbon_job_power_watts")
    assert dict(power)["job_name"] == name.replace("\udc80", "?")


def test_openmetrics_tells_units_and_ends_in_eof() -> None:
    page = render(snapshot(), "openmetrics")
    assert page.endswith("\n# EOF\n")
    assert page.count("# EOF") == 1
    assert "\n# TYPE carbon_device_energy_kwh counter\n# UNIT carbon_device_energy_kwh kwh\n" in page
    assert "\n# UNIT carbon_grid_intensity_grams_per_kwh grams_per_kwh\n" in page
    assert "# EOF" not in render(snapshot())


def test_empty_labels_are_absent() -> None:
    page = render(snapshot())
    assert '=""' not in page
    assert '\ncarbon_job_info{job_name="train"} 1.0\n' in page
    assert 'job_namespace="research"' in page


def test_a_metric_without_samples_is_not_mentioned() -> None:
    assert "carbon_job_power_watts" not in render(snapshot(job_power={}))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("value", "spelt"),
    [
        (math.nan, "NaN"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (0.0, "0.0"),
        (1e-9, "1e-9"),
        (1795310000.25, "1795310000.25"),
        (1e22, "1e22"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_a_number_is_spelt_so_that_nothing_of_it_is_lost(form: Format, value: float, spelt: str) -> None:
    metric = Metric("carbon_x", "gauge", (), "A number.", lambda _: [((), value)])
    page = Renderer(metrics=(metric,)).render(snapshot()).page(form, compressed=False).decode()
    assert f"\ncarbon_x {spelt}\n" in page
    ((_, _, back),) = samples(page, form)
    assert repr(back) == repr(value)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([metric.name for metric in CATALOGUE]), max_size=4), st.booleans())
def test_a_part_has_the_metrics_asked_for_by_name_or_family_and_no_others(names: list[str], by_family: bool) -> None:
    wanted = {name.removesuffix("_total") if by_family else name for name in names}
    exposition = Renderer().render(snapshot())
    for form in FORMATS:
        page = exposition.part(form, wanted, compressed=False).decode()
        assert {name for name, *_ in samples(page, form)} == set(names)
        assert gzip.decompress(exposition.part(form, wanted, compressed=True)).decode() == page


def test_a_part_of_unknown_names_is_an_empty_but_valid_page() -> None:
    exposition = Renderer().render(snapshot())
    assert exposition.part("text", {"nonsense"}, compressed=False) == b""
    assert exposition.part("openmetrics", {"nonsense"}, compressed=False) == b"# EOF\n"


@pytest.mark.parametrize("form", FORMATS)
def test_a_compressed_page_unpacks_to_the_plain_one(form: Format) -> None:
    exposition = Renderer().render(many_jobs(500))
    packed = exposition.page(form, compressed=True)
    assert gzip.decompress(packed) == exposition.page(form, compressed=False)
    assert len(packed) < len(exposition.page(form, compressed=False)) / 5


def test_a_page_is_made_once_and_beforehand_where_it_was_asked_for_lately() -> None:
    renderer = Renderer()
    assert renderer.render(snapshot())._pages == {}
    renderer.note_demand("text", compressed=True)
    made = renderer.render(snapshot())
    assert set(made._pages) == {("text", True), ("text", False)}
    assert made.page("text", compressed=True) is made.page("text", compressed=True)
    for _ in range(100):
        made = renderer.render(snapshot())
    assert made._pages == {}


def test_what_is_kept_of_series_is_bounded_while_series_come_and_go() -> None:
    renderer = Renderer()
    for generation in range(50):
        page = renderer.render(many_jobs(40, f"generation-{generation}")).page("text", compressed=False)
        assert page.count(f'job_name="generation-{generation}-39"'.encode()) == 3
    assert page.count(b'job_name="') == 3 * 40
    kept = sum(len(prefixes) for prefixes in renderer._prefixes)
    assert kept <= 2 * len(samples(page.decode(), "text")) + 16 * len(CATALOGUE)


def test_a_renderer_gives_the_same_page_first_and_warm() -> None:
    renderer = Renderer()
    first, second = (renderer.render(many_jobs(20)).page("text", compressed=False) for _ in range(2))
    assert first == second == Renderer().render(many_jobs(20)).page("text", compressed=False)


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3_5 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
WITH_PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
    "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (PROMETHEUS_2_42, "openmetrics"),
        (PROMETHEUS_3_5, "openmetrics"),
        (WITH_PROTOBUF, "openmetrics"),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", "openmetrics"),
        ("APPLICATION/OpenMetrics-Text ; Q=1", "openmetrics"),
        ("text/plain;q=0.2, application/openmetrics-text;q=0.3", "openmetrics"),
        ("text/plain;q=0.3, application/openmetrics-text;q=0.2", "text"),
        ("application/openmetrics-text;q=0", "text"),
        ("application/openmetrics-text;q=0, */*", "text"),
        ("application/openmetrics-text;q=high", "text"),
        ("application/openmetrics-text;q=nan", "text"),
        ("text/plain;version=0.0.4", "text"),
        (BROWSER, "text"),
        ("*/*", "text"),
        ("", "text"),
        (",;=,;;q,/,", "text"),
        ("application/json", "text"),
    ],
)
def test_the_format_is_the_one_that_the_client_prefers(accept: str, form: Format) -> None:
    assert negotiate(accept) == form


@pytest.mark.parametrize(
    ("accept_encoding", "wanted"),
    [
        ("gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("GZIP;q=0.5", True),
        ("*", True),
        ("identity;q=0.5, *;q=0.1", True),
        ("*;q=0, gzip", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.000", False),
        ("gzip;q=nan", False),
        ("gzip;q=much", False),
        ("identity", False),
        ("br", False),
        ("", False),
    ],
)
def test_gzip_is_sent_to_those_who_take_it(accept_encoding: str, wanted: bool) -> None:
    assert accepts_gzip(accept_encoding) is wanted


@settings(max_examples=300, deadline=None)
@given(
    st.text()
    | st.lists(
        st.sampled_from([",", ";", "q=", "Q =", "1", "0", "-1", "1e999", "inf", "gzip", "*", "text/plain", "\t", '"'])
    ).map("".join)
)
def test_no_header_makes_the_negotiation_fail(header: str) -> None:
    assert negotiate(header) in FORMATS
    assert accepts_gzip(header) in {True, False}


@pytest.mark.parametrize("spelling", ["job_name", "hpc_job"])
def test_promtool_has_nothing_to_say(spelling: JobLabel) -> None:
    promtool = need("promtool")
    names = {JobKey(Job(name, name), DeviceKey("cpu0", "cpu", "FR")): Watts(1.0) for name in HOSTILE}
    page = render(snapshot(job_power=names), job_label=spelling)
    said = subprocess.run([promtool, "check", "metrics"], input=page.encode(), capture_output=True, check=False)
    assert (said.returncode, said.stdout.decode(), said.stderr.decode()) == (0, "", "")
