"""`carbon-exporter sensors` and its `--watch`: look, and print what was seen."""

from __future__ import annotations

import json
import sys

from carbon_exporter.cli.sensor_look import Looker, Picture, Stop
from carbon_exporter.cli.sensor_view import as_json, as_text, terminal_width
from carbon_exporter.config import Settings

__all__ = ["show"]

_LOOK_SECONDS = 1.0
"""Long enough for a model to see some load."""
_MOST_LOOKS = 3
"""Slow meters may need longer than one second for two readings."""
_CLEAR = "\x1b[H\x1b[2J"


def show(settings: Settings, stop: Stop, *, watch: bool, as_values: bool, seconds: float | None) -> None:
    """Print what a second of looking tells; with `watch` again every interval, for so many seconds or until stopped.

    A meter that needs longer for its first watts is waited for, but not with `watch`.
    """
    looker = Looker(settings)
    clock = looker.host.clock
    end = None if seconds is None else clock() + seconds
    try:
        picture = Picture(looker, settings.interval)
        picture.look()
        for _ in range(1 if watch else _MOST_LOOKS):
            stop.wait(min(_LOOK_SECONDS, settings.interval) if watch else _LOOK_SECONDS)
            picture.look()
            if stop.asked or not picture.waits:
                break
        _print(picture, watch=watch, as_values=as_values)
        while watch and (end is None or clock() < end):
            if stop.wait(settings.interval if end is None else min(settings.interval, end - clock())):
                return
            picture.look()
            _print(picture, watch=watch, as_values=as_values)
    finally:
        looker.close()


def _print(picture: Picture, *, watch: bool, as_values: bool) -> None:
    """One picture; of several each begins on a clear terminal, or is followed by an empty line."""
    if as_values:
        values = as_json(picture.sources, picture.seen)
        text = json.dumps(values, indent=None if watch else 2, ensure_ascii=False)
    else:
        text = as_text(picture.sources, picture.seen, terminal_width())
        if watch:
            text = f"{_CLEAR}{text}" if sys.stdout.isatty() else f"{text}\n"
    print(text, flush=True)
