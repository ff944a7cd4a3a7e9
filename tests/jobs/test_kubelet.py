"""The kubelet's pod-resources, against a real gRPC server on a Unix socket."""

from __future__ import annotations

import contextlib
import logging
import socket as sockets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.kubelet import Kubelet, claim, connections, container, devices, field, kubelet, pod, pods
from support.other_user import as_nobody, needs_root, public_directory
from support.tools import need

from carbon_exporter.jobs.kubelet import PodResources
from carbon_exporter.jobs.workload import DeviceGrant

GPU = "GPU-3c2f1a9e-0b1d-4f6a-9c3e-77a1b2c3d4e5"
OTHER = "GPU-5d0a7c11-2222-4b6a-8c3e-000000000001"
MIG = "MIG-11112222-3333-5444-8555-666677778888"
PERIOD = 0.05


class Clock:
    """One that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def socket() -> Iterator[Path]:
    """A short path, as Unix sockets need; the directory is there, the socket is not."""
    with TemporaryDirectory() as directory:
        yield Path(directory) / "kubelet.sock"


@contextlib.contextmanager
def asking(
    socket: Path, clock: Callable[[], float] = time.monotonic, *, expected: bool = False
) -> Iterator[PodResources]:
    """A directory that asks often."""
    directory = PodResources(socket, PERIOD, clock, expected=expected)
    directory.start()
    try:
        yield directory
    finally:
        directory.close()
        until(lambda: not directory._thread.is_alive())


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def holders(directory: PodResources) -> list[str]:
    return [grant.pod for grant in directory.grants()]


def test_each_pod_has_the_boards_that_it_was_given(socket: Path) -> None:
    answer = b"".join(
        [
            pod("ml", "exclusive", container("main", devices("nvidia.com/gpu", GPU, OTHER))),
            pod("ml", "sliced", container("main", devices("nvidia.com/gpu.shared", f"{GPU}::3"))),
            pod("ml", "old-replica", container("main", devices("nvidia.com/gpu", f"{GPU}-replica-2"))),
            pod("ml", "mig", container("main", devices("nvidia.com/mig-1g.10gb", MIG))),
            pod("ml", "old-mig", container("main", devices("nvidia.com/mig-1g.5gb", f"MIG-{GPU}/7/0"))),
            pod("ml", "gke", container("main", devices("nvidia.com/gpu", "nvidia0/gi5/vgpu2"))),
            pod("hpc", "amd", container("main", devices("amd.com/gpu", "0000:c1:00.0"))),
            pod("hpc", "intel", container("main", devices("gpu.intel.com/i915", "card1-0"))),
            pod("hpc", "claim", container("main", claim("gpu.nvidia.com", "gpu-1", ["k8s.gpu.nvidia.com/claim=c"]))),
            pod("hpc", "watcher", container("main", devices("gpu.intel.com/i915_monitoring", "all"))),
            pod("hpc", "network", container("main", devices("rdma/hca", "mlx5_0"))),
            pod("kube-system", "dns", container("main")),
        ]
    )
    with kubelet(socket, answer), asking(socket) as directory:
        until(lambda: directory.revision == 1)
        assert directory.grants() == (
            DeviceGrant("hpc", "amd", "main", "0000:c1:00.0", "amd.com/gpu"),
            DeviceGrant("hpc", "claim", "main", "nvidia1", "gpu.nvidia.com"),
            DeviceGrant("hpc", "intel", "main", "card1", "gpu.intel.com/i915"),
            DeviceGrant("ml", "exclusive", "main", GPU, "nvidia.com/gpu"),
            DeviceGrant("ml", "exclusive", "main", OTHER, "nvidia.com/gpu"),
            DeviceGrant("ml", "gke", "main", "nvidia0/gi5", "nvidia.com/gpu"),
            DeviceGrant("ml", "mig", "main", MIG, "nvidia.com/mig-1g.10gb"),
            DeviceGrant("ml", "old-mig", "main", f"MIG-{GPU}/7/0", "nvidia.com/mig-1g.5gb"),
            DeviceGrant("ml", "old-replica", "main", GPU, "nvidia.com/gpu"),
            DeviceGrant("ml", "sliced", "main", GPU, "nvidia.com/gpu.shared"),
        )
        assert len(directory.pods()) == 12
        assert ("kube-system", "dns") in directory.pods()
        health = directory.health()
        assert (health.resolver, health.success, health.reason) == ("pod-resources", True, "")
        assert health.seconds > 0


def test_all_questions_go_over_one_connection(socket: Path) -> None:
    with kubelet(socket, pods(GPU, "train")) as server, asking(socket):
        until(lambda: server.questions >= 1)
        first = connections(socket)
        until(lambda: server.questions >= 10)
        assert len(first) == 1
        assert connections(socket) == first


def test_the_revision_rises_with_changes_only(socket: Path) -> None:
    with kubelet(socket, pods(GPU, "a") + pods(OTHER, "b")) as server, asking(socket) as directory:
        until(lambda: server.questions >= 3)
        assert directory.revision == 1
        server.answer = pods(OTHER, "b") + pods(GPU, "a")
        asked = server.questions
        until(lambda: server.questions >= asked + 3)
        assert directory.revision == 1
        server.answer = pods(GPU, "c")
        until(lambda: directory.revision == 2)
        assert holders(directory) == ["c"]
        server.answer = b""
        until(lambda: directory.revision == 3)
        assert directory.grants() == ()
        assert directory.pods() == frozenset()


def test_a_restart_of_the_kubelet_is_survived_and_told_once(socket: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "carbon_exporter")
    with contextlib.ExitStack() as first:
        first.enter_context(kubelet(socket, pods(GPU, "before")))
        with asking(socket) as directory:
            until(lambda: holders(directory) == ["before"])
            first.close()
            until(lambda: not directory.health().success)
            time.sleep(5 * PERIOD)
            assert holders(directory) == ["before"]
            assert "holds for 60 s" in directory.health().reason
            with kubelet(socket, pods(GPU, "after")):
                until(lambda: holders(directory) == ["after"])
                assert directory.health().success
                said = [(one.levelname, one.getMessage()) for one in caplog.records]
    assert [level for level, _ in said] == ["WARNING", "INFO"]
    assert said[1][1] == "pod-resources: the kubelet answers again"


def test_a_socket_made_anew_is_asked_though_the_old_server_still_answers(socket: Path) -> None:
    with kubelet(socket, pods(GPU, "old")) as old, asking(socket) as directory:
        until(lambda: holders(directory) == ["old"])
        socket.rename(socket.with_name("old.sock"))
        with kubelet(socket, pods(GPU, "new")):
            until(lambda: holders(directory) == ["new"])
            asked = old.questions
            time.sleep(4 * PERIOD)
            assert old.questions == asked


def test_the_last_answer_holds_for_a_minute_and_no_longer(socket: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with asking(socket, clock) as directory:
        with kubelet(socket, pods(GPU, "train")):
            until(lambda: holders(directory) == ["train"])
        until(lambda: not directory.health().success)
        clock.now += 59
        time.sleep(4 * PERIOD)
        assert holders(directory) == ["train"]
        clock.now += 1
        until(lambda: directory.grants() == ())
        assert directory.pods() == frozenset()
        assert "not used any more" in directory.health().reason
        with kubelet(socket, pods(GPU, "train")):
            until(lambda: holders(directory) == ["train"])
    assert "boards count as given to nobody" in caplog.text


def test_where_there_is_no_kubelet_nothing_is_amiss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with asking(tmp_path / "pod-resources" / "kubelet.sock") as directory:
        time.sleep(4 * PERIOD)
        assert directory.health().success
        assert directory.grants() == ()
    assert caplog.records == []


def test_on_a_node_of_kubernetes_an_absent_directory_is_trouble(tmp_path: Path) -> None:
    with asking(tmp_path / "pod-resources" / "kubelet.sock", expected=True) as directory:
        until(lambda: not directory.health().success)
        assert "mount the host's /var/lib/kubelet/pod-resources read-only" in directory.health().remedy


def test_an_absent_socket_is_trouble_until_it_is_there(socket: Path, caplog: pytest.LogCaptureFixture) -> None:
    with asking(socket) as directory:
        until(lambda: not directory.health().success)
        assert str(socket) in directory.health().reason
        assert "--kubernetes.pod-resources-socket" in directory.health().remedy
        time.sleep(4 * PERIOD)
        with kubelet(socket, pods(GPU, "train")):
            until(lambda: holders(directory) == ["train"])
            assert directory.health().success
    assert len([one for one in caplog.records if one.levelno == logging.WARNING]) == 1


def test_a_file_in_the_sockets_place_is_told(socket: Path) -> None:
    socket.write_text("")
    with asking(socket) as directory:
        until(lambda: "not a socket" in directory.health().reason)


def test_a_socket_that_nobody_serves_is_told(socket: Path) -> None:
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(socket))
    with asking(socket) as directory:
        until(lambda: "Connection refused" in directory.health().reason)


def test_slow_answers_are_given_up_after_five_seconds(socket: Path) -> None:
    with kubelet(socket, pods(GPU, "train")) as server, asking(socket) as directory:
        until(lambda: holders(directory) == ["train"])
        server.go_on.clear()
        began = time.monotonic()
        until(lambda: not directory.health().success)
        assert time.monotonic() - began > 4.5
        assert "not answered within 5 s" in directory.health().reason
        assert holders(directory) == ["train"]
        server.answer = pods(OTHER, "next")
        server.go_on.set()
        until(lambda: holders(directory) == ["next"])
        assert directory.health().success


@pytest.mark.parametrize(
    "answer",
    [b"\xff" * 40, b"\x0a\x05abc", b"\x0a\x00", pod("ml", "Bad Name"), pod("ml", 'a"} 1\n'), pod("", "a")],
)
def test_garbage_is_refused_whole(socket: Path, answer: bytes) -> None:
    with kubelet(socket, pods(GPU, "train")) as server, asking(socket) as directory:
        until(lambda: holders(directory) == ["train"])
        server.answer = pods(OTHER, "other") + answer
        until(lambda: not directory.health().success)
        assert "cannot be read" in directory.health().reason
        assert holders(directory) == ["train"]
        server.answer = pods(GPU, "again")
        until(lambda: holders(directory) == ["again"])


def test_an_answer_beyond_16_mib_is_refused(socket: Path) -> None:
    huge = field(1, field(1, "a") + field(2, "ml") + field(9, bytes(17 << 20)))
    with kubelet(socket, huge) as server, asking(socket) as directory:
        until(lambda: "larger than max" in directory.health().reason)
        server.answer = field(1, field(1, "a") + field(2, "ml") + field(9, bytes(15 << 20)))
        until(lambda: directory.pods() == {("ml", "a")})


def test_what_a_peer_says_of_its_error_is_cleaned(socket: Path) -> None:
    with kubelet(socket) as server, asking(socket) as directory:
        server.error = grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by\nrate limit\x1b[31m" + "x" * 900
        until(lambda: "RESOURCE_EXHAUSTED rejected by rate limit" in directory.health().reason)
        assert directory.health().reason.isprintable()
        assert len(directory.health().reason) < 400


def test_a_kubelet_without_the_api_is_told(socket: Path) -> None:
    with kubelet(socket, methods=["Get"]), asking(socket) as directory:
        until(lambda: "does not know the pod-resources API" in directory.health().reason)
        assert "1.20" in directory.health().remedy


@contextlib.contextmanager
def seldom(socket: Path) -> Iterator[PodResources]:
    """A directory that asks for all pods once, and then not for a long time."""
    directory = PodResources(socket, 600.0)
    directory.start()
    try:
        until(lambda: bool(directory.pods()))
        yield directory
    finally:
        directory.close()
        until(lambda: not directory._thread.is_alive())


def test_a_pod_that_has_come_is_asked_for_at_once(socket: Path) -> None:
    with kubelet(socket, pods(GPU, "a"), methods=["List", "Get"]) as server, seldom(socket) as directory:
        server.alone["ml", "b"] = pods(OTHER, "b")
        for name in ("b", "b", "a"):
            directory.expect("ml", name)
        until(lambda: directory.pods() == {("ml", "a"), ("ml", "b")})
        directory.expect("ml", "b")
        assert [(grant.pod, grant.device) for grant in directory.grants()] == [("a", GPU), ("b", OTHER)]
        assert set(server.gets) == {("ml", "b")}
        assert server.questions == 1


def test_where_one_pod_cannot_be_asked_for_all_are_at_once(socket: Path) -> None:
    with kubelet(socket, pods(GPU, "a")) as server, seldom(socket) as directory:
        server.answer = pods(GPU, "a", "b")
        directory.expect("ml", "b")
        until(lambda: holders(directory) == ["a", "b"])
        assert server.questions == 2
        assert directory.health().success


def test_a_pod_that_the_kubelet_does_not_know_yet_costs_one_question_for_all(socket: Path) -> None:
    with kubelet(socket, pods(GPU, "a"), methods=["List", "Get"]) as server, seldom(socket) as directory:
        directory.expect("ml", "b")
        until(lambda: server.questions == 2)
        server.alone["ml", "c"] = pods(OTHER, "c")
        directory.expect("ml", "c")
        until(lambda: ("ml", "c") in directory.pods())
        assert server.gets == [("ml", "b"), ("ml", "c")]
        assert directory.health().success


def test_a_peer_that_does_not_speak_grpc_is_survived(socket: Path) -> None:
    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as peer:
                    peer.sendall(bytes(range(256)) * 16)

    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(socket))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        with asking(socket) as directory:
            until(lambda: not directory.health().success)
        listener.shutdown(sockets.SHUT_RDWR)
        thread.join()
    assert directory.grants() == ()


def test_closing_does_not_wait_for_a_peer_that_hangs(socket: Path) -> None:
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(socket))
        listener.listen()
        directory = PodResources(socket, PERIOD)
        directory.start()
        listener.accept()[0].close()
        began = time.monotonic()
        directory.close()
        until(lambda: not directory._thread.is_alive())
        assert time.monotonic() - began < 4
        assert directory.health().success


def test_a_process_ends_though_a_question_is_under_way(socket: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from carbon_exporter.jobs.kubelet import PodResources\n"
        "PodResources(Path(sys.argv[1]), 1.0).start(); time.sleep(1.5)"
    )
    with sockets.socket(sockets.AF_UNIX) as listener:
        listener.bind(str(socket))
        listener.listen()
        done = subprocess.run([sys.executable, "-c", script, str(socket)], capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@needs_root
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_socket_that_is_roots_is_told_with_the_remedy(mode: int) -> None:
    script = (
        "import sys, time; from pathlib import Path; from carbon_exporter.jobs.kubelet import PodResources\n"
        "directory = PodResources(Path(sys.argv[1]), 0.05); directory.start(); end = time.monotonic() + 20\n"
        "while directory.health().success and time.monotonic() < end: time.sleep(0.01)\n"
        "print(directory.health().reason); print(directory.health().remedy); directory.close()"
    )
    with public_directory() as public:
        socket = public / "pod-resources" / "kubelet.sock"
        socket.parent.mkdir()
        with kubelet(socket, pods(GPU, "train")):
            socket.chmod(0o700)
            socket.parent.chmod(mode)
            said = subprocess.run(
                [*as_nobody(), sys.executable, "-c", script, str(socket)], capture_output=True, text=True, check=True
            )
    assert said.stdout.splitlines()[0] == f"{socket} may not be used by this user"
    assert "runAsUser: 0" in said.stdout


def test_without_grpcio_the_remedy_is_its_extra(socket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kubelet(socket, pods(GPU, "train")):
        monkeypatch.setitem(sys.modules, "grpc", None)
        with asking(socket) as directory:
            until(lambda: not directory.health().success)
            assert directory.health().remedy == "pip install carbon-exporter[kubernetes]"
            monkeypatch.undo()
            until(lambda: holders(directory) == ["train"])


def test_importing_it_does_not_load_grpc() -> None:
    script = "import sys, carbon_exporter.jobs.kubelet; print('grpc' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"


@needs_root
def test_a_read_only_mount_of_the_directory_is_enough(socket: Path) -> None:
    mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3" "$1/kubelet.sock"'
    script = """
import sys
from pathlib import Path
from carbon_exporter.jobs.kubelet import PodResources
directory = PodResources(Path(sys.argv[1]))
print(directory._look(), directory.pods())
directory.close()
"""
    with kubelet(socket, pods(GPU, "train")):
        command = [need("unshare"), "--mount", "sh", "-c", mount, "sh", str(socket.parent), sys.executable, script]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"no mounts can be made: {done.stderr.strip()}")
    assert done.stdout == "True frozenset({('ml', 'train')})\n"


@pytest.fixture
def answering(socket: Path) -> Iterator[tuple[Kubelet, PodResources]]:
    with kubelet(socket) as server:
        directory = PodResources(socket)
        yield server, directory
        directory.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_from_a_kubelet_end_as_facts_or_as_health(
    answering: tuple[Kubelet, PodResources], answer: bytes
) -> None:
    server, directory = answering
    server.answer = answer
    good = directory._look()
    assert directory.health().success is good
    assert directory.health().reason.isprintable()
