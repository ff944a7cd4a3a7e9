"""Every error this package raises on purpose.

    CarbonExporterError
    ├─ ConfigError                 a setting: where it stands, its key, its value, what is accepted
    ├─ SensorError
    │  ├─ SensorUnavailable        no such hardware here (normal, quiet)
    │  ├─ SensorPermission         hardware here, not allowed: the exact fix
    │  └─ SensorReadError          worked before, failed now (counted, retried)
    │     └─ SensorOutdated        its driver was replaced under this process: only a fresh one can read it
    ├─ JobResolutionError          who a process or a group belongs to could not be read
    ├─ IntensityError
    │  └─ RegionUnknown            no such grid zone, with the nearest names
    ├─ StoreError                  durable totals could not be read or written
    ├─ QueryError                  a Prometheus did not answer a question
    │  └─ QueryTooLarge            it could not answer so much at once
    ├─ BudgetExceeded              a run has used more than its budget, and was told to stop then
    └─ ListenError                 the HTTP server could not take its address

Each carries `remedy`: the command, permission or setting that mends it, or an empty string where nothing can.
"""

from __future__ import annotations

__all__ = [
    "BudgetExceeded",
    "CarbonExporterError",
    "ConfigError",
    "IntensityError",
    "JobResolutionError",
    "ListenError",
    "QueryError",
    "QueryTooLarge",
    "RegionUnknown",
    "SensorError",
    "SensorOutdated",
    "SensorPermission",
    "SensorReadError",
    "SensorUnavailable",
    "StoreError",
]


class CarbonExporterError(Exception):
    """The root of the tree: what went wrong, and in `remedy` what mends it."""

    def __init__(self, reason: str, *, remedy: str = "") -> None:
        """Keep the reason (one sentence, no full stop) and the remedy apart: pages and tables show both."""
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        """Reason and remedy on one line."""
        return f"{self.reason}; {self.remedy}" if self.remedy else self.reason


class ConfigError(CarbonExporterError):
    """A setting that cannot be used."""

    def __init__(self, where: str, key: str, value: object, accepted: str) -> None:
        """`where` is a file, the environment or the command line; `accepted` says what would have been right."""
        super().__init__(f"{where}: {key}: {value!r} is not accepted", remedy=f"accepted: {accepted}")
        self.where = where
        self.key = key
        self.value = value
        self.accepted = accepted


class SensorError(CarbonExporterError):
    """A meter that gives no reading."""


class SensorUnavailable(SensorError):
    """This machine has no such meter: normal, and quiet."""


class SensorPermission(SensorError):
    """The meter is here and this process may not read it."""


class SensorReadError(SensorError):
    """A meter that worked before failed now; `device` names the one it concerns, empty for the whole sensor."""

    def __init__(self, reason: str, *, device: str = "", remedy: str = "") -> None:
        """Keep the device so that the others of the same sensor are not blamed."""
        super().__init__(reason, remedy=remedy)
        self.device = device


class SensorOutdated(SensorReadError):
    """The driver was replaced while its library was loaded here: the exporter ends, to be started again."""


class JobResolutionError(CarbonExporterError):
    """The owner of a process or control group could not be read."""


class IntensityError(CarbonExporterError):
    """The carbon intensity of the grid is not known."""


class RegionUnknown(IntensityError):
    """A grid zone that no table knows; the remedy names the nearest ones."""


class StoreError(CarbonExporterError):
    """The file of durable totals cannot be used."""


class QueryError(CarbonExporterError):
    """A Prometheus that was asked did not answer, or not what it was asked."""


class QueryTooLarge(QueryError):
    """The question needs more samples or time than the server gives: the same one in parts may be answered."""


class BudgetExceeded(CarbonExporterError):
    """A run has used more than its budget: raised between two epochs, and only where `on_exceed` asks for it."""

    def __init__(self, run: str, used: float, budget: float, unit: str) -> None:
        """`used` and `budget` are in `unit`: g, kWh, or the tariff's currency."""
        super().__init__(
            f"run {run} has used {used:.4g} {unit} of its budget of {budget:.4g} {unit}",
            remedy="go on from its last checkpoint with a larger budget, or with on_exceed='warn'",
        )
        self.run = run
        self.used = used
        self.budget = budget
        self.unit = unit


class ListenError(CarbonExporterError):
    """The HTTP server cannot listen where it was told to."""
