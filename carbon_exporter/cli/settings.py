"""Settings as flags: every command that looks at a machine takes the same ones, made from the table in `config`."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Collection
from pathlib import Path

from carbon_exporter.config import ENVIRONMENT_PREFIX, Settings, load, settings_table, unknown_variables

__all__ = ["add_flags", "load_settings", "settings_file"]

_log = logging.getLogger(__name__)
_PREFIX = "setting:"


def add_flags(parser: argparse.ArgumentParser, only: Collection[str] | None = None) -> None:
    """A flag for each setting (or of those fields named in `only`), and --config.file."""
    group = parser.add_argument_group(
        "settings",
        "Each is also a key of the YAML file and a variable; a flag wins over a variable, that over the file.",
    )
    group.add_argument("--config.file", dest="config_file", metavar="FILE", help="YAML file of settings.")
    for field, setting in settings_table().items():
        if only is None or field in only:
            shown = setting.default or "none"
            group.add_argument(
                setting.flag,
                dest=_PREFIX + setting.key,
                default=argparse.SUPPRESS,
                metavar="VALUE",
                help=f"{setting.help} Accepted: {setting.accepted}. Default: {shown}. [{setting.variable}]".replace(
                    "%", "%%"
                ),
            )


def load_settings(parsed: argparse.Namespace) -> Settings:
    """The settings that flags, environment and file give. Raises `ConfigError`."""
    flags = {name.removeprefix(_PREFIX): value for name, value in vars(parsed).items() if name.startswith(_PREFIX)}
    settings = load(flags, os.environ, settings_file(parsed))
    for variable in unknown_variables(os.environ):
        _log.warning("environment: %s is no setting and is ignored", variable)
    return settings


def settings_file(parsed: argparse.Namespace) -> Path | None:
    """The YAML file, if one is named by flag or variable."""
    file = parsed.config_file or os.environ.get(f"{ENVIRONMENT_PREFIX}CONFIG_FILE")
    return Path(file) if file else None
