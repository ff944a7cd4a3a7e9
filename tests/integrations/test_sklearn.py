"""The example for scikit-learn, for real: workers of joblib are counted, and the run is the sum of its parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.example_node import EXAMPLES, example_node
from support.tools import need_package

pytestmark = pytest.mark.soak


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_training_with_scikit_learn_is_its_epochs_and_the_time_outside_them(tmp_path: Path, jobs: int) -> None:
    need_package("sklearn")
    with example_node(tmp_path) as node:
        environ = {"CARBON_JOB": "sk", "CARBON_RUN": "r1"}
        done = node.run(str(EXAMPLES / "sklearn_train.py"), "--epochs=3", f"--jobs={jobs}", environ=environ)
        joules, runs = node.joules("sk"), node.run_joules("sk")
    assert set(joules) == {"run", "prepare", "search", "epoch"}
    assert all(value > 0 for value in joules.values())
    assert sum(joules.values()) - joules["run"] == pytest.approx(joules["run"], rel=0.01)
    assert runs == pytest.approx({"r1": joules["run"]}, rel=0.01)
    assert "3 epochs (measured)" in done.stderr
    if jobs > 1:
        assert joules["search"] > joules["epoch"], "its workers, which load scikit-learn again, are counted"
