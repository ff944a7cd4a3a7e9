"""The link to the exporter over a real socket: energy in, spans out."""

from __future__ import annotations

import os
import resource
import time

import pytest
from support.handoff_peer import GRID, energy, handoff_peer, hello, welcome
from support.linked import linked, looking, post, slices, telling
from support.waiting import until

from carbon_exporter.carbon.spans import SpanAccount
from carbon_exporter.publish.handoff_wire import (
    Boards,
    BoardShare,
    DeviceRow,
    Energy,
    Hello,
    SliceRow,
    Spans,
    Watch,
)
from carbon_exporter.sdk.base import BoardUse, Identity, Machine, Meters, Outlet, Price
from carbon_exporter.sdk.exporter_link import ExporterLink
from carbon_exporter.sensors.base import Quality
from carbon_exporter.units import GramsPerKwh


def test_a_script_is_told_who_it_is_what_the_machine_has_and_what_a_kilowatt_hour_costs() -> None:
    with handoff_peer() as peer, linked(peer) as link:
        meters: Meters = link
        outlet: Outlet = link
        assert meters.name == outlet.name == "exporter"
        assert peer.messages(Hello) == [hello()]
        assert link.alive
        assert link.identity == Identity("train", "research", "r1", "0")
        assert link.price == Price("FR", GramsPerKwh(44.5), 1.25, "static/yearly")
        assert link.machine == Machine(8, 2.0**34, "separate")
        assert [(d.name, d.kind, d.max_power, d.period) for d in link.devices] == [
            ("cpu0", "cpu", 300.0, 0.001),
            ("gpu0", "gpu", None, 0.1),
        ]
        link.open()
        assert peer.connections == 1


def test_energy_comes_while_it_is_asked_for() -> None:
    with handoff_peer() as peer, linked(peer) as link:
        assert peer.watched is None
        assert link.read() == []
        until(lambda: peer.watched is True)
        peer.say(energy(), energy("gpu0", joules=30.0), energy("unknown"))
        found = slices(link)
        while len(found) < 2:
            found += slices(link)
        assert [(s.device.name, s.start, s.end, s.joules, s.quality) for s in found] == [
            ("cpu0", 1.0, 1.1, 5.0, Quality.MEASURED),
            ("gpu0", 1.0, 1.1, 30.0, Quality.INTEGRATED),
        ]
        assert link.slack("cpu0") == 0.002
        assert link.slack("never heard of") == 0.0
        link.pause()
        until(lambda: peer.watched is False)
        link.read()
        until(lambda: peer.watched is True)


def test_the_wait_is_until_the_next_message_is_due() -> None:
    with handoff_peer() as peer:
        peer.answers = (welcome(period=0.2), GRID)
        now = [100.0]
        link = ExporterLink(peer.path, hello, clock=lambda: now[0])
        assert link.connect()
        assert link.wait() == pytest.approx(0.204)
        now[0] += 0.15
        assert link.wait() == pytest.approx(0.054)
        now[0] += 0.1
        assert 0 < link.wait() < 0.05, "it is late: look again soon"
        now[0] += 10
        assert link.wait() == 0.2, "it is not coming"
        link.close(0.0)


def test_a_glance_keeps_what_comes_and_energy_is_made_of_it_when_it_is_taken() -> None:
    with handoff_peer() as peer, linked(peer) as link:
        assert link.glance(), "nobody has asked for energy yet"
        link.read()
        assert not link.glance()
        peer.say(energy(), energy("gpu0", joules=30.0), type(GRID)("DE", 350.0, 1.0, "live", "live", "x"))
        until(lambda: link.glance() or (link.price and link.price.region == "DE"))
        assert [(one.device.name, one.joules) for one in link.take()] == [("cpu0", 5.0), ("gpu0", 30.0)]
        assert link.take() == []
        link.pause()
        assert link.glance(), "the next reading asks for more"


def test_energy_is_known_whatever_a_message_begins_with() -> None:
    with handoff_peer() as peer, linked(peer) as link:
        link.read()
        peer.say_bytes(b'{"slices":[["cpu0",1.0,1.1,5.0,0.002]],"type":"energy"}\n')
        assert [one.joules for one in slices(link)] == [5.0]


def test_in_calm_it_looks_in_less_often_and_when_that_ends_soon() -> None:
    with handoff_peer() as peer:
        now = [100.0]
        link = ExporterLink(peer.path, hello, clock=lambda: now[0])
        assert link.connect()
        assert link.wait() == pytest.approx(0.104)
        link.ease(0.3)
        assert link.wait() == pytest.approx(0.304)
        link.ease(0.1)
        assert 0 < link.wait() < 0.05
        link.close(0.0)


def test_a_slice_that_cannot_be_is_left_out() -> None:
    with handoff_peer() as peer, linked(peer) as link:
        odd = (("cpu0", 2.0, 1.0, 5.0), ("cpu0", 1.0, 1.0, 5.0), ("cpu0", 1.0, 2.0, -5.0))
        peer.say(Energy(tuple(SliceRow(*row, 0.0) for row in odd)), energy(joules=7.0))
        assert [s.joules for s in slices(link)] == [7.0]


def test_devices_that_come_later_are_known() -> None:
    with handoff_peer() as peer, linked(peer) as link:
        late = DeviceRow("gpu9", "gpu", "nvidia", "NVIDIA", "H100", "GPU-9", "of the future", None, None)
        peer.say(Energy((SliceRow("gpu9", 1.0, 2.0, 3.0, 0.0),), (late,)))
        (found,) = slices(link)
        assert (found.device.name, found.quality) == ("gpu9", Quality.DEFAULT)
        assert [device.name for device in link.devices] == ["gpu9"]


def test_boards_are_what_the_exporter_tells_and_unknown_where_it_cannot() -> None:
    with handoff_peer() as peer, linked(peer) as link:
        assert link.boards() is None
        peer.say(Boards(known=True, shares=(BoardShare("gpu0", 0.5), BoardShare("gpu1", 7.0))))
        looking(link, link.boards)
        assert link.boards() == BoardUse({"gpu0": 0.5, "gpu1": 1.0}, certain=True)
        peer.say(Boards(known=False, shares=()))
        looking(link, lambda: link.boards() is None)


def test_a_new_price_is_the_price_from_then_on() -> None:
    with handoff_peer() as peer, linked(peer) as link:
        peer.say(type(GRID)("DE", 350.0, 1.0, "live", "live", "x"))
        looking(link, lambda: link.price == Price("DE", GramsPerKwh(350.0), 1.0, "live/live"))


def test_spans_are_told_when_they_change() -> None:
    account = SpanAccount()
    with handoff_peer() as peer, linked(peer, account) as link:
        post(account, "epoch", 5.0)
        telling(link, lambda: "epoch" in peer.spans)
        link.tell()
        post(account, "epoch", 2.0)
        post(account, "load")
        telling(link, lambda: "load" in peer.spans)
        assert peer.spans["epoch"].joules == {"cpu": 7.0}
        assert [message.number for message in peer.messages(Spans)] == [1, 2]


def test_a_session_of_some_milliseconds_arrives_and_nobody_waits_for_an_answer() -> None:
    account = SpanAccount()
    with handoff_peer() as peer:
        began = time.monotonic()
        with linked(peer, account) as link:
            post(account, "blink")
            link.close(5.0)
            took = time.monotonic() - began
        until(lambda: "blink" in peer.spans)
        assert took < 4.0
        assert (peer.connections, peer.endings) == (1, 1)


def test_a_closed_link_that_has_news_calls_once_more() -> None:
    account = SpanAccount()
    with handoff_peer() as peer, linked(peer, account) as link:
        post(account, "epoch")
        link.close(2.0)
        link.close(2.0)
        assert peer.connections == 1
        post(account, "late")
        link.close(2.0)
        until(lambda: "late" in peer.spans)
        assert peer.connections == 2


def test_closing_the_meters_leaves_the_way_open_for_the_last_spans() -> None:
    account = SpanAccount()
    with handoff_peer() as peer, linked(peer, account) as link:
        link.read()
        until(lambda: peer.watched is True)
        meters: Meters = link
        meters.close()
        until(lambda: peer.watched is False)
        post(account, "last")
        link.close(1.0)
        until(lambda: "last" in peer.spans)
        assert peer.connections == 1


def test_meters_that_were_no_outlet_yet_hang_up() -> None:
    with handoff_peer() as peer:
        link = ExporterLink(peer.path, hello)
        assert link.connect()
        link.close()
        assert not link.alive
        until(lambda: peer.endings == 1)


def test_a_forked_child_lets_go_without_a_word() -> None:
    with handoff_peer() as peer, linked(peer) as link:
        child = os.fork()
        if child == 0:
            link.forget()
            link.close(1.0)
            os._exit(0 if link._socket is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        peer.say(energy())
        assert len(slices(link)) == 1
        assert (peer.connections, peer.endings) == (1, 0)


def test_a_script_with_thousands_of_open_files_is_linked_as_well() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < 2048:
        pytest.skip("no more than 1024 files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, limits[1]))
    files = [os.dup(0) for _ in range(1200)]
    try:
        with handoff_peer() as peer, linked(peer) as link:
            peer.say(energy())
            assert len(slices(link)) == 1
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_the_environment_calls_the_job_is_made_fit_for_the_wire() -> None:
    with handoff_peer() as peer, linked(peer, job="bad \udc80 byte", run="r" * 999):
        (said,) = peer.messages(Hello)
        assert said.job == "bad ? byte"
        assert len(said.run) == 256


def test_nothing_is_said_about_energy_that_was_never_asked_for() -> None:
    account = SpanAccount()
    with handoff_peer() as peer:
        with linked(peer, account) as link:
            post(account, "epoch")
            link.tell()
            link.pause()
        assert peer.messages(Watch) == []
