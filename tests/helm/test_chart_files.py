"""Files of the chart that are made of others, and the levels of Pod Security that its README.md states."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from support.chart import CHART, manifests, pod
from support.chart_files import GOLDEN, made
from support.pod_security import level, violations

from carbon_exporter import __version__

ROOT = CHART.parents[1]


def test_every_made_file_is_as_make_chart_writes_it() -> None:
    expected = dict(made())
    for path, text in expected.items():
        assert path.exists(), f"{path.relative_to(ROOT)} is missing: make chart"
        assert path.read_text() == text, f"{path.relative_to(ROOT)} differs: make chart"
    kept = {path for folder in (CHART / "files", GOLDEN) for path in folder.rglob("*") if path.is_file()}
    assert kept <= expected.keys()


def test_the_chart_is_of_the_version_that_it_installs() -> None:
    assert f"\nappVersion: {__version__}\n" in (CHART / "Chart.yaml").read_text()


def test_helm_has_no_complaint_and_packages_what_it_needs(tmp_path: Path) -> None:
    import helm_python  # noqa: PLC0415 - the test before says where it is missing

    assert not [one for one in helm_python.lint(CHART, strict=True)["messages"] if one["severity"] not in ("INFO", 1)]
    archive = helm_python.package(CHART, destination=tmp_path)
    with helm_python.Chart.load(archive) as packaged:
        names = {file["name"] for file in packaged.files}
        assert {"files/rules/leaf.yml", "files/dashboards/carbon-fleet.json", "README.md"} <= names
        assert not any(name.startswith("ci/") for name in names)


@pytest.mark.parametrize(
    ("values", "reached"),
    [
        ({"mode": "minimal"}, "restricted"),
        ({"features": {"hostSys": False, "podResources": False}, "state": {"type": "emptyDir"}}, "baseline"),
        ({}, "privileged"),
        ({"mode": "full"}, "privileged"),
    ],
)
def test_modes_keep_to_the_levels_that_are_promised(values: dict[str, Any], reached: str) -> None:
    assert level(pod(manifests(values))) == reached


def changed(**changes: Any) -> dict[str, Any]:
    """The pod of mode minimal, which is restricted, with one field of it changed."""
    found = copy.deepcopy(pod(manifests({"mode": "minimal"})))
    spec = found["spec"]
    for key, value in changes.items():
        place = spec["containers"][0]["securityContext"] if key.startswith("own_") else spec
        place = spec["securityContext"] if key.startswith("pod_") else place
        name = key.removeprefix("own_").removeprefix("pod_")
        place[name] = [*place[name], value] if name == "volumes" else value
    return found


@pytest.mark.parametrize(
    ("changes", "reached", "field"),
    [
        ({}, "restricted", None),
        ({"hostPID": True}, "privileged", "hostPID"),
        ({"hostNetwork": True}, "privileged", "hostNetwork"),
        ({"volumes": {"name": "x", "hostPath": {"path": "/"}}}, "privileged", "hostPath"),
        ({"volumes": {"name": "x", "nfs": {}}}, "baseline", "volumes"),
        ({"own_privileged": True}, "privileged", "privileged"),
        ({"own_capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE"]}}, "privileged", "capabilities.add"),
        ({"own_capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}, "baseline", "capabilities"),
        ({"own_capabilities": {}}, "baseline", "capabilities"),
        ({"own_capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}, "restricted", None),
        ({"own_seLinuxOptions": {"type": "spc_t"}}, "privileged", "seLinuxOptions"),
        ({"own_seccompProfile": {"type": "Unconfined"}}, "privileged", "seccompProfile"),
        ({"pod_seccompProfile": {}}, "baseline", "seccompProfile"),
        ({"own_allowPrivilegeEscalation": True}, "baseline", "allowPrivilegeEscalation"),
        ({"pod_runAsNonRoot": False}, "baseline", "runAsNonRoot"),
        ({"own_runAsUser": 0}, "baseline", "runAsUser"),
    ],
)
def test_one_field_decides_the_level(changes: dict[str, Any], reached: str, field: str | None) -> None:
    found = changed(**changes)
    assert level(found) == reached
    named = violations(found, "restricted")
    assert (field is None and not named) or any(str(field) in one for one in named)


def test_a_field_that_no_check_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="procMount"):
        level(changed(own_procMount="Unmasked"))
