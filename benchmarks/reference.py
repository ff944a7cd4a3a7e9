"""The same series by prometheus_client's own exposition: a process of its own, started by `scrape`.

`python -m benchmarks.reference RECORDING SERIES_MAX` samples the recording for two seconds, then serves what it has by
`start_http_server` and the Collector, and prints the port. It ends when its standard input does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server

from carbon_exporter.config import Settings
from carbon_exporter.publish.collector import CarbonCollector
from carbon_exporter.service import Service

__all__ = ["reference"]

_SAMPLING_SECONDS = 6.5
"""Until the second sample of the default interval, at which there is power of every device."""


@contextmanager
def reference(recording: Path, series_max: int) -> Iterator[int]:
    """The port on which prometheus_client serves the recording's series while the block runs."""
    command = [sys.executable, "-m", "benchmarks.reference", str(recording), str(series_max)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def main() -> None:
    recording, series_max = sys.argv[1:]
    settings = Settings(listen="127.0.0.1:0", storage=None, replay=Path(recording), series_max=int(series_max))
    service = Service(settings, os.environ)
    service.start()
    threading.Timer(_SAMPLING_SECONDS, service.stop).start()
    service.run()
    registry = CollectorRegistry()
    registry.register(CarbonCollector(lambda: service.snapshot))
    server, _ = start_http_server(0, "127.0.0.1", registry)
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
