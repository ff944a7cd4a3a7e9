"""Each spelling of the job's label, scraped by a real Prometheus as the documentation says."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.exporter import Exporter
from support.prometheus import prometheus


@pytest.mark.parametrize(
    ("spelling", "honor", "arrives_as"),
    [
        ("job_name", False, "job_name"),
        ("hpc_job", False, "hpc_job"),
        ("job", True, "job"),
        ("job", False, "exported_job"),
    ],
)
def test_the_jobs_label_arrives_as_it_is_spelt(tmp_path: Path, spelling: str, honor: bool, arrives_as: str) -> None:
    flags = (f"--labels.job={spelling}", f"--storage.path={tmp_path / 'state'}", "--grid.region=FR")
    with Exporter(*flags) as exporter, prometheus(tmp_path, exporter.port, honor=honor) as server:
        jobs = server.query("carbon_job_energy_kwh_total")
        assert {"_idle_", "_unattributed_"} <= {series["metric"][arrives_as] for series in jobs}
        renamed = {label for series in jobs for label in series["metric"] if label.startswith("exported_")}
        assert renamed == ({"exported_job"} if arrives_as == "exported_job" else set())
        devices = server.query("carbon_device_energy_kwh_total")
        assert {series["metric"]["job"] for series in devices} == {"carbon-exporter"}
