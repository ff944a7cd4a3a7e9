"""Grafana's published types (npm @grafana/schema, @grafana/prometheus), held against boards by TypeScript's tsc."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.tools import need

__all__ = ["check_types"]

_GRAFANA = "13.2.3"
_PACKAGES = (f"@grafana/schema@{_GRAFANA}", "typescript@5.9.3")
_QUERY = f"@grafana/prometheus@{_GRAFANA}"
_PANELS = ("bargauge", "stat", "table", "timeseries", "xychart")
_CUSTOM = {"timeseries", "table", "xychart"}
_TYPES = "./node_modules/@grafana/schema/dist/types"
# An enum of theirs takes none of its own values when it is written as JSON; this is the same type without enums.
# Words of an annotation are the Prometheus data source's own and in no published type.
_PLAIN = """
type Marks = Query & { interval: string };
type Words = { titleFormat: string; textFormat: string; tagKeys: string; useValueForTime: boolean };
type Plain<T> = T extends string ? `${T}` : T extends number ? number : T extends boolean | null | undefined ? T
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
"""


def check_types(boards: Iterable[dict[str, Any]], place: Path) -> str:
    """What the compiler finds wrong, empty if nothing; `place` is a directory for the program that it looks at."""
    packages = _packages()
    (place / "node_modules").symlink_to(packages / "node_modules")
    (place / "board.ts").write_text("\n".join(_program(boards)))
    compiler = [need("node"), str(packages / "node_modules/typescript/bin/tsc"), "--noEmit", "--strict"]
    options = [
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "esnext",
        "--moduleResolution",
        "bundler",
        "board.ts",
    ]
    result = subprocess.run([*compiler, *options], cwd=place, capture_output=True, text=True, check=False)
    return result.stdout + result.stderr


def _packages() -> Path:
    """A cache of the packages; they are fetched once, and a test is skipped by name where they cannot be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / f"carbon-exporter/grafana-{_GRAFANA}"
    if not (cache / "dataquery.d.ts").exists():
        npm = need("npm")
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "package.json").write_text('{"private": true}')
        quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        fetched = subprocess.run(
            [npm, "install", *quiet, *_PACKAGES], cwd=cache, capture_output=True, text=True, check=False
        )
        packed = subprocess.run(
            [npm, "pack", _QUERY, "--silent"], cwd=cache, capture_output=True, text=True, check=False
        )
        if fetched.returncode or packed.returncode:
            pytest.skip(f"npm cannot fetch Grafana's types: {(fetched.stderr + packed.stderr).strip()[-200:]}")
        member = "package/dist/types/dataquery.d.ts"
        untar = ["tar", "-xzf", packed.stdout.split()[-1], "--strip-components=3", member]
        subprocess.run(untar, cwd=cache, check=True)
    (cache / "node_modules/@grafana/dataquery.d.ts").write_text((cache / "dataquery.d.ts").read_text())
    return cache


def _program(boards: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Every board, and of every panel its options, custom fields and queries, as constants of Grafana's types."""
    yield 'import type * as schema from "@grafana/schema";'
    yield 'import type { Prometheus as Query } from "./node_modules/@grafana/dataquery";'
    for kind in _PANELS:
        yield f'import type * as {kind} from "{_TYPES}/raw/composable/{kind}/panelcfg/x/types.gen";'
    yield _PLAIN
    for number, board in enumerate(boards):
        yield _constant(f"board{number}", "schema.Dashboard", {**board, "annotations": {"list": []}})
        for place, mark in enumerate(board["annotations"]["list"]):
            yield _constant(f"board{number}_mark{place}", "schema.AnnotationQuery<Marks> & Words", mark)
        for panel in board["panels"]:
            name = f"board{number}_{panel['id']}"
            yield _constant(f"{name}_panel", "schema.Panel", panel)
            yield _constant(f"{name}_options", f"{panel['type']}.Options", panel["options"])
            if panel["type"] in _CUSTOM:
                yield _constant(
                    f"{name}_custom",
                    f"Partial<{panel['type']}.FieldConfig>",
                    panel["fieldConfig"]["defaults"]["custom"],
                )
            for target in panel["targets"]:
                yield _constant(f"{name}_{target['refId']}", "Query", target)
    yield "export {};"


def _constant(name: str, kind: str, value: object) -> str:
    return f"export const {name}: Plain<{kind}> = {json.dumps(value)};"
