"""What settings accept: parsers from text. Each raises `ValueError` for what is not accepted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

__all__ = [
    "absolute",
    "choice",
    "controller_url",
    "count",
    "duration",
    "file",
    "listen",
    "name",
    "node",
    "number",
    "optional_absolute",
    "optional_listen",
    "region",
    "source",
    "storage",
    "switch",
    "words",
]

_T = TypeVar("_T")
_LONGEST_TEXT = 16384
_UNIT_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")
_CONTROLLER = re.compile(
    r"(?:https://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])|http://(?:localhost|127\.0\.0\.1|\[::1\]))(?::([0-9]{1,5}))?/?"
)
_MOST_PORT = 65535


def duration(least: float, most: float) -> Callable[[str], float]:
    """A parser of Prometheus durations between two bounds, in seconds."""

    def parse(text: str) -> float:
        if not _DURATION.fullmatch(text):
            raise ValueError(text)
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", text)
        return _bounded(sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts), least, most)

    return parse


def number(least: float, most: float) -> Callable[[str], float]:
    """A parser of numbers between two bounds."""
    return lambda text: _bounded(float(text), least, most)


def count(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers between two bounds."""
    return lambda text: int(_bounded(int(text), least, most))


def _bounded(number: float, least: float, most: float) -> float:
    if not least <= number <= most:
        raise ValueError(number)
    return number


def choice(*options: _T) -> Callable[[str], _T]:
    """A parser of one of `options`, spelt as it prints."""

    def parse(text: str) -> _T:
        return options[[str(option) for option in options].index(text)]

    return parse


def absolute(text: str) -> Path:
    """An absolute path."""
    if not text.startswith("/"):
        raise ValueError(text)
    return Path(text)


def file(text: str) -> Path | None:
    """A path, or nothing for none."""
    return Path(text) if text else None


def storage(text: str) -> Path | Literal["auto"] | None:
    """`auto`, nothing for none, or an absolute path."""
    if text == "auto":
        return "auto"
    return absolute(text) if text else None


def listen(text: str) -> str:
    """Kept as text: the publish room knows what an address is, and this room stands below it."""
    if text.startswith("unix:/"):
        return text
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise ValueError(text)
    _bounded(int(port), 0, 65535)
    return text


def optional_listen(text: str) -> str:
    """The same, or nothing."""
    return listen(text) if text else ""


def name(text: str) -> str:
    """Kept as text: who there is stands in the registry of a room above this one."""
    if not re.fullmatch(r"[a-z0-9_-]{1,32}", text):
        raise ValueError(text)
    return text


def optional_absolute(text: str) -> Path | None:
    """An absolute path, or nothing for none."""
    return absolute(text) if text else None


def words(text: str) -> str:
    """Words separated by commas. Kept as text: what they may be is known in a room above this one."""
    if len(text) > _LONGEST_TEXT or not text.isprintable():
        raise ValueError(text)
    return text


def node(text: str) -> str:
    """The name of a node of Kubernetes, or nothing."""
    if text and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", text):
        raise ValueError(text)
    return text


def source(text: str) -> str:
    """The name of a meter, or nothing."""
    if text and not re.fullmatch(r"[A-Za-z0-9 ._/:-]{1,64}", text):
        raise ValueError(text)
    return text


def region(text: str) -> str:
    """A grid's zone, or nothing."""
    if text and not re.fullmatch(r"[A-Za-z0-9 ()'.,-]{1,64}", text):
        raise ValueError(text)
    return text


def switch(text: str) -> bool:
    """`true` or `false`. Raises `ValueError`."""
    if text not in {"true", "false"}:
        raise ValueError(text)
    return text == "true"


def controller_url(text: str) -> str:
    """Nothing, `https://HOST[:PORT]`, or `http://` to this machine itself. Raises `ValueError`.

    Never with a user or password in it: a URL is shown, logged and recorded.
    """
    found = _CONTROLLER.fullmatch(text)
    if text and (not found or int(found[1] or 0) > _MOST_PORT):
        raise ValueError(text)
    return text
