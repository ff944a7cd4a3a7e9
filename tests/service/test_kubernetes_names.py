"""Names of pods: the real exporter in a pod's surroundings, an API server over TLS, and pods as real control groups.

The exporter finds the account's token and the certificate authority where a kubelet mounts them, because it runs in a
mount namespace of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import NODE, TOKEN, ApiServer, container_id, make_pod, refusal, uid_of
from support.bmc import make_certificate
from support.board_shares import Shares, info_of, joules_by_job, resolver
from support.exporter import Exporter, Series
from support.fakenvml import FakeNvml, Process, environment
from support.kubelet import Kubelet, container, devices, kubelet, pod
from support.node import Node, node
from support.other_user import needs_root
from support.tools import need
from support.workloads import Program

from carbon_exporter.jobs.namer import PENDING_SECONDS

BURN = """
say("here")
while True:
    burn(0.004)
    time.sleep(0.08)
"""
MOUNT = 'mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io && ln -s "$0" "$1" && shift && exec "$@"'
"""In a mount namespace of its own: /var/run, which leads to /run, with nothing in it but the secrets."""
ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
ANNOTATION = "carbon-exporter.io/job"
BERT = {"training.kubeflow.org/job-name": "bert", "kueue.x-k8s.io/queue-name": "night"}
SECOND = "second-token-of-the-account"
Json = dict[str, Any]


def ml(name: str, **parts: Any) -> Json:
    """A pod of the namespace `ml`, whose container is called `main`."""
    return make_pod(name, "ml", **parts)


def two_containers(name: str, **jobs: str) -> Json:
    """A pod with a container for each of these, with the CARBON_JOB that its spec gives it."""
    made = ml(name, containers=[{"name": one, "env": [{"name": "CARBON_JOB", "value": jobs[one]}]} for one in jobs])
    states = [{"name": one, "containerID": f"containerd://{container_id(name, one)}"} for one in jobs]
    made["status"]["containerStatuses"] = states
    return made


def made_by(kind: str, name: str) -> list[Json]:
    return [{"apiVersion": "v1", "kind": kind, "name": name, "uid": "1", "controller": True}]


@dataclass
class Cluster:
    """A node, and all that an exporter there may ask."""

    api: ApiServer
    kubelet: Kubelet
    fake: FakeNvml
    node: Node
    directory: Path
    stack: ExitStack = field(repr=False)

    def give(self, boards: dict[tuple[str, str], int]) -> None:
        """Let the kubelet say that these containers were each given a board."""
        self.kubelet.answer = b"".join(
            pod("ml", name, container(one, devices("nvidia.com/gpu", self.fake.boards[slot].uuid)))
            for (name, one), slot in boards.items()
        )

    def burn(self, name: str, *containers: str) -> list[Program]:
        """Programs in a pod's containers, which say of themselves what nobody should believe."""
        lie = {"CARBON_JOB": "liar"}
        return [self.node.run(name, BURN, container=one, environment=lie) for one in containers or ("main",)]

    def exporter(self) -> Shares:
        flags = ("--sample.interval=500ms", "--containers.sockets=", "--jobs.max=1000", "--series.max=100000")
        places = (
            f"--storage.path={self.directory / 'state'}",
            f"--kubernetes.pod-resources-socket={self.directory / 'kubelet.sock'}",
        )
        told = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.api.port)}
        environ = {**told, "NODE_NAME": NODE, **environment(self.fake)}
        in_pod = (need("unshare"), "--mount", "sh", "-c", MOUNT, str(self.directory / "account"), ACCOUNT)
        return Shares(self.stack.enter_context(Exporter(*flags, *places, environ=environ, prefix=in_pod)))


@contextmanager
def cluster(directory: Path, *pods: Json, boards: int) -> Iterator[Cluster]:
    """A cluster with these pods."""
    (directory / "account").mkdir()
    certificate = make_certificate(directory)
    (directory / "account" / "ca.crt").write_bytes(certificate.certificate.read_bytes())
    (directory / "account" / "token").write_text(TOKEN)
    fake = FakeNvml(directory / "nvml", boards=boards)
    with ExitStack() as stack:
        api = stack.enter_context(ApiServer(certificate))
        here = stack.enter_context(node())
        answering = stack.enter_context(kubelet(directory / "kubelet.sock"))
        for one in pods:
            api.put(one)
        yield Cluster(api, answering, fake, here, directory, stack)


def members(series: Series, job: str) -> set[tuple[str, str]]:
    found = info_of(series, "carbon_job_member_info", job)
    return {(one["job_pod"], one.get("job_container", "")) for one in found}


def known(series: Series) -> set[str]:
    """All jobs of all devices."""
    devices = {dict(labels)["device"] for name, labels in series if name == "carbon_device_energy_kwh_total"}
    return {job for device in devices for job in joules_by_job(series, device)}


def paid(shares: Shares, device: str, seconds: float = 2.1) -> dict[str, float]:
    """Who pays for a device from now on; the parts are rounded. What was used before is posted by then."""
    before = shares.watch(2.1)
    return {job: round(part, 6) for job, part in Shares.between(before, shares.watch(seconds), device).items()}


@needs_root
@pytest.mark.timeout(180)
@pytest.mark.usefixtures("boards_turn")
def test_a_pod_and_its_boards_are_called_by_what_the_api_server_tells(tmp_path: Path) -> None:
    pods = [
        ml("annotated-x7k2m", annotations={ANNOTATION: "vision"}, labels={"batch.kubernetes.io/job-name": "never"}),
        ml("labelled-0", labels=BERT),
        ml("labelled-1", labels=BERT),
        ml(
            "web-6d4cf56db6-x7k2m",
            owners=made_by("ReplicaSet", "web-6d4cf56db6"),
            labels={"pod-template-hash": "6d4cf56db6"},
        ),
        two_containers("pair", one="prepare", two="refine"),
    ]
    with cluster(tmp_path, *pods, boards=4) as here:
        for name in ("annotated-x7k2m", "labelled-0", "labelled-1", "web-6d4cf56db6-x7k2m"):
            here.burn(name)
        here.burn("pair", "one", "two")
        main = "main"
        given = {("annotated-x7k2m", main): 0, ("pair", "two"): 1, ("labelled-0", main): 2, ("fresh-x7k2m", main): 3}
        here.give(given)
        shares = here.exporter()
        expected = {"ml/vision", "ml/bert", "ml/web", "ml/prepare", "ml/refine"}
        series = shares.wait(lambda series: expected <= set(joules_by_job(series, "cpu0")))
        assert resolver(series, "pods") == resolver(series, "pod-resources") == 1
        nothing = {"job_namespace": "ml", "scheduler": "kubernetes"}
        told = {job: info_of(series, "carbon_job_info", job) for job in ("vision", "refine", "bert")}
        assert told == {
            "vision": [nothing],
            "refine": [nothing],
            "bert": [{**nothing, "scheduler": "kueue", "queue": "night"}],
        }
        assert members(series, "refine") == {("pair", "two")}
        assert members(series, "bert") == {(f"labelled-{n}", part) for n in (0, 1) for part in ("", "main")}
        before = shares.watch(2.6)
        after = shares.watch(2.1)
        assert time.monotonic() - shares.exporter.began < PENDING_SECONDS, "this machine is too slow"
        jobs = {"gpu0": "ml/vision", "gpu1": "ml/refine", "gpu2": "ml/bert", "gpu3": "_unattributed_"}
        for device, job in jobs.items():
            assert Shares.between(before, after, device) == {job: pytest.approx(1.0)}, device

        here.api.tokens = {SECOND}
        (tmp_path / "account" / "token").write_text(SECOND)
        here.api.hang_up()
        here.burn("fresh-x7k2m")
        shares.watch(1.6)
        here.api.put(ml("fresh-x7k2m", labels={"ray.io/cluster": "late"}))
        here.api.put(ml("labelled-0", labels=BERT, annotations={ANNOTATION: "moved"}))
        shares.wait(lambda series: {"ml/late", "ml/moved"} <= set(joules_by_job(series, "cpu0")))
        assert paid(shares, "gpu2") == {"ml/moved": 1.0}, "a board follows the name of its pod"
        last = shares.scrape()
        assert Shares.between(after, last, "gpu3").keys() == {"_unattributed_", "ml/late"}
        assert members(last, "bert") == {("labelled-1", ""), ("labelled-1", "main")}
        assert members(last, "moved") == {("labelled-0", ""), ("labelled-0", "main")}
        of_no_container = {"ml/pair"}
        named = {job for job in known(last) if job.startswith("ml/")}
        assert named == expected | of_no_container | {"ml/late", "ml/moved"}
        strangers = {"liar", *(f"pod-{uid_of(f'ml/{name}')[:8]}" for name in ("fresh-x7k2m", "pair", "labelled-0"))}
        assert not strangers & known(last)
        assert here.api.refused_tokens == []
        assert len(here.api.lists) == 1


@needs_root
@pytest.mark.usefixtures("boards_turn")
def test_where_pods_may_not_be_read_the_kubelet_alone_tells_of_them(tmp_path: Path) -> None:
    with cluster(tmp_path, ml("train-x7k2m"), boards=2) as here:
        here.api.answers += [refusal(403)] * 100
        (program,) = here.burn("train-x7k2m")
        here.fake.boards[0].processes([Process(program.pid, sm=80)])
        here.give({("train-x7k2m", "main"): 0})
        shares = here.exporter()
        first = shares.wait(lambda series: resolver(series, "pod-resources") == 1)
        assert resolver(first, "pods") == 0
        assert "ClusterRole" in shares.exporter.wait_for_log("does not let the service account read pods")
        shares.wait(lambda series: "ml/train" in joules_by_job(series, "cpu0"))
        assert paid(shares, "gpu0") == {"ml/train": 1.0}
        last = shares.scrape()
        assert members(last, "train") == {("train-x7k2m", "")}
        assert not {"liar", f"pod-{uid_of('ml/train-x7k2m')[:8]}"} & known(last)
