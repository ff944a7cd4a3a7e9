"""Takes the pictures of the page: of a real exporter on this machine, with two jobs at work, in light and in dark.

python tests/support/picture.py docs/page.png docs/page-dark.png
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support import burner
from support.browser import chromium, emulate
from support.exporter import Exporter

SECONDS = 120
LOOK_SECONDS = 5
WIDTH, HEIGHT = 1160, 1030
JOBS = {"train-resnet50": ("0.9", 0), "tokenize-corpus": ("0.3", 40)}
"""Share of a CPU, and the seconds after which it starts."""


def main() -> None:
    """Start it all, wait, look."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        exporter = stack.enter_context(
            Exporter("--sample.interval=1s", f"--storage.path={place}", "--grid.region=SE", "--site.pue=1.2")
        )
        began = time.monotonic()
        for name, (duty, start) in JOBS.items():
            time.sleep(max(0.0, began + start - time.monotonic()))
            command = [sys.executable, burner.__file__, str(place / name), f"--duty={duty}"]
            work = subprocess.Popen(command, env={**os.environ, "CARBON_JOB": name})
            stack.callback(work.kill)
        time.sleep(began + SECONDS - time.monotonic())
        browser = stack.enter_context(chromium(WIDTH, HEIGHT))
        browser.get(f"http://127.0.0.1:{exporter.port}/")
        for dark, target in enumerate(sys.argv[1:]):
            emulate(browser, WIDTH, HEIGHT, dark=bool(dark))
            time.sleep(LOOK_SECONDS)
            browser.save_screenshot(target)
        for line in exporter.get("/metrics").decode().splitlines():
            if "train-resnet50" in line:
                print(line)  # noqa: T201 - for the README


if __name__ == "__main__":
    main()
