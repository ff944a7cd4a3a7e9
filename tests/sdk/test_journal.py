"""The journal of runs: lives of processes one after the other, and what the next one publishes of those before."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from carbon_exporter.carbon.runs import RunKey, RunTotal
from carbon_exporter.carbon.spans import SpanAccount
from carbon_exporter.jobs.base import Job
from carbon_exporter.sdk.base import Identity
from carbon_exporter.sdk.journal import LONGEST_SECONDS, RunJournal
from carbon_exporter.units import Grams, Joules

TRAIN = Job("train")
FORK = multiprocessing.get_context("fork")


@dataclass
class Way:
    """A way out that takes what it is given."""

    name: str = "page"

    def start(self, account: SpanAccount, identity: Identity) -> None:
        """Publishes `account.runs()` from now on."""

    def tell(self) -> None:
        """Something is new."""

    def close(self, patience: float) -> None:
        """The end."""


def life(directory: Path, way: Way | None, *stages: Mapping[str, float], killed: bool = False) -> dict[str, float]:
    """What a process publishes in the end whose account lists these runs, one after the other, with their joules."""

    def live(told: multiprocessing.SimpleQueue[dict[str, float]]) -> None:
        now: Mapping[RunKey, RunTotal] = {}
        account, journal = SpanAccount(), RunJournal(way, directory)
        account.runs = lambda: now
        journal.start(account, Identity("train"))
        for stage in stages:
            now = {RunKey(TRAIN, run): RunTotal(Joules(joules), Grams(joules / 10)) for run, joules in stage.items()}
            journal.tell()
        told.put({key.run: float(total.joules) for key, total in account.runs().items()})
        if not killed:
            journal.close(0.0)
        os._exit(0)

    told = FORK.SimpleQueue()
    process = FORK.Process(target=live, args=(told,))
    process.start()
    published = cast("dict[str, float]", told.get())
    process.join(30)
    return published


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_that_goes_on_in_script_after_script_with_a_page_keeps_all_that_it_has_used(
    tmp_path: Path, killed: bool
) -> None:
    shown = [life(tmp_path, Way(), {"r": 100.0}, killed=killed)["r"] for _ in range(4)]
    assert shown == [100.0, 200.0, 300.0, 400.0]
    assert len(list(tmp_path.glob("*.json"))) == (4 if killed else 1)


def test_a_way_out_that_takes_all_leaves_nothing_to_the_next_script(tmp_path: Path) -> None:
    life(tmp_path, None, {"r": 100.0})
    assert life(tmp_path, Way("opentelemetry"), {"r": 50.0}) == {"r": 150.0}
    assert not list(tmp_path.iterdir())


def test_runs_that_the_account_has_let_go_of_are_kept_all_the_same(tmp_path: Path) -> None:
    life(tmp_path, None, *({f"r{number}": 1.0 + number} for number in range(12)))
    assert life(tmp_path, Way()) == {f"r{number}": 1.0 + number for number in range(12)}


def test_a_run_is_not_carried_on_for_ever(tmp_path: Path) -> None:
    life(tmp_path, None, {"old": 1.0, "new": 2.0})
    assert set(life(tmp_path, Way())) == {"old", "new"}
    (left,) = tmp_path.iterdir()
    entry = json.loads(left.read_text())
    entry["rows"][0][-1] -= LONGEST_SECONDS
    left.write_text(json.dumps(entry))
    assert life(tmp_path, Way()) == {"new": 2.0}


MANY = """
import time
from carbon_exporter import track
@track(summary="none")
def call():
    time.sleep(0.001)
for _ in range(200):
    call()
"""


def test_each_call_of_a_function_is_in_the_journal_of_its_script(tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CARBON_", "OTEL_"))}
    places = {"XDG_STATE_HOME": str(tmp_path), "CARBON_SDK_SOCKET": "/nonexistent"}
    subprocess.run([sys.executable, "-c", MANY], env={**own, **places}, check=True, timeout=60)
    (left,) = (tmp_path / "carbon-exporter/runs").iterdir()
    runs = {row[2] for row in json.loads(left.read_text())["rows"]}
    assert len(runs) == 200
