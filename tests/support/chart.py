"""The Helm chart, rendered by Helm's own engine, and its ci/*-values.yaml: one for each mode and feature."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

__all__ = [
    "CASES",
    "CHART",
    "NEWEST",
    "Manifest",
    "container",
    "manifests",
    "notes",
    "one",
    "pod",
    "rendered",
    "values_of",
]

CHART = Path(__file__).parents[2] / "helm/carbon-exporter"
CASES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
"""The names of all ci files."""
NEWEST = "1.37.0"
"""The version of Kubernetes that charts are rendered for unless a test says another."""
_RELEASE = {"name": "carbon-exporter", "namespace": "monitoring"}

Manifest = dict[str, Any]


def values_of(case: str) -> dict[str, Any]:
    """What a ci file says."""
    return yaml.safe_load((CHART / f"ci/{case}-values.yaml").read_text()) or {}


@functools.cache
def _chart() -> Any:
    """The chart as Helm has loaded it; a test without Helm is skipped, or fails where CI=true."""
    try:
        import helm_python  # noqa: PLC0415 - it loads Helm, which is not to be had for every platform
    except ImportError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"helm-python-sdk: {error}")
        pytest.skip(f"helm-python-sdk: {error}")
    return helm_python.Chart.load(CHART)


def _files(values: Mapping[str, Any], kubernetes: str) -> dict[str, str]:
    """Each template's text. Raises what Helm raises, first of all by the schema."""
    chart = _chart()
    chart.validate_schema(values)
    from helm_python import _native  # noqa: PLC0415 - its Python does not pass on the version of Kubernetes

    options = json.dumps({**_RELEASE, "kube_version": kubernetes})
    made = json.loads(_native.call_string("helm_render", chart._raw(), json.dumps(values), options))
    return {Path(name).name: text for name, text in made.items()}


def manifests(values: Mapping[str, Any], kubernetes: str = NEWEST) -> list[Manifest]:
    """All objects that the chart makes with these values, for a cluster of this version."""
    texts = [text for name, text in _files(values, kubernetes).items() if name != "NOTES.txt"]
    return [found for text in texts for found in yaml.load_all(text, _LOADER) if found]


@functools.cache
def rendered(case: str, kubernetes: str = NEWEST) -> list[Manifest]:
    """All objects of a ci file; they are shared, and not to be changed."""
    return manifests(values_of(case), kubernetes)


def notes(values: Mapping[str, Any]) -> str:
    """What Helm says after an installation."""
    return _files(values, NEWEST)["NOTES.txt"]


def one(kind: str, found: Sequence[Manifest]) -> Manifest:
    """The only object of a kind."""
    (manifest,) = (each for each in found if each["kind"] == kind)
    return manifest


def pod(found: Sequence[Manifest]) -> Manifest:
    """The DaemonSet's pod."""
    template: Manifest = one("DaemonSet", found)["spec"]["template"]
    return template


def container(found: Sequence[Manifest]) -> Manifest:
    """The pod's only container."""
    (only,) = pod(found)["spec"]["containers"]
    return dict(only)


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
