"""The page docs/settings.md, made from the table of settings: `python -m support.settings_page > docs/settings.md`."""

from __future__ import annotations

import sys

from carbon_exporter.config import ENVIRONMENT_PREFIX, Setting, settings_table

__all__ = ["as_markdown"]

_INTRODUCTION = f"""\
# Settings

<!-- Made by `python -m support.settings_page` in tests/ (`make docs`); a test fails if it differs from the code. -->

A setting is a flag, a key of the YAML file that `--config.file` names, and an environment variable. A flag wins over a
variable, a variable over the file. In YAML `sample.interval` may also be written nested, as `sample: {{interval: 5s}}`.
The file itself is named by `--config.file` or by `{ENVIRONMENT_PREFIX}CONFIG_FILE`.

An unknown flag or key is an error (exit code 2). An unknown variable that begins with `{ENVIRONMENT_PREFIX}` is only
logged, because Kubernetes sets such names for a Service called carbon-exporter. Durations are Prometheus's: `500ms`,
`5s`, `1h30m`, `1d`. The file is read again within seconds of a change, and on SIGHUP; the column says which
settings are applied then, the others need a restart.

Two variables are no settings: `CARBON_JOB` in a program's environment names its job ([jobs](jobs.md)), `CARBON_REGION`
in the exporter's own stands in for `grid.region` ([carbon](carbon.md)).
"""


def as_markdown() -> str:
    """The page, without a newline at its end."""
    header = "| flag | variable | default | accepted | on SIGHUP | meaning |"
    rows = [_row(setting) for setting in settings_table().values()]
    return "\n".join([_INTRODUCTION, header, "|---|---|---|---|---|---|", *rows])


def _row(setting: Setting) -> str:
    default = f"`{setting.default}`" if setting.default else "none"
    reload = "yes" if setting.reloadable else "no"
    cells = (f"`{setting.flag}`", f"`{setting.variable}`", default, setting.accepted, reload, setting.help)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.stdout.write(as_markdown() + "\n")
