"""A run beside somebody else's bar: real tqdm and real rich show its numbers, and the summary breaks neither."""

from __future__ import annotations

import io
import sys
import time

import pytest
from support.span_engine import tracked

from carbon_exporter import CarbonRun


def test_tqdm_shows_the_numbers_after_its_bar_and_the_summary_stands_above_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tqdm = pytest.importorskip("tqdm")
    shown = io.StringIO()
    with tracked():
        outer = tqdm.tqdm(total=1, file=sys.stderr)
        with CarbonRun("bar") as run:
            for _ in run.epochs(tqdm.tqdm(range(3), file=shown, ncols=120)):
                time.sleep(0.03)
        outer.close()
    assert run.epochs_done == 3
    assert run.prediction is not None, "a bar has a length"
    last = shown.getvalue().split("\r")[-1]
    assert "3/3" in last
    assert " kWh, " in last
    assert ", in all " in last
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "run bar" in line]
    assert len(lines) == 1
    assert lines[0].lstrip("\x1b[A ").startswith("carbon-exporter: run bar: "), "a line of its own"


def test_a_bar_over_a_generator_has_no_length_and_shows_the_numbers_all_the_same() -> None:
    tqdm = pytest.importorskip("tqdm")
    shown = io.StringIO()
    with tracked(), CarbonRun(summary="none") as run:
        for _ in run.epochs(tqdm.tqdm((number for number in range(3)), file=shown)):
            time.sleep(0.03)
    assert run.epochs_done == 3
    assert run.prediction is None
    assert " kWh, " in shown.getvalue()


def test_rich_has_a_column_with_the_numbers() -> None:
    console = pytest.importorskip("rich.console").Console(file=io.StringIO(), width=120, force_terminal=True)
    progress = pytest.importorskip("rich.progress")
    run = CarbonRun(summary="none")
    with tracked(), run, progress.Progress("{task.description}", run.rich_column(), console=console) as bar:
        task = bar.add_task("train", total=2)
        for _ in run.epochs(range(2)):
            time.sleep(0.03)
            bar.advance(task)
    assert " kWh, " in console.file.getvalue()
    assert "train" in console.file.getvalue()


def test_without_rich_the_error_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(ImportError, match="rich"):
        CarbonRun().rich_column()


def test_whatever_a_bar_raises_the_loop_goes_on() -> None:
    class Broken(list[int]):
        def set_postfix_str(self, text: str) -> None:
            raise OSError(text)

    with tracked(), CarbonRun(summary="none") as run:
        assert list(run.epochs(Broken([1, 2]))) == [1, 2]
    assert run.epochs_done == 2
