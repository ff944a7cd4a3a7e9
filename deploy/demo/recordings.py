"""Recordings that `carbon-exporter --replay.file` plays as a node of the synthetic cluster.

Who holds which board stands beside them, as a scheduler's prolog would write it. `python -m deploy.demo.recordings
PLACE` writes both for all nodes, each into a directory of its own.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.demo.cluster import Node
from deploy.demo.mix import scenario

__all__ = ["BOARDS", "HELD", "RECORDING", "prepare"]

STEP = 5.0
"""Seconds between records."""
LIVE_SECONDS = 12 * 3600.0
"""How long a recording is."""
RECORDING, BOARDS = "recording.jsonl", "boards"
HELD = {
    "node-a": {"llm-finetune": (0, 1, 2, 3), "vit-b16-live": (4, 5), "notebook-mia": (6,)},
    "node-b": {"llm-finetune": (0, 1, 2, 3), "resnet50-live": (4, 5, 6)},
}
"""Which boards are given to whom; the last of each node is not."""


def prepare(node: Node, home: Path, seconds: float = LIVE_SECONDS) -> None:
    """Write a recording of the node, `seconds` long, and who holds its boards into `home`, which is made."""
    given = home / BOARDS
    given.mkdir(parents=True, exist_ok=True)
    for job, boards in HELD.get(node.name, {}).items():
        for board in boards:
            (given / str(board)).write_text(f"{job}\n")
    _write(node, seconds, home / RECORDING)


def _write(node: Node, seconds: float, file: Path) -> None:
    """Write `seconds` of a node at work. Counters go on from a value of their own, as those of a running machine do."""
    with file.open("w", encoding="utf-8") as out:
        for line in _lines(node, seconds):
            out.write(json.dumps(line) + "\n")


def _lines(node: Node, seconds: float) -> Iterator[dict[str, object]]:
    rows = [
        {"name": device.name, "kind": device.kind, "vendor": device.vendor, "model": device.model, "max_power": 2000.0,
         "uuid": f"{node.name}-{device.name}", "method": "an invented trace"}
        for device in node.devices
    ]  # fmt: skip
    yield {"carbon_exporter_recording": 1, "devices": rows}
    joules = dict.fromkeys((device.name for device in node.devices), 1000.0)
    for step in range(int(seconds / STEP) + 1):
        readings = [
            {"device": name, "quality": "measured", "energy": round(value, 3)} for name, value in joules.items()
        ]
        boards = [(number, device) for number, device in enumerate(node.devices) if device.kind == "gpu"]
        vitals = [
            {"device": device.name, "power_limit": device.limit, "utilization": round(_load(number, step), 3),
             "temperature": 31 + 45 * _load(number, step)}
            for number, device in boards
        ]  # fmt: skip
        yield {"t": step * STEP, "readings": readings, "vitals": vitals}
        for number, device in enumerate(node.devices):
            idle = 62.0 if device.kind == "gpu" else 0.2 * device.limit
            joules[device.name] += STEP * (idle + _load(number, step) * 0.9 * (device.limit - idle))


def _load(number: int, step: int) -> float:
    """A share of the device, which goes up and down within minutes."""
    return 0.55 + 0.4 * math.sin((step + 17 * number) / (9 + number))


if __name__ == "__main__":
    for each in scenario(0.0, days=1).nodes:
        prepare(each, Path(sys.argv[1]) / each.name)
