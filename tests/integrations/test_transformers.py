"""The Hugging Face Trainer, the real one: what a training costs, its log, its model card, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from support.framework import WATTS, Trained, example, trained
from support.tools import need_package

from carbon_exporter import __version__

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Trained]:
    need_package("transformers", "accelerate", "torch")
    return trained("transformers", tmp_path_factory.mktemp("trainings"))


def test_epochs_and_the_time_outside_them_are_the_run(trainings: Mapping[str, Trained]) -> None:
    one = trainings["whole"]
    run, epochs = one.spans["run"], one.spans["epoch"]
    assert not one.raised
    assert (run["count"], epochs["count"], one.run["epochs"]) == (1, 2, 2)
    assert run["joules"] == pytest.approx(WATTS * run["seconds"], rel=0.01)
    assert epochs["joules"] + one.outside == pytest.approx(run["joules"], rel=0.01)
    assert one.run["fields"] == {"model": "Probe", "batch_size": 2, "learning_rate": 1e-3}


def test_the_trainers_log_has_energy_and_co2e_of_the_run_until_then(trainings: Mapping[str, Trained]) -> None:
    one = trainings["whole"]
    history = one.more["history"]
    assert len(history) == 3
    joules = [entry["energy_kwh"] for entry in history]
    assert 0 < joules[0] < joules[1] <= joules[2]
    assert all(entry["co2e_grams"] > 0 for entry in history)
    assert one.run["values"]["loss"] == history[1]["loss"]


def test_the_model_card_has_its_emissions_in_grams_and_how_they_were_got(trainings: Mapping[str, Trained]) -> None:
    one = trainings["whole"]
    card = one.more["card"]
    block = card["co2_eq_emissions"]
    assert block["emissions"] == pytest.approx(one.run["co2e_grams"], rel=1e-5)
    assert block["source"].startswith(f"carbon-exporter {__version__}: energy ")
    assert (block["training_type"], block["geographical_location"]) == ("pre-training", "FR")
    assert block["hardware_used"].count(" x ") >= 1
    assert "1 x NVIDIA" in block["hardware_used"]
    assert "probe" in card["tags"], "what the Trainer wrote is still there"
    assert "# whole" in one.more["text"]


def test_a_training_of_so_many_steps_ends_within_an_epoch_that_counts(trainings: Mapping[str, Trained]) -> None:
    one = trainings["by_steps"]
    assert (one.raised, one.more["epoch"]) == ("", 1.5)
    assert (one.run["epochs"], one.more["planned"]) == (2, 2)
    assert one.spans["epoch"]["count"] == 2


def test_a_budget_that_is_used_up_ends_the_training_after_a_checkpoint(trainings: Mapping[str, Trained]) -> None:
    one = trainings["stopped"]
    assert one.raised.startswith("BudgetExceeded: run ")
    assert (one.run["epochs"], one.more["ended"]) == (1, [True])
    assert one.more["saved"] == ["checkpoint-4"]
    assert one.run["left"] == {"open": False, "environment": False}


def test_an_error_of_the_users_stays_that_and_the_next_training_goes_on_from_its_checkpoint(
    trainings: Mapping[str, Trained],
) -> None:
    failed, resumed = trainings["failed"], trainings["resumed"]
    assert failed.raised == "ZeroDivisionError: the user's own"
    assert failed.run["epochs"] == 1
    assert failed.run["left"] == {"open": False, "environment": False}
    assert (resumed.raised, resumed.run["epochs"], resumed.more["planned"]) == ("", 1, 1)


@pytest.mark.soak
def test_the_example_trains_and_writes_its_card(tmp_path: Path) -> None:
    need_package("transformers", "accelerate", "torch")
    printed = example("hf_trainer_train.py", tmp_path, "--epochs=50", "--budget=0.00001 Wh")
    assert "has used" in printed
    assert "co2_eq_emissions:\n" in (tmp_path / "out/README.md").read_text()
