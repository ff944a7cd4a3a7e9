"""Keras 3, the real one, over PyTorch: what a fit costs, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.framework import WATTS, Trained, example, trained
from support.tools import need_package

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Trained]:
    need_package("keras", "torch")
    return trained("keras", tmp_path_factory.mktemp("fits"))


def test_epochs_and_the_time_outside_them_are_the_run(fits: Mapping[str, Trained]) -> None:
    fit = fits["whole"]
    run, epochs = fit.spans["run"], fit.spans["epoch"]
    assert not fit.raised
    assert (run["count"], epochs["count"], fit.run["epochs"], fit.more["planned"]) == (1, 3, 3, 3)
    assert run["joules"] == pytest.approx(WATTS * run["seconds"], rel=0.01)
    assert epochs["joules"] + fit.outside == pytest.approx(run["joules"], rel=0.01)
    assert epochs["seconds"] > 3 * 6 * 0.1, "validation is within its epoch"


def test_the_history_has_energy_and_co2e_beside_the_loss(fits: Mapping[str, Trained]) -> None:
    fit = fits["whole"]
    history = fit.more["history"]
    assert set(history) == {"loss", "val_loss", "energy_kwh", "co2e_grams"}
    assert 0 < history["energy_kwh"][0] < history["energy_kwh"][1] < history["energy_kwh"][2]
    assert history["energy_kwh"][2] == pytest.approx(fit.run["energy_kwh"], rel=0.5)
    assert fit.run["values"]["val_loss"] == pytest.approx(history["val_loss"][-1])
    assert fit.run["fields"] == {"model": "probe"}


def test_a_budget_that_is_used_up_stops_the_training_as_keras_does_and_raises(fits: Mapping[str, Trained]) -> None:
    fit = fits["stopped"]
    assert fit.raised.startswith("BudgetExceeded: run ")
    assert len(fit.more["heard"]) == len(fit.more["history"]["loss"]) == fit.run["epochs"] == 1
    assert "energy_kwh" in fit.more["heard"][0], "callbacks that come later see it too"
    assert fit.run["left"] == {"open": False, "environment": False}


def test_after_the_last_epoch_nothing_is_raised(fits: Mapping[str, Trained]) -> None:
    fit = fits["last_epoch"]
    assert (fit.raised, fit.run["exceeded"]) == ("", True)


def test_a_fit_that_is_interrupted_ends_its_run_where_the_callback_stands_in_a_with(
    fits: Mapping[str, Trained],
) -> None:
    fit = fits["interrupted"]
    assert fit.raised == "KeyboardInterrupt: the user's own"
    assert fit.run["epochs"] == 1
    assert fit.run["left"] == {"open": False, "environment": False}


def test_a_fit_that_goes_on_in_the_middle_after_an_error_is_a_run_of_its_own(fits: Mapping[str, Trained]) -> None:
    fit = fits["resumed"]
    assert (fit.raised, fit.more["again"]) == ("ZeroDivisionError: the user's own", "")
    assert (fit.run["epochs"], fit.more["planned"]) == (2, 2)


@pytest.mark.soak
def test_the_example_trains_and_says_what_it_cost(tmp_path: Path) -> None:
    need_package("keras", "torch")
    printed = example("keras_train.py", tmp_path, "--epochs=50", "--budget=0.00001 Wh", "--checkpoint=last.keras")
    assert "has used" in printed
    assert (tmp_path / "last.keras").exists()
