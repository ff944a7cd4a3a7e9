"""The link over a real socket to an exporter that is not there, dies, comes back, hangs, refuses or talks nonsense."""

from __future__ import annotations

import logging
import socket
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
from support.handoff_peer import GRID, energy, handoff_peer, hello, welcome
from support.linked import linked, looking, post, slices, telling
from support.waiting import until

from carbon_exporter.carbon.spans import SpanAccount
from carbon_exporter.errors import CarbonExporterError
from carbon_exporter.publish.handoff_wire import (
    LONGEST_LINE,
    Energy,
    Hello,
    Refused,
    Seen,
    SliceRow,
    Spans,
)
from carbon_exporter.sdk.exporter_link import ExporterLink
from carbon_exporter.sdk.told_energy import MOST_WAITING


def _is_dead(link: ExporterLink) -> bool:
    return not link.alive


def test_nobody_there_is_no_and_no_is_quick_and_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory() as directory:
        missing, file = Path(directory) / "missing.sock", Path(directory) / "file"
        file.touch()
        dead = Path(directory) / "dead.sock"
        with socket.socket(socket.AF_UNIX) as once:
            once.bind(str(dead))
        for path in (str(missing), str(file), str(dead), directory, directory + "/" + "x" * 200, "nul\x00"):
            link = ExporterLink(path, hello)
            assert not link.connect(), path
            assert not link.alive
            with pytest.raises(CarbonExporterError, match="no exporter answers at"):
                link.open()
            link.tell()
            link.close(0.3)
    assert not caplog.records


def test_an_exporter_that_hangs_is_none_after_the_time_out() -> None:
    with handoff_peer() as peer:
        peer.answers = (welcome(),)
        link = ExporterLink(peer.path, hello)
        began = time.monotonic()
        assert not link.connect(0.2)
        assert 0.15 < time.monotonic() - began < 5
        assert not link.alive


def test_a_refusal_is_logged_once_with_its_remedy(caplog: pytest.LogCaptureFixture) -> None:
    with handoff_peer() as peer:
        peer.answers = (Refused("another pid namespace", "set hostPID: true"),)
        link = ExporterLink(peer.path, hello)
        assert not link.connect()
        assert not link.connect()
        link.close(0.1)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("carbon_exporter.sdk", logging.WARNING)
    assert "another pid namespace; set hostPID: true" in record.getMessage()


def test_another_version_is_no(caplog: pytest.LogCaptureFixture) -> None:
    with handoff_peer() as peer:
        peer.answers = (welcome(version=99), GRID)
        link = ExporterLink(peer.path, hello)
        assert not link.connect()
        link.close(0.1)
    assert "version 99" in caplog.text


def test_what_is_no_exporter_is_hung_up_on(caplog: pytest.LogCaptureFixture) -> None:
    for garbage in (b"HTTP/1.1 400 Bad Request\r\n", b"x" * (3 * LONGEST_LINE), b"[]\n\xff\xff\n"):
        with handoff_peer() as peer, linked(peer) as link:
            peer.say_bytes(garbage)
            looking(link, partial(_is_dead, link))
    assert "no exporter" in caplog.text


@pytest.mark.parametrize(
    "line", [b'{"type":"future","x":1}\n', b'{"type":"energy","slices":7}\n', b'{"type":"energy"\n']
)
def test_a_message_that_is_not_understood_is_left_out_and_said_once(
    line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with handoff_peer() as peer, linked(peer) as link:
        peer.say_bytes(line * 3)
        peer.say(energy())
        assert len(slices(link)) == 1
        assert link.alive
    assert len(caplog.records) == 1


def test_an_exporter_that_comes_back_gets_what_it_had_not_seen_and_nothing_else() -> None:
    account = SpanAccount()
    with handoff_peer() as peer, linked(peer, account) as link:
        post(account, "safe")
        telling(link, lambda: "safe" in peer.spans)
        peer.say(Seen(1))
        peer.say(energy())
        slices(link)
        post(account, "told")
        telling(link, lambda: "told" in peer.spans)
        peer.die()
        looking(link, lambda: not link.alive)
        for _ in range(50):
            post(account, "meanwhile")
            link.tell()
        peer.heard.clear()
        peer.come()
        looking(link, lambda: link.alive)
        telling(link, lambda: len(peer.spans) == 2)
        assert peer.messages(Hello) == [hello()], "it is the same session"
        assert set(peer.spans) == {"told", "meanwhile"}
        assert peer.spans["meanwhile"].count == 50
        assert peer.watched is True
        assert min(message.number for message in peer.messages(Spans)) == 3, "numbers go on"
        peer.say(energy(joules=9.0))
        assert [s.joules for s in slices(link)] == [9.0]


def test_an_exporter_that_is_away_is_called_less_and_less_often() -> None:
    now = [100.0]
    with handoff_peer() as peer:
        link = ExporterLink(peer.path, hello, clock=lambda: now[0])
        assert link.connect()
        peer.die()
        link.read()
        pauses = []
        for _ in range(5):
            link.read()
            pauses.append(link.wait())
            now[0] += link.wait()
        link.close(0.0)
    assert pauses[0] <= 1.0
    assert pauses[-1] == 5.0
    assert pauses == sorted(pauses)


def test_what_was_measured_while_the_exporter_was_away_arrives_when_the_script_ends() -> None:
    account = SpanAccount()
    with handoff_peer() as peer, linked(peer, account) as link:
        peer.die()
        looking(link, lambda: not link.alive)
        for _ in range(20):
            link.read()
        post(account, "epoch")
        peer.come()
        link.close(3.0)
        until(lambda: "epoch" in peer.spans)


def test_an_exporter_that_does_not_read_keeps_nobody_waiting_and_gets_the_newest() -> None:
    account = SpanAccount(per_job=200)
    with handoff_peer() as peer:
        peer.reads = False
        with linked(peer, account) as link:
            began = time.monotonic()
            for n in range(3000):
                post(account, f"span-{n % 150}-{'x' * 100}")
                link.tell()
            assert time.monotonic() - began < 60
            began = time.monotonic()
            link.close(0.2)
            assert time.monotonic() - began < 5
            assert not peer.spans


def test_a_stalled_exporter_that_reads_again_has_the_totals() -> None:
    account = SpanAccount(per_job=200)
    with handoff_peer() as peer:
        peer.reads = False
        with linked(peer, account) as link:
            for n in range(3000):
                post(account, f"span-{n % 150}-{'x' * 100}")
                link.tell()
            peer.reads = True
            expected = {key.span: total.count for key, total in account.totals.items()}
            telling(link, lambda: {n: row.count for n, row in peer.spans.items()} == expected)
        assert max(peer.lengths) <= LONGEST_LINE


def test_a_script_that_has_much_to_say_is_no_flood() -> None:
    account = SpanAccount()
    with handoff_peer() as peer, linked(peer, account) as link:
        began = time.monotonic()
        for n in range(2000):
            post(account, f"{n % 30}-{'x' * 100}")
            link.tell()
        took = time.monotonic() - began
        assert sum(peer.lengths) < 131072 * took + 2 * LONGEST_LINE
        link.close(5.0)
        until(lambda: sum(row.count for row in peer.spans.values()) == 2000)


def test_energy_that_nobody_takes_is_bounded() -> None:
    with handoff_peer() as peer, linked(peer) as link:
        many = Energy(tuple(SliceRow("cpu0", n, n + 1.0, 1.0, 0.0) for n in range(5)))
        told = 0
        while told < MOST_WAITING + 20:
            peer.say(many)
            link.tell()
            told += 1
        telling(link, lambda: len(link._energy._waiting) == MOST_WAITING)
        assert len(link.read()) == 5 * MOST_WAITING
