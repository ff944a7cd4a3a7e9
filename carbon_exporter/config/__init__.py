"""Settings: every one once, with its name, default and what is accepted.

They are read from defaults < file < environment < flags.
A setting `sample.interval` is the flag `--sample.interval`, the YAML key `sample: {interval: …}` or `sample.interval:`,
and the variable `CARBON_EXPORTER_SAMPLE_INTERVAL`. An unknown flag or key is an error; an unknown variable with that
prefix only warns, because Kubernetes sets such names for a Service called carbon-exporter.
"""

from __future__ import annotations

from carbon_exporter.config.accepted import duration
from carbon_exporter.config.file_watch import FileWatch
from carbon_exporter.config.loading import load, unknown_variables
from carbon_exporter.config.setting import ENVIRONMENT_PREFIX, Setting
from carbon_exporter.config.settings import RELOADABLE, Settings, settings_table

__all__ = [
    "ENVIRONMENT_PREFIX",
    "RELOADABLE",
    "FileWatch",
    "Setting",
    "Settings",
    "duration",
    "load",
    "settings_table",
    "unknown_variables",
]
