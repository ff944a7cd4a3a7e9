"""A Prometheus that already holds samples: OpenMetrics text made into blocks by promtool, and what they add up to."""

from __future__ import annotations

import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.tools import need

from deploy.demo.server import free_port

__all__ = ["Store", "stored"]

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
"""Of a label's value in OpenMetrics; every other character stands for itself."""


@dataclass
class Store:
    """Samples by series, before they are stored."""

    series: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)

    def add(self, name: str, labels: Mapping[str, str], samples: Sequence[tuple[float, float]]) -> None:
        """Samples (Unix seconds, value) of one series; labels without a value are left out."""
        told = ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items() if value)
        self.series.setdefault(name, {}).setdefault(told, []).extend(samples)

    def openmetrics(self) -> str:
        lines: list[str] = []
        for name, rows in sorted(self.series.items()):
            lines.append(f"# TYPE {name.removesuffix('_total')} {'counter' if name.endswith('_total') else 'gauge'}")
            for labels, samples in rows.items():
                lines += [f"{name}{{{labels}}} {value!r} {at:.3f}" for at, value in samples]
        return "\n".join([*lines, "# EOF", ""])


@contextmanager
def stored(directory: Path, store: Store, *flags: str) -> Iterator[str]:
    """The address of a Prometheus 2 or 3 that holds them, while the block runs."""
    program, tool = need("prometheus"), need("promtool")
    directory.mkdir(parents=True, exist_ok=True)
    text, data = directory / "samples.txt", directory / "tsdb"
    text.write_text(store.openmetrics())
    # By blocks of two hours it would read the text again for each.
    command = [tool, "tsdb", "create-blocks-from", "--max-block-duration=768h", "openmetrics", str(text), str(data)]
    subprocess.run(command, check=True, capture_output=True)
    (directory / "empty.yml").write_text("{}\n")
    port = free_port()
    command = [
        program,
        f"--config.file={directory / 'empty.yml'}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
        *flags,
    ]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command) as process:
        try:
            _wait_until_ready(f"{url}/-/ready", process)
            yield url
        finally:
            process.terminate()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while True:
        assert process.poll() is None, "prometheus has ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        assert time.monotonic() < until, "prometheus does not get ready"
        time.sleep(0.05)
