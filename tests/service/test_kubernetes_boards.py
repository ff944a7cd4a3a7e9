"""Boards given to pods: the real exporter, a kubelet that speaks gRPC on its socket, and boards at NVML's ABI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.board_shares import Shares, info_of, joules_by_job, resolver, until
from support.exporter import Exporter, Series
from support.fakenvml import FakeNvml, Process, Slice, environment
from support.kubelet import claim, container, devices, kubelet, pod
from support.node import Node, node
from support.turns import boards_turn

NAME = "pod-resources"
GPU, SHARED, SMALL = "nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb"
UNSEEN = 4_194_303
"""The number of a process that this /proc does not have."""
BOARDS = 17


def given(name: str, *parts: bytes, containers: tuple[str, ...] = ("main",)) -> bytes:
    """A pod whose containers were each given these."""
    return pod("ml", name, *(container(one, *parts) for one in containers))


def slice_uuid(fake: FakeNvml, slot: int, number: int) -> str:
    return bytes(fake.boards[slot].raw.slice[number].uuid).decode()


def listing(fake: FakeNvml, *, second: bool = False) -> bytes:
    """What the kubelet answers; the `second` time one pod has gone, another has its board, and one more has come."""
    uuid = [board.uuid for board in fake.boards]
    small = [slice_uuid(fake, 5, number) for number in range(7)]
    pods = [
        given("successor" if second else "quiet", devices(GPU, uuid[0])),
        given("busy", devices(GPU, uuid[1])),
        given("turn-a", devices(SHARED, f"{uuid[2]}::0")),
        given("turn-b", devices(SHARED, f"{uuid[2]}::1")),
        given("turn-c", devices(SHARED, f"{uuid[3]}::0")),
        given("turn-d", devices(SHARED, f"{uuid[3]}::1", f"{uuid[3]}::2")),
        given("mps-a", devices(GPU, *(f"{uuid[4]}-replica-{number}" for number in (0, 2, 3)))),
        given("mps-b", devices(GPU, f"{uuid[4]}-replica-1")),
        given("mps-c", devices(GPU, f"{uuid[4]}-4")),
        given("mig-a", devices(SMALL, *small[:4])),
        given("mig-b", devices(SMALL, small[4], f"{small[5]}::0")),
        given("mig-c", devices(SMALL, f"{small[5]}::1")),
        given("gke-a", devices(GPU, "nvidia6/gi1")),
        given("gke-b", devices(GPU, "nvidia6/gi2/vgpu0")),
        given("claimed", claim("gpu.nvidia.com", "gpu-7", ["k8s.gpu.nvidia.com/claim=gpu-7"])),
        given("early", claim(cdi=["k8s.gpu.nvidia.com/device=gpu-8"])),
        given("hidden", devices(GPU, uuid[9])),
        given("twice", devices(GPU, f"{uuid[11]}::0", f"{uuid[11]}::1"), containers=("one", "two")),
        given("wide", devices(GPU, uuid[12], "nvidia13")),
        given("whole", devices(GPU, uuid[14])),
        given("on-the-host", devices(GPU, uuid[16])),
        given("without"),
        *([given("late", devices(GPU, uuid[10]))] if second else []),
    ]
    return b"".join(pods)


EXPECTED = {
    "gpu0": {"ml/quiet": 1.0},
    "gpu1": {"ml/busy": 1.0},
    "gpu2": {"ml/turn-a": 0.5, "ml/turn-b": 0.5},
    "gpu3": {"ml/turn-c": 0.7, "ml/turn-d": 0.3},
    "gpu4": {"ml/mps-a": 0.5 + 0.4 / 3, "ml/mps-b": 0.1 + 0.4 / 3, "ml/mps-c": 0.4 / 3},
    "gpu5": {"ml/mig-a": 4 / 7, "ml/mig-b": 1.5 / 7, "ml/mig-c": 0.5 / 7, "_idle_": 1 / 7},
    "gpu6": {"ml/gke-a": 3 / 7, "ml/gke-b": 1 / 7, "_idle_": 3 / 7},
    "gpu7": {"ml/claimed": 1.0},
    "gpu8": {"ml/early": 1.0},
    "gpu9": {"ml/hidden": 1.0},
    "gpu10": {"_idle_": 1.0},
    "gpu11": {"ml/twice": 1.0},
    "gpu12": {"ml/wide": 1.0},
    "gpu13": {"ml/wide": 1.0},
    "gpu14": {"ml/whole": 1.0},
    "gpu15": {"_idle_": 1.0},
    "gpu16": {"ml/on-the-host": 1.0},
}


def machine(directory: Path, here: Node) -> FakeNvml:
    """Boards, some busy with processes in pods and some with none, in the draw of a square wave."""
    fake = FakeNvml(directory / "nvml", boards=BOARDS)
    for number, board in enumerate(fake.boards):
        board.square(100 + 10 * number, 500, 1.3)
    fake.boards[1].processes([Process(here.run("busy").pid, sm=90)])
    fake.boards[3].processes([Process(here.run("turn-c").pid, sm=60), Process(here.run("turn-d").pid, sm=20)])
    fake.boards[4].processes(
        [Process(here.run("mps-a").pid, sm=50, kind="mps"), Process(here.run("mps-b").pid, sm=10, kind="mps")]
    )
    fake.boards[5].mig([Slice(gi=7 + number) for number in range(7)])
    fake.boards[5].processes([Process(here.run("mig-a").pid, gi=8)])
    fake.boards[6].mig([Slice(gi=1, profile="3g.40gb", slices=3, sm=48), Slice(gi=2), Slice(gi=3)])
    fake.boards[9].processes([Process(UNSEEN, sm=70)])
    fake.boards[14].mig([Slice(gi=1, profile="3g.40gb", slices=3, sm=48), Slice(gi=5)])
    fake.boards[15].mig([Slice(gi=1)])
    in_its_network = here.run("on-the-host", environment={"HOSTNAME": "node-1"})
    fake.boards[16].processes([Process(in_its_network.pid, sm=80)])
    return fake


@contextmanager
def exporter_of(directory: Path, fake: FakeNvml) -> Iterator[Shares]:
    flags = ("--sample.interval=500ms", f"--storage.path={directory / 'state'}", "--kubernetes.pods=off")
    room = ("--jobs.max=1000", "--series.max=100000")  # for what else runs on this machine
    socket = f"--kubernetes.pod-resources-socket={directory / 'kubelet.sock'}"
    with Exporter(*flags, *room, socket, environ=environment(fake)) as exporter:
        yield Shares(exporter)


def told(shares: Shares) -> dict[str, str]:
    """What the status says of the kubelet."""
    found: dict[str, str] = next(one for one in shares.exporter.status()["resolvers"] if one["resolver"] == NAME)
    return found


def ill(shares: Shares, reason: str) -> Series:
    """Wait until the kubelet's trouble is this one; it is in the metrics, too."""
    until(lambda: reason in told(shares)["reason"], reason)
    series = shares.scrape()
    assert resolver(series, NAME) == 0
    return series


def assert_shares(before: Series, after: Series, expected: dict[str, dict[str, float]]) -> None:
    for device, parts in expected.items():
        assert Shares.between(before, after, device) == pytest.approx(parts, abs=0.02), device


def test_pods_pay_for_the_boards_that_they_were_given_whatever_befalls_the_kubelet(tmp_path: Path) -> None:
    socket = tmp_path / "kubelet.sock"
    with ExitStack() as stack:
        stack.enter_context(boards_turn())
        fake = machine(tmp_path, stack.enter_context(node()))
        shares = stack.enter_context(exporter_of(tmp_path, fake))
        alone = ill(shares, "no kubelet at")
        assert set(joules_by_job(alone, "gpu0")) == {"_idle_", "_unattributed_"}

        first = stack.enter_context(kubelet(socket, listing(fake)))
        shares.wait(lambda series: resolver(series, NAME) == 1 and "ml/quiet" in joules_by_job(series, "gpu0"))
        before = shares.watch(2.6)  # half an interval is shared with what was there before, and is posted late
        first.go_on.clear()
        after = shares.watch(4)
        assert_shares(before, after, EXPECTED)
        assert not [job for device in EXPECTED for job in joules_by_job(after, device) if "without" in job]
        assert resolver(after, "gpu") == 0, "a process cannot be seen"
        slices = {one["slice"] for one in info_of(after, "carbon_job_slice_info", "mig-b")}
        assert slices == {"gi11", "gi12"}

        slow = ill(shares, "has not answered within 5 s; its last answer holds for 60 s")
        first.answer = b"\xff garbage"
        first.go_on.set()
        garbled = ill(shares, "cannot be read")
        assert_shares(after, garbled, EXPECTED)
        first.stop()
        gone = ill(shares, "no kubelet at")
        assert_shares(slow, shares.watch(1), EXPECTED)

        stack.enter_context(kubelet(socket, listing(fake, second=True)))
        shares.wait(lambda series: resolver(series, NAME) == 1 and "ml/late" in joules_by_job(series, "gpu10"))
        assert_shares(gone, shares.scrape(), {"gpu1": EXPECTED["gpu1"]})
        back = shares.watch(1.6)
        changed = {"gpu0": {"ml/successor": 1.0}, "gpu10": {"ml/late": 1.0}}
        assert_shares(back, shares.watch(2), EXPECTED | changed)
        log = [line for line in shares.exporter.log if NAME in line]
        assert any("the kubelet answers again" in line for line in log)


@pytest.mark.soak
@pytest.mark.timeout(240)
def test_the_kubelets_last_word_holds_for_a_minute(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path / "nvml", boards=1)
    with ExitStack() as stack:
        stack.enter_context(boards_turn())
        first = stack.enter_context(
            kubelet(tmp_path / "kubelet.sock", given("quiet", devices(GPU, fake.boards[0].uuid)))
        )
        shares = stack.enter_context(exporter_of(tmp_path, fake))
        shares.wait(lambda series: "ml/quiet" in joules_by_job(series, "gpu0"))
        before = shares.watch(1.6)
        first.stop()
        stopped = time.monotonic()
        ill(shares, "its last answer holds for 60 s")
        held = shares.watch(stopped + 48 - time.monotonic())
        assert Shares.between(before, held, "gpu0") == {"ml/quiet": pytest.approx(1.0)}
        until(lambda: "older than 60 s and not used any more" in told(shares)["reason"], "its end", 30)
        free = shares.watch(2.1)
        assert Shares.between(free, shares.watch(2.1), "gpu0") == {"_idle_": pytest.approx(1.0)}
        assert sum("boards count as given to nobody" in line for line in shares.exporter.log) == 1
