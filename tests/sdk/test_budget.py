"""Budgets and tariffs: what is accepted, when they are used up, and what then happens to a training."""

from __future__ import annotations

import logging
import time

import pytest
from support.span_engine import tracked

from carbon_exporter import BudgetExceeded, CarbonRun
from carbon_exporter.errors import ConfigError
from carbon_exporter.sdk.budget import Budget, budget_of
from carbon_exporter.sdk.tariff import Tariff, tariff_of

EURO = Tariff(0.31, "EUR")


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("500 g", Budget(500.0, "g")),
        ("1.2kg", Budget(1200.0, "g")),
        ("2 kWh", Budget(2.0, "kWh")),
        ("250 Wh", Budget(0.25, "kWh")),
        ("20 EUR", Budget(20.0, "EUR")),
        (Budget(20, "EUR"), Budget(20.0, "EUR")),
        (Budget(1.2, "kg"), Budget(1200.0, "g")),
        (Budget(250, "Wh"), Budget(0.25, "kWh")),
    ],
)
def test_a_budget_is_an_amount_with_its_unit(told: str | Budget, meant: Budget) -> None:
    assert budget_of(told, EURO) == meant


NEVER = (Budget(float("nan"), "g"), Budget(float("inf"), "kWh"), Budget(-3.0, "g"), Budget(3.0, "USD"), Budget(3.0, ""))


@pytest.mark.parametrize("told", ["", "500", "a lot", "-3 g", "3 USD", "nan g", "1e999 kWh", *NEVER])
def test_what_is_no_budget_is_refused_with_what_would_be_one(told: str | Budget) -> None:
    with pytest.raises(ConfigError, match=r"budget.*accepted: an amount with its unit"):
        CarbonRun(budget=told, tariff="0.31 EUR")


def test_money_without_a_tariff_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"tariff='0\.31 EUR'"):
        CarbonRun(budget="3 EUR")
    with pytest.raises(ConfigError, match=r"tariff='0\.31 EUR'"):
        CarbonRun(budget=Budget(3.0, "EUR"))


@pytest.mark.parametrize("told", ["cheap", "-1", "0.3 EUR per day"])
def test_what_is_no_tariff_is_refused(told: str) -> None:
    with pytest.raises(ConfigError, match="a price per kWh"):
        tariff_of(told)


def test_a_variable_that_is_no_tariff_ends_no_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARBON_TARIFF", "dear")
    assert CarbonRun().cost is None
    monkeypatch.setenv("CARBON_TARIFF", "0.25 CHF")
    assert (CarbonRun().cost, CarbonRun().currency) == (0.0, "CHF")
    assert CarbonRun(tariff="0.31 EUR", budget="3 EUR").currency == "EUR"


def test_a_tariff_may_depend_on_the_hour() -> None:
    tariff = tariff_of(lambda at: 0.1 if at < 100 else 0.4)
    assert tariff is not None
    assert tariff.cost(3.6e6, 1.5, 50.0) == pytest.approx(0.15)
    assert tariff.cost(3.6e6, 1.5, 150.0) == pytest.approx(0.6)


def train(run: CarbonRun, epochs: int) -> list[int]:
    """Epochs of 0.03 s: at 210 W more than 6 J, where 3.6 J are a thousandth of a Wh. The numbers of those that ran."""
    done = []
    with run:
        for epoch in run.epochs(range(epochs)):
            time.sleep(0.03)
            done.append(epoch)
            DONE[:] = done
    return done


DONE: list[int] = []
"""What ran, of a training that was ended."""


def test_stop_ends_at_the_next_epoch_boundary_after_a_checkpoint() -> None:
    saved: list[BudgetExceeded] = []
    run = CarbonRun("probe", budget="0.001 Wh", on_exceed="stop", checkpoint=saved.append, summary="none")
    with tracked(), pytest.raises(BudgetExceeded, match=r"run probe has used .* of its budget of 1e-06 kWh") as caught:
        train(run, 10)
    assert DONE == [0], "the epoch in which it was used up is finished, the next one does not begin"
    assert saved == [caught.value]
    assert caught.value.unit == "kWh"
    assert caught.value.used > caught.value.budget


def test_a_checkpoint_that_fails_is_the_cause_and_the_training_ends_all_the_same() -> None:
    def full(_: BudgetExceeded) -> None:
        raise OSError("no space left")

    run = CarbonRun(budget="0.001 Wh", on_exceed="stop", checkpoint=full, summary="none")
    with tracked(), pytest.raises(BudgetExceeded) as caught:
        train(run, 3)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_run_whose_last_epoch_goes_beyond_is_complete_and_ends_as_any() -> None:
    run = CarbonRun(budget="0.001 Wh", on_exceed="stop", summary="none")
    with tracked():
        assert train(run, 1) == [0]
    assert run.exceeded is not None


def test_warn_says_so_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    run = CarbonRun(budget="0.0001 g", summary="none")
    with caplog.at_level(logging.WARNING, "carbon_exporter.sdk"), tracked():
        train(run, 3)
    assert run.epochs_done == 3
    assert len([one for one in caplog.messages if "has used" in one]) == 1


def test_a_function_is_called_once_between_epochs_and_may_ask_to_stop() -> None:
    told: list[float] = []
    run = CarbonRun(budget="0.01 EUR", tariff="10000 EUR", on_exceed=lambda e: told.append(e.used), summary="none")
    with tracked():
        train(run, 4)
    assert len(told) == 1
    assert told[0] > 0.01
    run = CarbonRun(budget="0.001 Wh", on_exceed=lambda _: "stop", summary="none")
    with tracked(), pytest.raises(BudgetExceeded):
        train(run, 4)


def test_a_function_that_fails_ends_nothing() -> None:
    run = CarbonRun(budget="0.001 Wh", on_exceed=lambda e: 1 / 0, summary="none")  # noqa: ARG005
    with tracked():
        assert train(run, 3) == [0, 1, 2]


def test_an_error_of_the_script_stays_the_scripts_though_the_budget_is_used_up() -> None:
    run = CarbonRun(budget="0.001 Wh", on_exceed="stop", summary="none")

    def fail() -> None:
        with run, run.epoch():
            time.sleep(0.03)
            raise KeyError("mine")

    with tracked(), pytest.raises(KeyError, match="mine"):
        fail()
    assert run.epochs_done == 0


def test_a_tariff_or_forecast_that_fails_ends_nothing_and_a_budget_holds_all_the_same() -> None:
    def fails(_: float) -> float:
        raise OSError("no network")

    run = CarbonRun(epochs=3, budget="0.001 Wh", on_exceed="stop", tariff=fails, forecast=fails, summary="none")
    with tracked() as tracker:
        with pytest.raises(BudgetExceeded):
            train(run, 3)
        assert not tracker.laps, "the run has ended"
    assert DONE == [0]
    assert (run.cost, run.prediction) == (0.0, None)
