"""The words, held: generated pages equal the code, links lead somewhere, and names, flags and examples are real."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support import settings_page
from support.tools import need

import carbon_exporter
from carbon_exporter import cli
from carbon_exporter.cli import metrics
from carbon_exporter.config import load, settings_table
from carbon_exporter.energy.ledger import Ledger
from carbon_exporter.publish.catalogue import CATALOGUE
from carbon_exporter.publish.handoff_limits import REASONS
from carbon_exporter.publish.unix_socket import SYSTEM_SOCKET
from carbon_exporter.sdk.span import CarbonSpan, carbon_span
from carbon_exporter.sdk.tracker import configure
from carbon_exporter.sensors.base import Quality
from carbon_exporter.sensors.replay import Replay

ROOT = Path(carbon_exporter.__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "carbon_exporter/data/PROVENANCE.md"])
UNIT = ROOT / "deploy/carbon-exporter.service"
PLANNED = re.compile(r"<!-- planned -->.*?<!-- /planned -->", re.DOTALL)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SDK_PAGE = ROOT / "docs/sdk.md"
SDK_CODE = "".join(path.read_text() for path in sorted(ROOT.glob("carbon_exporter/sdk/*.py")))
NO_METRICS = {"carbon_exporter", "carbon_exporter_recording", *carbon_exporter.__all__}
"""The package, the key that begins a recording, and the public names."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text())


def promised(page: Path) -> str:
    """A page without what it says is planned."""
    return PLANNED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors that headings get: lower case, punctuation gone, spaces as hyphens."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def command_flags(text: str) -> Iterator[str]:
    """Flags that stand after the command's name, up to the end of the command or to one that it runs."""
    for line in text.replace("\\\n", " ").splitlines():
        for arguments in re.findall(r"(?<![\w-])carbon-exporter(?![\w/.-])([^|;#`&\"]*)", line):
            yield from re.findall(r"(?<!\S)--[a-z][a-z.-]*", arguments.partition(" -- ")[0])


def known_flags() -> set[str]:
    """Every flag that the command line takes, by its own account."""
    shown = [cli._parser().format_help()]
    for command in cli._parser()._subparsers._group_actions:  # type: ignore[union-attr]
        assert isinstance(command.choices, dict)
        shown += [parser.format_help() for parser in command.choices.values()]
    return {flag for text in shown for flag in re.findall(r"--[a-z][a-z.-]*", text)}


def table(page: Path, *, under: str, column: int = 0) -> list[str]:
    """What stands in backticks in a column of the first table under a heading or a line."""
    text = page.read_text().partition(under)[2].partition("\n\n|")[2].partition("\n\n")[0]
    rows = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[column])]


def test_the_settings_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs/settings.md").read_text() == settings_page.as_markdown() + "\n"


def test_the_metrics_page_is_what_the_catalogue_says() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == metrics.as_markdown() + "\n"


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs/README.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", index.read_text())}
    assert {page for page in PAGES if (ROOT / "docs") in page.parents and page != index} <= linked


@each_page
def test_every_relative_link_and_anchor_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place), target


@each_page
def test_every_metric_is_in_the_catalogue_or_said_to_be_planned(page: Path) -> None:
    text = re.sub(r"\b[a-z_]+:carbon_\w+:\w+", "", promised(page))  # records: the tests of rules look at those
    names = set(re.findall(r"\bcarbon_[a-z0-9_]*[a-z0-9]\b(?![*(])", text))
    assert names - {metric.name for metric in CATALOGUE} - NO_METRICS == set()


@each_page
def test_every_flag_is_a_setting_or_of_a_command(page: Path) -> None:
    text = promised(page)
    dotted = {flag.rstrip(".") for flag in re.findall(r"(?<![\w-])--[a-z]+\.[a-z][a-z.-]*", text)}
    assert (dotted | set(command_flags(text))) - known_flags() == set()


@each_page
def test_every_variable_of_ours_is_one(page: Path) -> None:
    known = {setting.variable for setting in settings_table().values()}
    known |= {"CARBON_EXPORTER_", "CARBON_EXPORTER_CONFIG_FILE", "CARBON_JOB", "CARBON_REGION"}
    known |= sdk_variables()
    assert set(re.findall(r"\bCARBON_[A-Z_]+\b", promised(page))) - known == set()


@each_page
def test_every_settings_file_in_the_pages_loads(page: Path, tmp_path: Path) -> None:
    for number, (language, text) in enumerate(FENCE.findall(promised(page))):
        if language == "yaml" and not re.search("scrape_configs|apiVersion|^budgets:", text):
            file = tmp_path / f"{number}.yml"
            file.write_text(text)
            load({}, {}, file)


@each_page
def test_every_manifest_in_the_pages_mounts_the_volumes_that_it_has(page: Path) -> None:
    for language, text in FENCE.findall(promised(page)):
        if language == "yaml" and "apiVersion" in text:
            pod = yaml.safe_load(text)["spec"]
            mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}


def sdk_variables() -> set[str]:
    """The variables that the SDK reads."""
    return set(re.findall(r'"(CARBON_[A-Z_]+)"', SDK_CODE))


def test_the_examples_of_the_sdk_page_run_and_are_true(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("CARBON_", "OTEL_"))}
    alone = {"CARBON_SDK_SOCKET": str(tmp_path / "none"), "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "doctest", SDK_PAGE],
        env={**environ, **alone},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@each_page
def test_every_piece_of_python_in_the_pages_compiles(page: Path) -> None:
    for language, text in FENCE.findall(page.read_text()):
        if language == "python" and not text.startswith(">>>"):
            compile(text, str(page), "exec")


def test_the_sdk_page_names_all_that_is_public_and_nothing_else() -> None:
    assert sorted(table(SDK_PAGE, under="## Public names")) == sorted(carbon_exporter.__all__)


def test_the_sdk_page_tells_every_argument_and_value() -> None:
    assert table(SDK_PAGE, under="put the block around the loop.") == list(inspect.signature(carbon_span).parameters)
    assert table(SDK_PAGE, under="logs so.") == list(inspect.signature(configure).parameters)
    values = {re.sub(r"\(.*", "", name) for name in table(SDK_PAGE, under="| `sync` |")}
    assert values | {"wait"} == {name for name in vars(CarbonSpan) if not name.startswith("_")}


def test_the_sdk_page_tells_every_attribute_and_variable() -> None:
    text = SDK_PAGE.read_text()
    attributes = set(re.findall(r'"(carbon\.[a-z.]+)"', (ROOT / "carbon_exporter/sdk/tracing.py").read_text()))
    assert attributes
    assert {name for name in attributes if f"`{name}`" not in text} == set()
    assert {name for name in sdk_variables() if f"`{name}`" not in text} == set()


def test_the_runbook_tells_every_reason_why_scripts_are_turned_away() -> None:
    assert sorted(table(ROOT / "docs/operate.md", under="## Scripts are turned away")) == sorted(REASONS)


def test_every_query_in_the_pages_parses(tmp_path: Path) -> None:
    promtool = need("promtool")
    queries = [text for page in PAGES for language, text in FENCE.findall(page.read_text()) if language == "promql"]
    lines = [line for text in queries for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert lines
    rules = [f"  - {{record: 'query:{number}', expr: {line!r}}}" for number, line in enumerate(lines)]
    file = tmp_path / "rules.yml"
    file.write_text("\n".join(["groups:", "- name: pages", "  rules:", *rules]) + "\n")
    checked = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_scrape_example_is_a_configuration_of_prometheus() -> None:
    command = [need("promtool"), "check", "config", str(ROOT / "examples/prometheus.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_unit_starts_a_command_that_exists_with_settings_that_load() -> None:
    start = re.search(r"^ExecStart=(\S+) (\S+)(.*)$", UNIT.read_text(), re.MULTILINE)
    assert start is not None
    assert Path(start[1]).name == "carbon-exporter"
    assert start[2] in cli.COMMANDS
    settings = {setting.flag for setting in settings_table().values()} | {"--config.file"}
    assert {flag.partition("=")[0] for flag in start[3].split()} <= settings
    assert load({}, {}, ROOT / "deploy/carbon-exporter.yml").listen == ":12011"


def test_the_unit_makes_the_directory_where_scripts_look_for_the_socket() -> None:
    unit = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    assert Path("/run", unit["RuntimeDirectory"]) == Path(SYSTEM_SOCKET).parent
    assert unit["RuntimeDirectoryMode"] == "0755"


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    analyze = need("systemd-analyze")
    sockets = tmp_path / "carbon-exporter.socket"
    sockets.write_text((UNIT.parent / sockets.name).read_text())
    # A program that is here stands in for the one that the unit's machine has.
    copy = tmp_path / UNIT.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    environ = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning"}
    checked = subprocess.run(
        [analyze, "verify", "--man=no", copy, sockets], capture_output=True, text=True, check=False, env=environ
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    exposed = [analyze, "security", "--offline=true", "--threshold=27", str(copy)]
    assert subprocess.run(exposed, capture_output=True, check=False).returncode == 0


def test_the_example_recording_counts_what_it_says_through_a_wrap_of_each_counter() -> None:
    now = [0.0]
    replay = Replay(ROOT / "examples/replay.jsonl", lambda: now[0])
    ledger = Ledger()
    joules = dict.fromkeys((device.name for device in replay.devices), 0.0)
    raw = dict.fromkeys(joules, 0.0)
    wraps = dict.fromkeys(joules, 0)
    for second in (0, 1, *range(6, 62, 5), 60):
        now[0] = float(second)
        readings = replay.read().readings
        for reading in readings:
            assert reading.quality is Quality.MEASURED
            assert reading.energy is not None
            wraps[reading.device.name] += reading.energy < raw[reading.device.name]
            raw[reading.device.name] = reading.energy
        for part in ledger.post(readings):
            joules[part.device.name] += part.joules
    assert joules == pytest.approx({"cpu0": 7200.0, "cpu1": 4800.0, "dram0": 900.0, "dram1": 600.0})
    assert set(wraps.values()) == {1}
    assert set(ledger.gap_seconds.values()) == {0.0}


def test_the_licence_is_the_whole_of_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert text.rstrip().endswith("limitations under the License.")


def test_the_changelog_tells_of_measurement_first() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    unreleased = text.partition("## [Unreleased]")[2]
    assert re.findall(r"^### (\w+)$", unreleased, re.MULTILINE)[0] == "Measurement"
