"""PyTorch Lightning, the real one: what a fit costs, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.framework import WATTS, Trained, example, run_script, trained
from support.tools import need_package

OTHER_NAME = """
import pytorch_lightning as lightning
from pytorch_lightning.demos.boring_classes import BoringModel
from carbon_exporter.integrations.lightning import CarbonCallback
carbon = CarbonCallback()
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
lightning.Trainer(max_epochs=1, accelerator="cpu", callbacks=[carbon], **quiet).fit(BoringModel())
print(CarbonCallback.__mro__[1].__module__, carbon.run.epochs_done)
"""


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Trained]:
    need_package("lightning", "torch")
    return trained("lightning", tmp_path_factory.mktemp("fits"))


def test_epochs_and_the_time_outside_them_are_the_run(fits: Mapping[str, Trained]) -> None:
    fit = fits["whole"]
    run, epochs = fit.spans["run"], fit.spans["epoch"]
    assert not fit.raised
    assert (run["count"], epochs["count"], fit.run["epochs"]) == (1, 3, 3)
    assert run["joules"] == pytest.approx(WATTS * run["seconds"], rel=0.01)
    assert epochs["joules"] + fit.outside == pytest.approx(run["joules"], rel=0.01)


def test_validation_is_within_its_epoch(fits: Mapping[str, Trained]) -> None:
    assert fits["whole"].spans["epoch"]["seconds"] > 3 * 7 * 0.1


def test_a_run_knows_its_model_its_learning_rate_its_epochs_and_what_was_logged(fits: Mapping[str, Trained]) -> None:
    fit = fits["whole"]
    assert fit.run["fields"] == {"model": "Probe", "dataset": "ones", "learning_rate": 0.1}
    assert set(fit.run["values"]) == {"loss", "val_loss"}
    assert fit.more["planned"] == 3
    assert (fits["by_steps"].more["planned"], fits["by_steps"].run["epochs"]) == (3, 3)


def test_a_budget_that_is_used_up_ends_the_fit_between_two_epochs_when_checkpoints_are_saved(
    fits: Mapping[str, Trained],
) -> None:
    fit = fits["stopped"]
    assert fit.raised.startswith("BudgetExceeded: run ")
    assert fit.run["epochs"] == 1
    assert fit.more["saved"] == [True]
    assert fit.run["left"] == {"open": False, "environment": False}


def test_a_warning_ends_nothing(fits: Mapping[str, Trained]) -> None:
    fit = fits["warned"]
    assert (fit.raised, fit.run["epochs"], fit.run["exceeded"]) == ("", 2, True)


def test_an_error_of_the_users_stays_that_and_ends_the_run(fits: Mapping[str, Trained]) -> None:
    fit = fits["failed"]
    assert fit.raised == "ZeroDivisionError: the user's own"
    assert fit.run["epochs"] == 1
    assert fit.run["left"] == {"open": False, "environment": False}


@pytest.mark.soak
def test_the_lightning_that_a_script_has_loaded_is_the_one_that_the_callback_is_of(tmp_path: Path) -> None:
    need_package("lightning", "pytorch_lightning")
    printed = run_script([sys.executable, "-c", OTHER_NAME], tmp_path, {})
    assert printed.splitlines()[-1] == "pytorch_lightning.callbacks.callback 1"


@pytest.mark.soak
def test_the_example_trains_and_says_what_it_cost(tmp_path: Path) -> None:
    need_package("lightning", "torch")
    printed = example("lightning_train.py", tmp_path, "--epochs=50", "--budget=0.00001 Wh")
    assert "has used" in printed
    assert (tmp_path / "checkpoints/last.ckpt").exists()
