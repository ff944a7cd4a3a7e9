"""Colours that all kinds of colour vision can tell apart: those of Okabe and Ito, and Cividis for many series.

Source: M. Okabe, K. Ito, "Color Universal Design", 2008. Their yellow and black are left out: one cannot be seen on
white, the other not on dark.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BLUE", "GREEN", "GREY", "KINDS", "MANY", "ORANGE", "PURPLE", "SKY", "VERMILION"]

ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#999999"

KINDS: Mapping[str, str] = {
    "gpu": BLUE,
    "cpu": ORANGE,
    "dram": SKY,
    "accelerator": PURPLE,
    "other": GREY,
}
"""The colour of each kind of device, the same on every board."""

MANY: Mapping[str, str] = {"mode": "continuous-cividis", "seriesBy": "last"}
"""Where the series are not known beforehand: coloured by their newest value."""
