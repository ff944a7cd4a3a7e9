"""What hostSys and hostPID give, and what the mounts leave writable: the chart's container on a node with real pods.

Control groups, processes and mounts are this machine's kernel's; boards are at NVML's ABI.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypedDict

import pytest
from support.apiserver import NODE, TOKEN, ApiServer, make_pod, uid_of
from support.bmc import make_certificate
from support.board_shares import Shares, joules_by_job
from support.chart import NEWEST, manifests
from support.chart_pod import run_pod
from support.exporter import Exporter
from support.fakenvml import FakeNvml, Process, environment
from support.kubelet import kubelet, pods
from support.node import node
from support.other_user import needs_root, public_directory
from support.turns import boards_turn

pytestmark = needs_root

FLAGS = ("--sample.interval=200ms", "--kubernetes.pods=off")
ALONE = {"podResources": False}
"""A kubelet that is expected and silent is waited for."""
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
BURN = 'say("here")\nwhile True: burn(1)'
PARTS = ["bus", "class", "devices", "fs/cgroup/cpuacct", "fs/cgroup/memory"]


@pytest.fixture
def host() -> Iterator[Path]:
    """A node's directories, without control groups."""
    with public_directory() as place:
        for directory in ("sys/bus", "sys/class", "sys/devices", "sys/fs", "var/lib/kubelet/pod-resources"):
            (place / directory).mkdir(parents=True)
        yield place


def called(pod: str) -> str:
    """A pod's job while nobody tells its name."""
    return f"pod-{uid_of(f'ml/{pod}')[:8]}"


def test_the_hosts_groups_give_cpu_energy_by_pod_and_without_them_it_is_told(host: Path) -> None:
    with node() as here:
        (host / "sys/fs/cgroup").symlink_to(here.groups.root)
        here.run("train", BURN)
        with run_pod(manifests({"features": {**ALONE, "hostSys": False}}), host, *FLAGS) as exporter:
            exporter.wait_for_samples(8)
            assert called("train") not in joules_by_job(exporter.series(), "cpu0")
            assert "mount the host's /sys read-only at /host/sys" in exporter.wait_for_log("cgroup")
        with run_pod(manifests({"features": ALONE}), host, *FLAGS) as exporter:
            Shares(exporter).wait(lambda series: joules_by_job(series, "cpu0").get(called("train"), 0) > 0)


@pytest.mark.parametrize(
    ("features", "expected"),
    [({}, {"ml/train": 0.7, "ml/serve": 0.3}), ({"hostPID": False}, {"ml/train": 0.5, "ml/serve": 0.5})],
    ids=["by use with the host's process ids", "equally without them"],
)
def test_pods_that_share_a_board_pay(host: Path, features: dict[str, bool], expected: dict[str, float]) -> None:
    """By use: 60 and 20 per cent, and what nobody uses in equal parts."""
    (host / "driver").mkdir()
    fake = FakeNvml(host / "driver/nvml", boards=1)
    fake.boards[0].constant(300)
    with ExitStack() as stack:
        stack.enter_context(boards_turn())
        here = stack.enter_context(node())
        (host / "sys/fs/cgroup").symlink_to(here.groups.root)
        train, serve = here.run("train"), here.run("serve")
        fake.boards[0].processes([Process(train.pid, sm=60), Process(serve.pid, sm=20)])
        socket = host / "var/lib/kubelet/pod-resources/kubelet.sock"
        stack.enter_context(kubelet(socket, pods(fake.boards[0].uuid, "train", "serve")))
        api = stack.enter_context(ApiServer(make_certificate(host)))
        for name in ("train", "serve"):
            api.put(make_pod(name, "ml"))
        found = manifests({"mode": "full", "features": features})
        exporter = run_pod(found, host, FLAGS[0], **added(host, api, fake))
        shares = Shares(stack.enter_context(exporter))
        shares.wait(lambda series: "ml/serve" in joules_by_job(series, "gpu0"))
        before = shares.watch(1.0)
        assert Shares.between(before, shares.watch(1.5), "gpu0") == pytest.approx(expected, abs=0.03)


class Added(TypedDict):
    """What the kubelet and NVIDIA's runtime give a container besides."""

    environ: dict[str, str]
    shared: dict[str, Path]


def added(host: Path, api: ApiServer, fake: FakeNvml) -> Added:
    (host / "account").mkdir()
    (host / "account/token").write_text(TOKEN)
    assert api.certificate is not None
    (host / "account/ca.crt").write_bytes(api.certificate.certificate.read_bytes())
    driver = environment(fake)
    shared = {ACCOUNT: host / "account", driver["LD_LIBRARY_PATH"]: Path(driver["LD_LIBRARY_PATH"])}
    told = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api.port), "NODE_NAME": NODE}
    return {"environ": {**driver, **told}, "shared": {**shared, str(fake.path.parent): fake.path.parent}}


def writable(exporter: Exporter, *files: Path) -> list[str]:
    """Those that a process in the exporter's mounts may open for writing, if its user may."""
    inner = Path(f"/proc/{exporter.process.pid}/task/{exporter.process.pid}/children").read_text().split()
    found = []
    for file in files:
        try:
            os.close(os.open(f"/proc/{inner[0]}/root{file}", os.O_WRONLY))
        except OSError as error:
            assert error.errno == errno.EROFS
        else:
            found.append(file.parent.name)
    return found


@pytest.mark.parametrize(
    ("values", "kubernetes", "left"),
    [
        ({"features": ALONE}, "1.30.0", ["cpuacct", "memory"]),
        ({"features": ALONE}, NEWEST, []),
        ({"features": ALONE, "host": {"sys": PARTS}}, "1.30.0", []),
    ],
    ids=["one mount of an old Kubernetes", "one mount of a runtime that can", "a mount for each"],
)
def test_groups_of_version_1_are_read_only_where_the_readme_says_so(
    host: Path, values: dict[str, object], kubernetes: str, left: list[str]
) -> None:
    root, name = host / "sys/fs/cgroup", uid_of("ml/train")
    for controller in ("cpuacct", "memory"):
        (root / controller / f"kubepods/pod{name}/main").mkdir(parents=True)
        (root / controller / "cgroup.procs").touch()
    for usage in (root / "cpuacct", root / f"cpuacct/kubepods/pod{name}", root / f"cpuacct/kubepods/pod{name}/main"):
        (usage / "cpuacct.usage").write_text("1000000000\n")
    controllers = [root / "cpuacct", root / "memory"]
    with run_pod(manifests(values, kubernetes), host, *FLAGS, mounted=controllers) as exporter:
        within = Path("/host/sys/fs/cgroup")
        assert writable(exporter, *(within / one.name / "cgroup.procs" for one in controllers)) == left
        (root / f"cpuacct/kubepods/pod{name}/cpuacct.usage").write_text("1100000000\n")
        Shares(exporter).wait(lambda series: called("train") in joules_by_job(series, "cpu0"))
