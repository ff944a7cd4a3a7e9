"""What a board's driver refuses for good: it is asked once, said once, and not asked again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from carbon_exporter.sensors.nvidia.nvml import Code, NvmlError

__all__ = ["PERMISSION_REMEDY", "Refusals"]

PERMISSION_REMEDY = (
    "run the exporter as root; in a container of the NVIDIA runtime set NVIDIA_VISIBLE_DEVICES=all, "
    "and for a board with MIG also NVIDIA_MIG_MONITOR_DEVICES=all"
)

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Refusals:
    """Of one board. For one thread; `notes` for any."""

    def __init__(self, device: str) -> None:
        """Nothing is refused yet."""
        self._device = device
        self._why: dict[str, int] = {}
        self._quiet: set[str] = set()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is refused and why, in sentences for people."""
        if not self._why:
            return ()
        told = [(what, code) for what, code in tuple(self._why.items()) if what not in self._quiet]
        return tuple(_sentence(self._device, what, code) for what, code in told)

    def ask(self, what: str, call: Callable[..., _T], *arguments: object, quiet: bool = False) -> _T | None:
        """What `call(*arguments)` gives; None if it is refused, now or before.

        Raises `NvmlError` for trouble that may pass.

        `quiet`: nobody misses it where it is not supported.
        """
        if what in self._why:
            return None
        try:
            return call(*arguments)
        except NvmlError as error:
            if error.code not in Code.REFUSALS:
                raise
            self._add(what, error.code, quiet=quiet)
            return None

    def forget(self) -> None:
        """The board is another thing now (divided, or whole again): what was refused may be given."""
        self._why.clear()
        self._quiet.clear()

    def _add(self, what: str, code: int, *, quiet: bool) -> None:
        self._why[what] = code
        if quiet and code != Code.NO_PERMISSION:
            self._quiet.add(what)
            return
        level = logging.WARNING if code == Code.NO_PERMISSION else logging.INFO
        _log.log(level, "%s", _sentence(self._device, what, code))


def _sentence(device: str, what: str, code: int) -> str:
    remedy = f"; {PERMISSION_REMEDY}" if code == Code.NO_PERMISSION else ""
    return f"{device}: no {what} ({Code.MEANING.get(code, code)}){remedy}"
