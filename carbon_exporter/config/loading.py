"""Loading: the settings from defaults < file < environment < flags, or a clear error for the first that is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from carbon_exporter.config.accepted import switch
from carbon_exporter.config.setting import ENVIRONMENT_PREFIX, Setting
from carbon_exporter.config.settings import Settings, settings_table
from carbon_exporter.errors import ConfigError

__all__ = ["load", "shown", "unknown_variables"]


def load(flags: Mapping[str, str], environ: Mapping[str, str], file: Path | None) -> Settings:
    """The settings from all sources; `flags` by key. Raises `ConfigError` for the first thing that is wrong."""
    values: dict[str, Any] = {}
    origins: dict[str, tuple[str, str]] = {}
    layers: list[tuple[str, Mapping[str, object]]] = [
        (str(file), _read_file(file)) if file else ("defaults", {}),
        ("environment", {s.key: environ[s.variable] for s in settings_table().values() if s.variable in environ}),
        ("command line", flags),
    ]
    for where, given in layers:
        for name, setting in settings_table().items():
            if setting.key in given:
                values[name] = _parse(where, setting, given[setting.key])
                origins[name] = (where, _spelt(where, setting))
    _check_together(values, origins)
    return Settings(**values)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that are no setting."""
    known = {setting.variable for setting in settings_table().values()} | {f"{ENVIRONMENT_PREFIX}CONFIG_FILE"}
    return sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name not in known)


def _parse(where: str, setting: Setting, value: object) -> Any:
    """One value from any source; YAML's numbers and strings are read as what they look like."""
    name = _spelt(where, setting)
    text = "" if value is None else str(value)
    if isinstance(value, bool) and setting.parse is switch:
        return value
    if isinstance(value, (bool, list, dict)):
        raise ConfigError(where, name, value, setting.accepted)
    try:
        return setting.parse(text)
    except ValueError:
        raise ConfigError(where, name, shown(setting.key, text), setting.accepted) from None


def _spelt(where: str, setting: Setting) -> str:
    """The setting's name as that source writes it."""
    return setting.variable if where == "environment" else setting.flag if where == "command line" else setting.key


def _read_file(path: Path) -> dict[str, object]:
    """The YAML file as keys and values. Raises `ConfigError` naming the key or the line."""
    from carbon_exporter.config.yaml_file import read_yaml  # noqa: PLC0415 - only those with a file pay for it

    content = read_yaml(path, "command line", "--config.file")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(str(path), "(whole file)", type(content).__name__, "a mapping of settings")
    given = dict(_flatten(content))
    known = [setting.key for setting in settings_table().values()]
    for key, value in given.items():
        if key not in known:
            raise ConfigError(str(path), key, shown(key, value), _nearest(key, known))
    return given


def _flatten(content: Mapping[object, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    """Nested mappings as dotted keys."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nearest(key: str, known: list[str]) -> str:
    """What to say of an unknown key."""
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    return f"no such setting; nearest: {', '.join(near)}" if near else f"no such setting; there are {', '.join(known)}"


def shown(key: str, value: object) -> object:
    """A refused value for an error's text; what may be a secret is left out."""
    if re.search(r"password|secret|token|credential", key, re.IGNORECASE) and not key.endswith("-file"):
        return "(not shown)"
    return (
        re.sub(r"^([A-Za-z]+://)?.*@", r"\1(not shown)@", value, flags=re.DOTALL) if isinstance(value, str) else value
    )


def _check_together(values: Mapping[str, object], origins: Mapping[str, tuple[str, str]]) -> None:
    """Raise `ConfigError` for settings that only make sense with another.

    `values` are those that were given, by field; `origins` says of each where it stands and how it is spelt there.
    Without redfish.url Redfish is switched off, and its other settings may stay as they are.
    """
    url = str(values.get("redfish_url", ""))
    has = {field: bool(value) for field, value in values.items()}.get
    alone = (
        ("redfish_username", not has("redfish_password_file"), "redfish.password-file"),
        ("redfish_password_file", not has("redfish_username"), "redfish.username"),
        ("redfish_ca_file", has("redfish_insecure"), "redfish.insecure-skip-verify=false"),
        ("redfish_ca_file", url.startswith("http:"), "a redfish.url that begins with https://"),
    )
    for field, is_alone, needed in alone:
        if url and has(field) and is_alone:
            where, name = origins[field]
            raise ConfigError(where, name, str(values[field]), f"only together with {needed}")
