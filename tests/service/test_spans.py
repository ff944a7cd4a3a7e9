"""Spans that scripts hand over: published by the job's name, never lost, never counted twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import msgspec
import pytest
from support.exporter import Exporter, state_of
from support.raw_script import RawScript, row, session_name
from support.scripts import Room, process, room, span_joules
from support.waiting import until

from carbon_exporter.energy.store import Store
from carbon_exporter.publish import handoff_wire as wire

__all__ = ["room"]


def test_a_span_is_at_zero_first_and_then_what_was_told(room: Room) -> None:
    seen = set[float | None]()

    def told() -> bool:
        seen.add(span_joules(exporter, job_name="train", span="epoch", rank="0", kind="cpu", region="FR"))
        return 3.6e6 in seen

    with room.exporter(interval="500ms") as exporter, RawScript(room.path, job="train", rank="0") as script:
        welcome = script.wait_for(wire.Welcome)
        assert (welcome.job, welcome.cpus, welcome.idle) == ("train", os.cpu_count(), "separate")
        assert {device.name for device in welcome.devices} >= {"cpu0", "dram0"}
        script.tell(row("epoch", 3.6e6, seconds=2.0, count=3, loss=0.25))
        until(told)
        assert seen == {None, 0.0, 3.6e6}
        series = {name: value for (name, _), value in exporter.series().items() if "span" in name}
        grid = script.wait_for(wire.Grid)
        assert series["carbon_span_co2e_grams_total"] == pytest.approx(grid.grams_per_kwh * grid.pue)
        assert series["carbon_span_duration_seconds_total"] == 2.0
        assert series["carbon_spans_total"] == 3.0
        assert series["carbon_span_value"] == 0.25
        (told_row,) = exporter.status()["spans"]
        assert (told_row["job_name"], told_row["span"], told_row["values"]) == ("train", "epoch", {"loss": 0.25})
        assert exporter.status()["scripts"]["connected"] == 1


def test_a_script_of_a_moment_is_published_even_if_the_exporter_is_killed_then(room: Room) -> None:
    with room.exporter(interval="60s") as exporter:
        with RawScript(room.path, job="short") as script:
            script.wait_for(wire.Welcome)
            script.tell(row("epoch", 7.0, count=1))
        until(lambda: bool(state_of(room.storage)["spans"]["pending"]), 5)
        exporter.kill()
    with room.exporter() as exporter:
        until(lambda: span_joules(exporter, job_name="short") == pytest.approx(7.0))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kills", [5, pytest.param(12, marks=pytest.mark.soak)])
def test_kills_at_any_time_lose_nothing_and_count_nothing_twice(room: Room, kills: int) -> None:
    chance = random.Random(3)  # noqa: S311 - moments to die at, not secrets
    session, total, safe, unsafe = session_name(), 0.0, 0.0, False
    for _ in range(kills):
        with room.exporter() as exporter, RawScript(room.path, session=session, job="train") as script:
            script.wait_for(wire.Welcome)
            numbers = {script.tell(row("epoch", total, count=int(total))): total} if unsafe else {}
            end = time.monotonic() + chance.uniform(0.0, 1.2)
            while time.monotonic() < end:
                total += 1.0
                numbers[script.tell(row("epoch", total, count=int(total)))] = total
                script.listen(0.03)
            exporter.kill()
            script.listen(0.1)
            seen = max((one.number for one in script.heard if isinstance(one, wire.Seen)), default=0)
            safe = numbers.get(seen, safe)
            unsafe = safe < total
    with room.exporter() as exporter:
        with RawScript(room.path, session=session, job="train") as script:
            script.tell(row("epoch", total, count=int(total)))
            script.wait_for(wire.Seen)
        until(lambda: span_joules(exporter, job_name="train") == pytest.approx(total, rel=1e-12))
        exporter.wait_for_samples(2)
        assert span_joules(exporter, job_name="train") == pytest.approx(total, rel=1e-12)
    assert total > 4 * kills


def test_nothing_is_called_safe_before_the_state_file_holds_it(room: Room) -> None:
    with room.exporter(interval="1s") as exporter, RawScript(room.path, job="train") as script:
        script.wait_for(wire.Welcome)
        for joules in range(1, 40):
            number = script.tell(row("epoch", float(joules)))
            script.listen(0.05)
            if any(isinstance(one, wire.Seen) and one.number == number for one in script.heard):
                (saved,) = state_of(room.storage)["spans"]["sessions"]
                *_, rows, _runs = saved
                assert rows[0][1]["cpu"] >= joules
        assert [one for one in script.heard if isinstance(one, wire.Seen)]
        exporter.kill()


def test_totals_that_are_told_twice_or_fall_count_once(room: Room) -> None:
    with room.exporter() as exporter, RawScript(room.path, job="train") as script:
        for joules in (5.0, 5.0, 3.0, 6.0, 6.0):
            number = script.tell(row("epoch", joules))
            script.wait_for(wire.Seen, lambda seen, wanted=number: seen.number == wanted)  # type: ignore[misc]
        exporter.wait_for_samples(2)
        assert span_joules(exporter, job_name="train") == pytest.approx(6.0)


def test_a_kill_between_two_lives_of_a_span_book_keeps_the_sessions_of_living_scripts_only(room: Room) -> None:
    with room.exporter() as exporter, RawScript(room.path, job="here") as script:
        script.tell(row("epoch", 1.0))
        script.wait_for(wire.Seen)
        with process(room.path, job="gone") as answer:
            assert answer.startswith("/gone")
            until(lambda: len(state_of(room.storage)["spans"]["sessions"]) == 2)
        until(lambda: [one[0] for one in state_of(room.storage)["spans"]["sessions"]] == [script.session])
        until(lambda: span_joules(exporter, job_name="gone") == pytest.approx(3.6e6))


def test_a_new_price_is_told_and_applies_to_what_is_told_from_then_on(room: Room) -> None:
    config = room.folder / "config.yml"
    config.write_text("site: {pue: 1.0}\n")
    flags = (f"--config.file={config}",)
    with room.exporter(*flags) as exporter, RawScript(room.path, job="train") as script:
        first = script.wait_for(wire.Grid)
        number = script.tell(row("epoch", 3.6e6))
        script.wait_for(wire.Seen, lambda seen: seen.number == number)
        config.write_text("site: {pue: 2.0}\n")
        exporter.process.send_signal(signal.SIGHUP)
        assert script.wait_for(wire.Grid, lambda grid: grid.pue == 2.0).grams_per_kwh == first.grams_per_kwh
        script.tell(row("epoch", 7.2e6))
        until(lambda: span_joules(exporter, job_name="train") == pytest.approx(7.2e6))
        grams = {name: value for (name, _), value in exporter.series().items()}["carbon_span_co2e_grams_total"]
        assert grams == pytest.approx(3 * first.grams_per_kwh)


def test_jobs_that_are_not_to_be_named_are_counted_without_any_name_of_theirs(room: Room) -> None:
    with room.exporter("--jobs.exclude=secret*") as exporter:
        with RawScript(room.path, job="secret-1", rank="7") as script:
            script.tell(row("secret-epoch", 5.0, count=2, loss=1.0))
            script.wait_for(wire.Seen)
        until(lambda: span_joules(exporter, job_name="_overflow_", span="_overflow_") == pytest.approx(5.0))
        assert b"secret" not in exporter.get("/metrics")


def test_ended_scripts_leave_the_page_with_their_jobs_and_go_on_if_they_come_back(room: Room) -> None:
    with room.exporter("--jobs.linger=1s") as exporter:
        for part in (1, 2):
            with RawScript(room.path, job="train") as script:
                script.tell(row("epoch", 4.0, count=1))
                script.wait_for(wire.Seen)
            until(lambda wanted=4.0 * part: span_joules(exporter, job_name="train") == pytest.approx(wanted))  # type: ignore[misc]
            until(lambda: span_joules(exporter, job_name="train") is None)


def test_more_spans_than_the_limit_are_folded_and_counted(room: Room) -> None:
    with room.exporter("--spans.max=2") as exporter, RawScript(room.path, job="train") as script:
        script.tell(*(row(f"step {number}", 1.0, count=1) for number in range(10)))
        until(lambda: span_joules(exporter, job_name="train", span="_overflow_") == pytest.approx(8.0))
        folded = [value for (name, _), value in exporter.series().items() if name == "carbon_spans_folded_total"]
        assert folded == [8.0]


def test_a_state_file_of_before_is_read(room: Room) -> None:
    with room.exporter() as exporter:
        exporter.wait_for_samples(2)
        exporter.kill()
    strip(room.storage)
    with room.exporter() as exporter:
        exporter.wait_for_samples(1)
        assert "totals:" not in exporter.text


def strip(storage: Path) -> None:
    """Write the state as an exporter that knew nothing of spans had it."""
    store = Store(storage)
    body = store.open()
    assert body is not None
    state = msgspec.json.decode(body)
    del state["spans"]
    store.save(msgspec.json.encode(state))
    store.close()


def test_without_a_socket_nothing_listens_and_nothing_is_said_of_scripts(room: Room) -> None:
    with Exporter("--sdk.socket=", f"--storage.path={room.storage}") as exporter:
        names = {name for name, _ in exporter.series()}
        assert not any(name.startswith("carbon_handoff") for name in names)
        assert exporter.status()["scripts"] == {"connected": None, "refused": {}}
    assert not room.path.exists()


def test_a_second_exporter_leaves_the_first_its_socket_and_counts_on(room: Room) -> None:
    with room.exporter() as first:
        flags = (f"--sdk.socket={room.path}", f"--storage.path={room.folder}/other")
        with Exporter(*flags) as second:
            second.wait_for_log("another exporter listens")
            assert second.status()["samples"] > 0
        with RawScript(room.path) as script:
            script.wait_for(wire.Welcome)
        assert first.stop() == 0
    assert not room.path.exists()
