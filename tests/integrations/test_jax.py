"""The example for JAX, trained for real: its run is its epochs and what is beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.example_node import EXAMPLES, example_node
from support.tools import need_package

pytestmark = pytest.mark.soak


def test_a_training_with_jax_is_its_epochs_and_the_time_outside_them(tmp_path: Path) -> None:
    need_package("jax")
    with example_node(tmp_path) as node:
        done = node.run(str(EXAMPLES / "jax_train.py"), "--epochs=4", environ={"CARBON_JOB": "jax", "CARBON_RUN": "r1"})
        joules, runs = node.joules("jax"), node.run_joules("jax")
    assert set(joules) == {"run", "compile", "epoch", "evaluate"}
    assert all(value > 0 for value in joules.values())
    assert sum(joules.values()) - joules["run"] == pytest.approx(joules["run"], rel=0.01)
    assert runs == pytest.approx({"r1": joules["run"]}, rel=0.01)
    assert "4 epochs (measured)" in done.stderr
    accuracy = re.fullmatch(r"accuracy ([0-9.]+)\n", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.9
