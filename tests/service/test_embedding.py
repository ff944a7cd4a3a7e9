"""The service inside another program, its series in that program's own registry, as the package's docstring says."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from support.exporter import parse

from carbon_exporter import CarbonCollector, Service, Settings


def test_the_series_of_a_service_stand_in_a_registry_of_ones_own(tmp_path: Path) -> None:
    service = Service(Settings(listen="127.0.0.1:0", storage=tmp_path, interval=0.2, region="FR"), os.environ)
    service.start()
    runner = threading.Thread(target=service.run, daemon=True)
    runner.start()
    registry = CollectorRegistry()
    registry.register(CarbonCollector(lambda: service.snapshot))
    try:
        until = time.monotonic() + 10
        while not any(
            name == "carbon_job_energy_kwh_total" and total > 0
            for (name, _), total in parse(generate_latest(registry).decode()).items()
        ):
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        service.stop()
        runner.join(5)
    assert not runner.is_alive()
    assert (tmp_path / "totals.json").exists()
