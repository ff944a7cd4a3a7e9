"""Chromium for tests of the page, without a window or a profile of its own, and what a reader sees in it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from support.tools import need

__all__ = ["Ink", "chromium", "console", "emulate", "inks", "text", "texts", "until", "values"]

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LAYERS = """
const worded = (e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
const grounds = (e) => e ? [getComputedStyle(e).backgroundColor, ...grounds(e.parentElement)] : [];
return [...document.body.querySelectorAll("*")].filter(worded)
  .map((e) => [e.textContent, getComputedStyle(e).color, grounds(e)]);
"""


@contextmanager
def chromium(width: int, height: int, *, dark: bool = False) -> Iterator[Chrome]:
    """A fresh Chromium whose page is `width` by `height` CSS pixels, quit and forgotten at the end.

    Where Chromium or its driver is not installed the test is skipped, with CI=true it fails. The viewport is set by
    emulation, because a window of Chromium is never narrower than 500 pixels.
    """
    need("chromium")
    need("chromedriver")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        driver = Chrome(options=_options(profile), service=Service(shutil.which("chromedriver")))
        try:
            emulate(driver, width, height, dark=dark)
            yield driver
        finally:
            driver.quit()


def _options(profile: str) -> ChromeOptions:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return options


def emulate(driver: Chrome, width: int, height: int, *, dark: bool) -> None:
    """Let the page be of this size, in CSS pixels, and of this scheme of colours."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def until(driver: Chrome, true: Callable[[], object]) -> None:
    """Wait until it holds, at most 15 s."""
    WebDriverWait(driver, 15, poll_frequency=0.05).until(lambda _: true())


def console(driver: Chrome) -> list[str]:
    """What the browser complained about since the last call: errors of scripts, policy and network."""
    lines: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own gap
    return [line["message"] for line in lines]


def text(driver: Chrome, css: str) -> str:
    """What is shown of the first such element."""
    return driver.find_element(By.CSS_SELECTOR, css).text


def texts(driver: Chrome, css: str) -> list[str]:
    """What is shown of every such element, in order."""
    while True:
        with suppress(StaleElementReferenceException):  # the page was drawn anew meanwhile
            return [element.text for element in driver.find_elements(By.CSS_SELECTOR, css)]


def values(driver: Chrome, css: str) -> list[float | None]:
    """The exact numbers behind what is shown, as `data` elements carry them; None where there is none."""
    raw = [element.get_attribute("value") for element in driver.find_elements(By.CSS_SELECTOR, css)]
    return [float(value) if value else None for value in raw]


@dataclass(frozen=True, slots=True)
class Ink:
    """A piece of text, and how well it stands out from what is behind it."""

    text: str
    contrast: float
    """1 (invisible) to 21 (black on white), as WCAG 2.2 defines the contrast ratio."""
    is_on_dark: bool


def inks(driver: Chrome) -> list[Ink]:
    """All text that is visible now."""
    return [
        _ink(words, _luminance([colour, *grounds]), _luminance(grounds))
        for words, colour, grounds in driver.execute_script(LAYERS)
    ]


def _ink(words: str, ink: float, ground: float) -> Ink:
    return Ink(words, (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05), is_on_dark=ground < 0.18)


def _luminance(layers: list[str]) -> float:
    """The relative luminance (WCAG 2.2, 0 to 1) of CSS colours painted over white, the topmost first."""
    colour = [255.0, 255.0, 255.0]
    for layer in reversed(layers):
        *paint, alpha = [float(part) for part in re.findall(r"[\d.]+", layer if "rgba" in layer else f"{layer} 1")]
        colour = [alpha * top + (1 - alpha) * below for top, below in zip(paint, colour, strict=True)]
    red, green, blue = (c / 3294.6 if c <= 10.31475 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
