"""Trouble of our own: logged once each kind, never raised into the program. Costs nothing to load."""

from __future__ import annotations

__all__ = ["trouble"]

MOST_KINDS = 64
_seen: set[tuple[str, type]] = set()


def trouble(doing: str, error: BaseException, remedy: str = "") -> None:
    """Say, once, what did not work; the traceback is there at level debug. Never raises."""
    try:
        kind = (doing, type(error))
        if kind in _seen or len(_seen) >= MOST_KINDS:
            return
        _seen.add(kind)
        from logging import getLogger  # noqa: PLC0415 - only who is in trouble pays for it

        log = getLogger("carbon_exporter.sdk")
        log.warning("%s: %s%s", doing, str(error) or type(error).__name__, f"; {remedy}" if remedy else "")
        log.debug("%s", doing, exc_info=error)
    except Exception:  # noqa: BLE001, S110 - a log that cannot be written must not stop the program either
        pass
