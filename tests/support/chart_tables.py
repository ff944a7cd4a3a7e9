"""The tables in the chart's README.md: its values, what each mode has of the host, and levels of Pod Security."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml
from support.chart import CASES, CHART, container, pod, rendered
from support.pod_security import level, violations

__all__ = ["filled"]

_MODES = ("minimal", "standard", "full")


def filled(readme: str) -> str:
    """The page with its tables, each of which stands between two marks."""
    for name, rows in (("values", _values()), ("modes", _modes()), ("levels", _levels())):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        head, _, rest = readme.partition(begin)
        assert end in rest, f"README.md has no {begin} … {end}"
        readme = f"{head}{begin}\n{chr(10).join(rows)}\n{end}{rest.partition(end)[2]}"
    return readme


def _values() -> Iterator[str]:
    yield "| value | default | meaning |"
    yield "|---|---|---|"
    for key, default, meaning in documented(CHART.joinpath("values.yaml").read_text()):
        yield f"| `{key}` | {_code(default)} | {meaning} |"


def documented(text: str) -> Iterator[tuple[str, Any, str]]:
    """Each value of values.yaml with its default and the comment above it; a section without one has only its keys'."""
    whole = yaml.safe_load(text)
    comment: list[str] = []
    section, whole_section = "", False
    for line in text.splitlines():
        found = re.match(r"( *)([A-Za-z]+):", line)
        if line.lstrip().startswith("# "):
            comment.append(line.strip()[2:])
        elif found and len(found[1]) <= 2:
            nested = bool(found[1])
            if not nested:
                section, whole_section = found[2], bool(comment)
            value = whole[section][found[2]] if nested else whole[section]
            if comment or (nested and not whole_section):
                yield f"{section}.{found[2]}" if nested else section, value, " ".join(comment)
            comment = []
        elif not line.strip():
            comment = []


def _code(value: Any) -> str:
    """A default as YAML writes it in one line."""
    return f"`{json.dumps(value)}`" if value not in ("", None) else "null" if value is None else "empty"


def _modes() -> Iterator[str]:
    yield f"| what it has | {' | '.join(f'`{mode}`' for mode in _MODES)} |"
    yield "|---|" + "---|" * len(_MODES)
    columns = [dict(_had(mode)) for mode in _MODES]
    for what in columns[0]:
        yield f"| {what} | {' | '.join(column[what] for column in columns)} |"


def _had(mode: str) -> Iterator[tuple[str, str]]:
    """What a mode has, read from what it renders to."""
    found = rendered(mode)
    spec = pod(found)["spec"]
    own = container(found)["securityContext"]
    paths = {
        volume["hostPath"]["path"]: mount["readOnly"]
        for volume, mount in zip(spec["volumes"], container(found)["volumeMounts"], strict=True)
        if "hostPath" in volume
    }
    roles = [" and ".join(rule["verbs"]) for each in found if each["kind"] == "ClusterRole" for rule in each["rules"]]
    yield "user", str(spec["securityContext"]["runAsUser"])
    yield "capabilities", "none" if own["capabilities"] == {"drop": ["ALL"]} else "some"
    yield "root file system", "read-only" if own["readOnlyRootFilesystem"] else "writable"
    yield "privilege escalation", "yes" if own["allowPrivilegeEscalation"] else "no"
    yield "seccomp", spec["securityContext"]["seccompProfile"]["type"]
    yield "process ids of the host", "yes" if spec.get("hostPID") else "no"
    yield "network of the host", "yes" if spec.get("hostNetwork") else "no"
    yield "API server: pods", roles[0] if roles else "no"
    yield "of the host, read-only", _listed(path for path, only in paths.items() if only)
    yield "of the host, writable", _listed(path for path, only in paths.items() if not only)


def _listed(paths: Iterator[str]) -> str:
    return ", ".join(f"`{path}`" for path in paths) or "nothing"


def _levels() -> Iterator[str]:
    yield "| values | highest level | what keeps it from the next |"
    yield "|---|---|---|"
    names = {mode: f"`mode: {mode}`" for mode in _MODES}
    names |= {case: f"[ci/{case}](ci/{case}-values.yaml)" for case in CASES if case not in _MODES}
    for case, name in names.items():
        found = pod(rendered(case))
        reached = level(found)
        missed = {"privileged": "baseline", "baseline": "restricted"}.get(reached, "")
        yield f"| {name} | {reached} | {'; '.join(violations(found, missed)) if missed else ''} |"
