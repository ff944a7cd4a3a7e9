"""Takes the README's picture: the page of a real exporter on this machine, with two jobs at work.

python tests/support/picture.py docs/page.png
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
from support.browser import chromium
from support.exporter import Exporter

SECONDS = 45
JOBS = {"train-resnet50": "0.9", "tokenize-corpus": "0.3"}


def main() -> None:
    """Start it all, wait, look."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        exporter = stack.enter_context(
            Exporter("--sample.interval=1s", f"--storage.path={place}", "--grid.region=SE", "--site.pue=1.2")
        )
        for name, duty in JOBS.items():
            command = [sys.executable, burner.__file__, str(place / name), f"--duty={duty}"]
            work = subprocess.Popen(command, env={**os.environ, "CARBON_JOB": name})
            stack.callback(work.kill)
        browser = stack.enter_context(chromium(1160, 955))
        browser.get(f"http://127.0.0.1:{exporter.port}/")
        time.sleep(SECONDS)
        browser.save_screenshot(sys.argv[1])
        for line in exporter.get("/metrics").decode().splitlines():
            if "train-resnet50" in line:
                print(line)  # noqa: T201 - for the README


if __name__ == "__main__":
    main()
