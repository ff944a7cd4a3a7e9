"""Settings: every one once, with its name, default and what is accepted.

They are read from defaults < file < environment < flags.
A setting `sample.interval` is the flag `--sample.interval`, the YAML key `sample: {interval: …}` or `sample.interval:`,
and the variable `CARBON_EXPORTER_SAMPLE_INTERVAL`. An unknown flag or key is an error; an unknown variable with that
prefix only warns, because Kubernetes sets such names for a Service called carbon-exporter.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from carbon_exporter.errors import ConfigError

__all__ = ["ENVIRONMENT_PREFIX", "RELOADABLE", "Setting", "Settings", "load", "settings_table", "unknown_variables"]

ENVIRONMENT_PREFIX = "CARBON_EXPORTER_"
_T = TypeVar("_T")
_UNIT_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")


@dataclass(frozen=True, slots=True)
class Setting:
    """How one setting is named, read and explained."""

    key: str
    parse: Callable[[str], Any]
    """From text; raises `ValueError` for what is not accepted."""
    default: str
    accepted: str
    help: str
    reloadable: bool = False
    """Whether SIGHUP applies a change, or only a restart."""

    @property
    def flag(self) -> str:
        """The command line's spelling."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """The environment's spelling."""
        return ENVIRONMENT_PREFIX + re.sub(r"[.-]", "_", self.key).upper()


def _setting(
    key: str, default: str, parse: Callable[[str], _T], accepted: str, explained: str, *, reloadable: bool = False
) -> _T:
    """A dataclass field that knows its `Setting`."""
    meta = {"setting": Setting(key, parse, default, accepted, explained, reloadable)}
    return dataclasses.field(default=parse(default), metadata=meta)


def _duration(least: float, most: float) -> Callable[[str], float]:
    """A parser of Prometheus durations between two bounds, in seconds."""

    def parse(text: str) -> float:
        if not _DURATION.fullmatch(text):
            raise ValueError(text)
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", text)
        return _bounded(sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts), least, most)

    return parse


def _number(least: float, most: float) -> Callable[[str], float]:
    return lambda text: _bounded(float(text), least, most)


def _count(least: int, most: int) -> Callable[[str], int]:
    return lambda text: int(_bounded(int(text), least, most))


def _bounded(number: float, least: float, most: float) -> float:
    if not least <= number <= most:
        raise ValueError(number)
    return number


def _choice(*options: _T) -> Callable[[str], _T]:
    def parse(text: str) -> _T:
        return options[[str(option) for option in options].index(text)]

    return parse


def _absolute(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError(text)
    return Path(text)


def _file(text: str) -> Path | None:
    return Path(text) if text else None


def _storage(text: str) -> Path | Literal["auto"] | None:
    """`auto`, nothing for none, or an absolute path."""
    if text == "auto":
        return "auto"
    return _absolute(text) if text else None


def _listen(text: str) -> str:
    """Kept as text: the publish room knows what an address is, and this room stands below it."""
    if text.startswith("unix:/"):
        return text
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise ValueError(text)
    _bounded(int(port), 0, 65535)
    return text


def _name(text: str) -> str:
    """Kept as text: who there is stands in the registry of a room above this one."""
    if not re.fullmatch(r"[a-z0-9_-]{1,32}", text):
        raise ValueError(text)
    return text


def _source(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9 ._/:-]{1,64}", text):
        raise ValueError(text)
    return text


def _region(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9 ()'.,-]{1,64}", text):
        raise ValueError(text)
    return text


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of `serve`, parsed and checked. Durations are in seconds."""

    listen: str = _setting(
        "web.listen-address",
        ":12011",
        _listen,
        "HOST:PORT, :PORT or unix:/PATH",
        "Where to serve /metrics and the page. Port 0 takes a free one.",
    )
    procfs: Path = _setting("path.procfs", "/proc", _absolute, "an absolute path", "Where the host's /proc is mounted.")
    sysfs: Path = _setting("path.sysfs", "/sys", _absolute, "an absolute path", "Where the host's /sys is mounted.")
    devfs: Path = _setting("path.devfs", "/dev", _absolute, "an absolute path", "Where the host's /dev is mounted.")
    storage: Path | Literal["auto"] | None = _setting(
        "storage.path",
        "auto",
        _storage,
        "an absolute path, auto, or nothing to keep totals in memory only",
        "Where totals are kept over restarts. auto: $STATE_DIRECTORY, else /var/lib/carbon-exporter if writable, "
        "else $XDG_STATE_HOME/carbon-exporter.",
    )
    interval: float = _setting(
        "sample.interval", "5s", _duration(0.1, 300.0), "a duration from 100ms to 5m", "Time between samples."
    )
    region: str = _setting(
        "grid.region",
        "",
        _region,
        "an ISO 3166 code such as FR or US-CA",
        "Where this machine's electricity comes from. Without it CARBON_REGION counts, then the time zone as a guess, "
        "then the world's average.",
        reloadable=True,
    )
    provider: str = _setting(
        "grid.provider",
        "static",
        _name,
        "the name of a provider: static",
        "Who says what a kilowatt-hour emits. static: the yearly tables that come with this program.",
        reloadable=True,
    )
    scope: Literal["lifecycle", "direct"] = _setting(
        "grid.scope",
        "lifecycle",
        _choice("lifecycle", "direct"),
        "lifecycle or direct",
        "Which emissions count: with fuel supply and plants, or of the stack only. The two are never mixed.",
        reloadable=True,
    )
    pue: float = _setting(
        "site.pue",
        "1.0",
        _number(1.0, 10.0),
        "a number from 1 to 10",
        "Power usage effectiveness of the site: facility energy over IT energy. Grams are multiplied by it.",
        reloadable=True,
    )
    idle: Literal["separate", "shared", "reserved"] = _setting(
        "attribution.idle",
        "separate",
        _choice("separate", "shared", "reserved"),
        "separate, shared or reserved",
        "Who pays for idle: the job _idle_, those who ran, or those for whom CPUs are kept.",
        reloadable=True,
    )
    remainder: str = _setting(
        "attribution.remainder",
        "",
        _source,
        "the name of a whole-node meter such as redfish, ipmi, cray or hwmon, or nothing",
        "Whole-node meter whose difference to the devices (fans, power supplies, boards) is charged to the jobs, as a "
        "device of kind other. Without it only carbon_node_* shows that meter.",
    )
    job_label: Literal["job_name", "job", "hpc_job"] = _setting(
        "labels.job",
        "job_name",
        _choice("job_name", "job", "hpc_job"),
        "job_name, job or hpc_job",
        "How the job's label is spelt. With job the scrape must honor labels.",
    )
    jobs_max: int = _setting(
        "jobs.max",
        "64",
        _count(1, 100_000),
        "a whole number from 1 to 100000",
        "Jobs published at a time; more are counted together as _overflow_.",
        reloadable=True,
    )
    jobs_linger: float = _setting(
        "jobs.linger",
        "5m",
        _duration(0.0, 86400.0),
        "a duration up to 1d",
        "How long an ended job stays published.",
        reloadable=True,
    )
    jobs_retain: float = _setting(
        "jobs.retain",
        "1d",
        _duration(0.0, 365 * 86400.0),
        "a duration up to 365d",
        "How long an ended job's totals are kept, in case it comes back.",
        reloadable=True,
    )
    series_max: int = _setting(
        "series.max",
        "1500",
        _count(100, 1_000_000),
        "a whole number from 100 to 1000000",
        "Series published at most: jobs are folded before a scrape's sample limit bites.",
        reloadable=True,
    )
    replay: Path | None = _setting(
        "replay.file", "", _file, "a file of recorded readings", "Play recorded readings instead of this machine's."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "log.level",
        "info",
        _choice("debug", "info", "warning", "error"),
        "debug, info, warning or error",
        "The least severe messages to log.",
        reloadable=True,
    )
    log_format: Literal["logfmt", "json"] = _setting(
        "log.format", "logfmt", _choice("logfmt", "json"), "logfmt or json", "How log lines look."
    )


def settings_table() -> dict[str, Setting]:
    """All settings by the field of `Settings` that holds them."""
    return {field.name: cast("Setting", field.metadata["setting"]) for field in dataclasses.fields(Settings)}


RELOADABLE = frozenset(name for name, setting in settings_table().items() if setting.reloadable)
"""Fields that SIGHUP applies."""


def load(flags: Mapping[str, str], environ: Mapping[str, str], file: Path | None) -> Settings:
    """The settings from all sources; `flags` by key. Raises `ConfigError` for the first thing that is wrong."""
    values: dict[str, Any] = {}
    layers: list[tuple[str, Mapping[str, object]]] = [
        (str(file), _read_file(file)) if file else ("defaults", {}),
        ("environment", {s.key: environ[s.variable] for s in settings_table().values() if s.variable in environ}),
        ("command line", flags),
    ]
    for where, given in layers:
        for name, setting in settings_table().items():
            if setting.key in given:
                values[name] = _parse(where, setting, given[setting.key])
    return Settings(**values)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that are no setting."""
    known = {setting.variable for setting in settings_table().values()} | {f"{ENVIRONMENT_PREFIX}CONFIG_FILE"}
    return sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name not in known)


def _parse(where: str, setting: Setting, value: object) -> Any:
    """One value from any source; YAML's numbers and strings are read as what they look like."""
    name = setting.variable if where == "environment" else setting.flag if where == "command line" else setting.key
    text = "" if value is None else str(value)
    if isinstance(value, (bool, list, dict)):
        raise ConfigError(where, name, value, setting.accepted)
    try:
        return setting.parse(text)
    except ValueError:
        raise ConfigError(where, name, text, setting.accepted) from None


def _read_file(path: Path) -> dict[str, object]:
    """The YAML file as keys and values. Raises `ConfigError` naming the key or the line."""
    import yaml  # noqa: PLC0415 - only those with a file pay for it

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("command line", "--config.file", str(path), f"a readable file ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(str(path), "(whole file)", " ".join(str(error).split()), "YAML") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(str(path), "(whole file)", type(content).__name__, "a mapping of settings")
    given = dict(_flatten(content))
    known = [setting.key for setting in settings_table().values()]
    for key, value in given.items():
        if key not in known:
            raise ConfigError(str(path), key, value, _nearest(key, known))
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
