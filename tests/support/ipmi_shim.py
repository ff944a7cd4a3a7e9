"""A scripted management controller behind the kernel's IPMI device, for programs that run with it preloaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.tools import need

__all__ = ["Controller", "answer", "build"]

SOURCE = Path(__file__).with_name("ipmi_shim.c")
PROLOGUE = """
import json, sys
from pathlib import Path
from carbon_exporter.errors import *
from carbon_exporter.sensors.base import Host
from carbon_exporter.sensors.ipmi import ask, probe

root = Path(sys.argv[1])
class Clock:
    now = 1000.0
    def __call__(self):
        return self.now
clock = Clock()
host = Host(devfs=root, clock=clock)
def script(*lines):
    (root / "script").write_text("".join(line + "\\n" for line in lines))
def said(result):
    print(json.dumps(result))
def facts(sample):
    return {
        "readings": [[reading.power, reading.since, reading.at] for reading in sample.readings],
        "failures": [[failure.device, failure.reason, failure.remedy] for failure in sample.failures],
    }
"""


def build(directory: Path) -> Path:
    """Compile the preloaded library; skips the test without a compiler."""
    library = directory / "ipmi_shim.so"
    command = [need("gcc"), "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]
    subprocess.run([*command, str(library), str(SOURCE)], check=True)
    return library


def answer(watts: int, *, state: int = 0x40, code: int = 0, verb: str = "answer") -> str:
    """A line of the script: a DCMI power reading."""
    current = watts.to_bytes(2, "little")
    data = bytes((code, 0xDC)) + current * 4 + bytes(4) + (1000).to_bytes(4, "little") + bytes((state,))
    return f"{verb} {data.hex(' ')}"


@dataclass(frozen=True)
class Controller:
    """Runs programs for which `root`/ipmi0 is a device with a controller behind it."""

    library: Path
    root: Path

    def script(self, *lines: str) -> None:
        """What the controller does at each command, in order; the last one stays."""
        (self.root / "script").write_text("".join(f"{line}\n" for line in lines))

    def log(self) -> list[str]:
        """All commands that it got."""
        return (self.root / "log").read_text().splitlines()

    def run(self, program: str, device: str = "ipmi0") -> Any:
        """What the program `said`, as JSON. It has `host`, `clock`, `script`, `facts`, and the sensor's names."""
        path = self.root / device
        path.parent.mkdir(exist_ok=True)
        path.touch()
        environment = {
            **os.environ,
            "LD_PRELOAD": str(self.library),
            "IPMI_DEVICE": str(path),
            "IPMI_SCRIPT": str(self.root / "script"),
            "IPMI_LOG": str(self.root / "log"),
        }
        done = subprocess.run(
            [sys.executable, "-c", PROLOGUE + textwrap.dedent(program), self.root],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
