"""Hugging Face Accelerate, the real one: what a training costs, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.framework import WATTS, Trained, example, trained
from support.tools import need_package


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Trained]:
    need_package("accelerate", "torch")
    return trained("accelerate", tmp_path_factory.mktemp("trainings"))


def test_epochs_and_the_time_outside_them_are_the_run(trainings: Mapping[str, Trained]) -> None:
    one = trainings["whole"]
    run, epochs = one.spans["run"], one.spans["epoch"]
    assert not one.raised
    assert (run["count"], epochs["count"], one.run["epochs"]) == (1, 3, 3)
    assert run["joules"] == pytest.approx(WATTS * run["seconds"], rel=0.01)
    assert epochs["joules"] + one.outside == pytest.approx(run["joules"], rel=0.01)
    assert run["seconds"] - epochs["seconds"] > 0.1


def test_what_accelerate_is_told_the_run_knows(trainings: Mapping[str, Trained]) -> None:
    one = trainings["whole"]
    assert one.run["fields"] == {"model": "probe", "batch_size": 4, "learning_rate": 0.1}
    assert one.run["values"] == {"loss": pytest.approx(1 / 3)}


def test_a_budget_that_is_used_up_ends_the_loop_between_two_epochs(trainings: Mapping[str, Trained]) -> None:
    one = trainings["stopped"]
    assert one.raised.startswith("BudgetExceeded: run ")
    assert one.run["epochs"] == 1


def test_an_error_of_the_users_stays_that(trainings: Mapping[str, Trained]) -> None:
    one = trainings["failed"]
    assert one.raised == "ZeroDivisionError: the user's own"
    assert one.run["epochs"] == 1
    assert one.run["left"] == {"open": False, "environment": False}


@pytest.mark.soak
def test_the_example_trains_and_a_budget_ends_it(tmp_path: Path) -> None:
    need_package("accelerate", "torch")
    assert "has used" in example("accelerate_train.py", tmp_path, "--epochs=50", "--budget=0.00001 Wh")
