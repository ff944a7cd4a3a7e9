"""A recording's boards are paid by those to whom a mapping directory gives them: a demonstration has jobs on GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.exporter import Exporter, Series
from support.waiting import until

from deploy.demo.mix import scenario
from deploy.demo.recordings import BOARDS, RECORDING, prepare


def joules(series: Series, name: str, **labels: str) -> float:
    """The sum over all series of a name with these labels, in J."""
    found = (value for (own, pairs), value in series.items() if own == name and labels.items() <= dict(pairs).items())
    return 3.6e6 * sum(found)


@pytest.mark.usefixtures("boards_turn")
def test_a_job_pays_for_the_recorded_boards_that_it_was_given_and_nobody_for_the_others(tmp_path: Path) -> None:
    node = scenario(0.0, days=1).nodes[0]
    prepare(node, tmp_path, 600)
    (tmp_path / BOARDS / "6").write_text("4711\n")
    flags = (f"--replay.file={tmp_path / RECORDING}", f"--slurm.mapping-directory={tmp_path / BOARDS}")
    with Exporter(*flags, "--sample.interval=1s", f"--storage.path={tmp_path / 'state'}") as exporter:
        job = "carbon_job_energy_kwh_total"
        until(lambda: joules(exporter.series(), job, job_name="slurm-4711", device="gpu6") > 0, 20)
        series = exporter.series()
    for name, board in (("llm-finetune", "gpu3"), ("vit-b16-live", "gpu5"), ("slurm-4711", "gpu6")):
        paid = joules(series, job, job_name=name, device=board)
        assert 0 < paid <= joules(series, "carbon_device_energy_kwh_total", device=board)
    assert joules(series, job, job_name="_unattributed_", device="gpu7") > 0
    assert joules(series, job, job_name="_idle_", kind="gpu") == 0
