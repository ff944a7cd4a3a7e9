"""Draws docs/report.png: a report of the stored training, as Chromium shows it.

python tests/support/report_picture.py docs/report.png
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.browser import chromium
from support.reporting import report
from support.stored import Store, stored
from support.trained import trained


def draw(picture: Path) -> None:
    """Make the picture."""
    with tempfile.TemporaryDirectory() as place:
        store, page = Store(), Path(place) / "report.html"
        trained(store, name="train-resnet50")
        with stored(Path(place), store) as url:
            span = ("--from=2026-03-01", "--to=2026-03-02")
            report(url, page, "--job=train-resnet50", *span, "--format=html")
        with chromium(1100, 1560) as browser:
            browser.get(page.as_uri())
            browser.save_screenshot(str(picture))


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
