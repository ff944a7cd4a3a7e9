"""The same series by prometheus_client's own exposition: a process of its own, started by `scrape`.

`python -m benchmarks.reference RECORDING SERIES_MAX` samples the recording twice, then serves what it has by
`start_http_server` and the Collector, and prints the port.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server

from carbon_exporter import logs
from carbon_exporter.config import Settings
from carbon_exporter.publish.collector import CarbonCollector
from carbon_exporter.service import Service

__all__ = ["reference"]

_SAMPLING_SECONDS = 6.5
"""Until the second sample of the default interval, at which there is power of every device."""


@contextmanager
def reference(recording: Path, series_max: int) -> Iterator[Callable[[], int]]:
    """prometheus_client serves the recording's series while the block runs; gives the port, once it is sampled."""
    command = [sys.executable, "-m", "benchmarks.reference", str(recording), str(series_max)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout
        assert output is not None
        port = lru_cache(lambda: int(output.readline()))
        try:
            yield port
        finally:
            process.kill()


def main() -> None:
    recording, series_max = sys.argv[1:]
    logs.configure("error", "logfmt")
    most = int(series_max)
    settings = Settings("127.0.0.1:0", storage=None, region="FR", replay=Path(recording), series_max=most)
    service = Service(settings, os.environ)
    service.start()
    threading.Timer(_SAMPLING_SECONDS, service.stop).start()
    service.run()
    registry = CollectorRegistry()
    registry.register(CarbonCollector(lambda: service.snapshot))
    server, serving = start_http_server(0, "127.0.0.1", registry)
    print(server.server_port, flush=True)
    serving.join()


if __name__ == "__main__":
    main()
