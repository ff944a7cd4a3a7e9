"""The chart's made files: `PYTHONPATH=tests python -m support.chart_files` (`make chart`) writes all of them.

Rules and dashboards are copies, because a chart can only read files of its own; the schema's settings and keys of the
web configuration are those of the exporter's tables; the tables of README.md come from values.yaml and from what the
chart renders; golden files are what it renders from each ci file. A test compares.
"""

from __future__ import annotations

import copy
import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from support import chart_tables
from support.chart import CASES, CHART, rendered

from carbon_exporter.carbon.budget import Budget
from carbon_exporter.carbon.budget_rules import rules
from carbon_exporter.config import Setting, settings_table
from carbon_exporter.config.settings import Settings
from carbon_exporter.publish import web_schema

__all__ = ["CHART_SETS", "made"]

ROOT = CHART.parents[1]
GOLDEN = ROOT / "tests/helm/golden"
CHART_SETS = frozenset(
    (
        *("path.procfs", "path.sysfs", "path.devfs", "storage.path", "sdk.socket", "sdk.job-sockets"),
        *("web.listen-address", "web.config.file", "web.health-address", "containers.sockets"),
        *("kubernetes.pods", "kubernetes.node-name", "kubernetes.pod-resources-socket"),
    )
)
"""Settings that follow from other values of the chart, and are refused in `config`."""
_MADE = '    "webConfig": '
"""Where the made definitions of the schema begin; they are its last."""


def made() -> Iterator[tuple[Path, str]]:
    """Every made file, and what should be in it."""
    for name in ("leaf", "global", "alerts", "users"):
        yield CHART / f"files/rules/{name}.yml", (ROOT / f"grafana/rules/{name}.yml").read_text()
    yield CHART / "files/rules/budget-alerts.yml", _budget_alerts()
    for board in sorted((ROOT / "grafana/dashboards").glob("*.json")):
        yield CHART / f"files/dashboards/{board.name}", board.read_text()
    schema = CHART / "values.schema.json"
    head = schema.read_text().partition(_MADE)[0]
    yield schema, f'{head}{_MADE}{_web()},\n    "settings": {_settings()}\n  }}\n}}\n'
    readme = CHART / "README.md"
    yield readme, chart_tables.filled(readme.read_text())
    for case in CASES:
        yield GOLDEN / f"{case}.yaml", _golden(case)


def _budget_alerts() -> str:
    """The alerts of all budgets: they name none."""
    groups: Any = rules([Budget("any", "g", 1.0, 1)], "job_name")["groups"]
    return yaml.safe_dump(groups[1:], sort_keys=False, allow_unicode=True, width=1000)


def _golden(case: str) -> str:
    """What a ci file renders to. Long texts that are other files' business are left out."""
    found = copy.deepcopy(rendered(case))
    for manifest in found:
        if manifest["kind"] == "PrometheusRule":
            groups = manifest["spec"]["groups"]
            manifest["spec"]["groups"] = [f"{group['name']}: {len(group['rules'])} rules" for group in groups]
        if manifest["metadata"]["name"].partition("-exporter-")[2] in _boards():
            manifest["data"] = dict.fromkeys(manifest["data"], "(a dashboard)")
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the same text, ten times as fast
    return str(yaml.dump_all(found, Dumper=dumper, sort_keys=False, width=1000))


def _boards() -> set[str]:
    return {board.stem for board in (ROOT / "grafana/dashboards").glob("*.json")}


def _web() -> str:
    """The schema of the web configuration: its sections and their keys; the exporter checks what these hold."""
    tls = [key for key, field in web_schema._TLS.items() if field.parse is not web_schema._refused]
    headers = _object(dict.fromkeys(web_schema._HEADERS, "{}"), 12)
    hashes = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^\$2[aby]\$"}}
    sections = {
        "tls_server_config": _object(dict.fromkeys(tls, "{}"), 8),
        "http_server_config": _object({"http2": "{}", "headers": headers}, 8),
        "basic_auth_users": json.dumps(hashes),
        "rate_limit": _object(dict.fromkeys(web_schema._RATE, "{}"), 8),
    }
    assert sections.keys() == web_schema.SECTIONS.keys()
    return _object(sections, 4)


def _settings() -> str:
    """The schema of the settings file: its sections, and the same keys written with dots."""
    hints = typing.get_type_hints(Settings)
    sections: dict[str, dict[str, str]] = {}
    dotted: dict[str, str] = {}
    for field, setting in settings_table().items():
        if setting.key in CHART_SETS:
            continue
        section, _, key = setting.key.partition(".")
        sections.setdefault(section, {})[key] = json.dumps(_accepted(hints[field], setting))
        dotted[setting.key] = json.dumps({"$ref": f"#/definitions/settings/properties/{section}/properties/{key}"})
    nested = {name: _object(keys, 8) for name, keys in sections.items()}
    return _object({**nested, **dotted}, 4)


def _object(properties: dict[str, str], indent: int) -> str:
    """A closed object, one property a line."""
    inner = " " * (indent + 4)
    lines = f",\n{inner}".join(f'"{name}": {text}' for name, text in properties.items())
    edge = " " * (indent + 2)
    head = f'{{\n{edge}"type": "object",\n{edge}"additionalProperties": false,\n{edge}"properties": {{\n'
    return f"{head}{inner}{lines}\n{edge}}}\n{' ' * indent}}}"


def _accepted(hint: Any, setting: Setting) -> dict[str, object]:
    """What JSON can say of what a setting accepts; the exporter itself checks the rest."""
    if typing.get_origin(hint) is Literal:
        return {"enum": list(typing.get_args(hint))}
    if hint is int:
        return {"type": "integer"}
    if hint is bool:
        return {"type": "boolean"}
    if hint is float:
        is_duration = bool(re.fullmatch(r"[0-9]+(ms|s|m|h|d)", setting.default))
        return {"$ref": "#/definitions/time"} if is_duration else {"type": "number"}
    alternatives = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    assert Path in alternatives or str in alternatives, hint
    return {"type": "string"}


if __name__ == "__main__":
    for path, text in made():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
