"""Many jobs: ten thousand that come and go leave nothing behind, and several pods of one job are one job."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import NODE, TOKEN, ApiServer, container_id, make_pod, uid_of
from support.bmc import make_certificate
from support.exporter import Exporter
from support.groups import own_groups
from support.other_user import needs_root
from support.pods import BURN, start
from support.powercap import PowercapTree
from support.prometheus import Prometheus, prometheus
from support.stage import Cluster, Stage
from support.tools import need

from carbon_exporter.carbon.grid import locate_grid
from carbon_exporter.carbon.static import StaticProvider
from carbon_exporter.config import Settings
from carbon_exporter.energy.slots import newest
from carbon_exporter.jobs import places
from carbon_exporter.jobs.book import REMEMBERED_PER_PUBLISHED
from carbon_exporter.jobs.namer import Directories, Namer
from carbon_exporter.jobs.workload import Owner, Pod
from carbon_exporter.publish.prometheus import Renderer
from carbon_exporter.sensors.registry import SENSORS, discover
from carbon_exporter.service.keeper import Keeper
from carbon_exporter.service.pipeline import Pipeline

METERS = tuple(entry for entry in SENSORS if entry.name == "rapl")
PODS, MARKED, SLURM = 25, 15, 10
"""New ones at each tick, in the place of those before."""
TICKS = 200
MOST_JOBS = 32


class Town:
    """A machine on which nothing lives longer than an interval."""

    def __init__(self, root: Path) -> None:
        self.stage = Stage(root)
        self.tree = PowercapTree(self.stage.sysfs)
        self.tree.add("intel-rapl:0", "package-0", constraints={"constraint_0_power_limit_uw": 200_000_000})
        self.cluster = Cluster()
        self.seen = 0
        self._groups: list[str] = []
        self._pids: list[int] = []
        self._joules = 0

    def pipeline(self, keeper: Keeper) -> Pipeline:
        sensors, findings = discover(self.stage.host, METERS)
        return Pipeline(
            replace(Settings(), jobs_max=MOST_JOBS),
            host=self.stage.host,
            grid=locate_grid("FR", StaticProvider("lifecycle"), 1.0, {}),
            keeper=keeper,
            sensors=sensors,
            findings=findings,
            namer=Namer(directories=Directories(pods=self.cluster)),
        )

    def turn(self, number: int) -> None:
        """All go, and others come."""
        for path in self._groups:
            self.stage.remove(path)
        self.stage.proc.end(*self._pids)
        self._groups, self._pids = [], []
        self.cluster.pods = tuple(self._pod(f"{number}-{one}") for one in range(PODS))
        for one in range(MARKED):
            self._process(number * 100 + one, {"CARBON_JOB": f"marked-{number}-{one}"}, "/")
        for one in range(SLURM):
            job, pid = f"{number}{one:02}", number * 100 + 50 + one
            environment = {"SLURM_JOB_ID": job, "SLURM_JOB_NAME": f"sweep-{job}", "SLURM_JOB_USER": f"user-{job}"}
            path = f"/system.slice/slurmstepd.scope/job_{job}"
            self._process(pid, environment, path)
            self._group(path, pid)
        self.seen += PODS + MARKED + SLURM
        self._joules += 500_000_000
        self.tree.set_energy("intel-rapl:0", self._joules)
        self.stage.turn(5.0, busy=9.0)

    def _pod(self, name: str) -> Pod:
        uid = uid_of(name)
        self._group(f"/kubepods/burstable/pod{uid}")
        return Pod("team", name, uid, owners=(Owner("Job", f"job-of-{name}", controller=True),))

    def _process(self, pid: int, environment: dict[str, str], group: str) -> None:
        self.stage.process(pid, 0.1, group=group, pages=10)
        self.stage.environment(pid, environment)
        self._pids.append(pid)

    def _group(self, path: str, *pids: int) -> None:
        folder = self.stage.groups / path[1:]
        folder.mkdir(parents=True)
        (folder / "cpu.stat").write_text("usage_usec 100000\n")
        if pids:
            (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        self._groups.append(path)


@pytest.mark.soak
def test_ten_thousand_jobs_that_come_and_go_leave_nothing_behind(tmp_path: Path) -> None:
    town, renderer = Town(tmp_path), Renderer()
    renderer.note_demand("openmetrics", compressed=True)
    blocks, sizes = [], []
    with closing(Keeper(tmp_path / "state")) as keeper, closing(town.pipeline(keeper)) as pipeline:
        for number in range(1, TICKS + 1):
            town.turn(number)
            snapshot = pipeline.tick()
            renderer.render(snapshot)
            if number % (TICKS // 4) == 0:
                places.place_of.cache_clear()
                places._part.cache_clear()
                gc.collect()
                blocks.append(sys.getallocatedblocks())
                sizes.append(len(newest((tmp_path / "state/totals.json").read_bytes()).body))
    assert town.seen == 10_000
    assert snapshot.jobs_folded > 10_000 / 4, "most were beyond the limit"
    assert len({key.job for key in snapshot.job_totals}) <= 2 * MOST_JOBS
    assert blocks[3] == pytest.approx(blocks[2], rel=0.002), "less than one object for five jobs"
    assert sizes[3] == pytest.approx(sizes[2], rel=0.02)
    assert sizes[3] < 200 * MOST_JOBS * REMEMBERED_PER_PUBLISHED


def test_paths_are_remembered_to_a_limit() -> None:
    for number in range(places.REMEMBERED + 100):
        places.place_of(f"/kubepods/burstable/pod{uid_of(str(number))}")
    assert places.place_of.cache_info().currsize == places._part.cache_info().currsize == places.REMEMBERED
    places.place_of.cache_clear()
    places._part.cache_clear()


IN_POD = 'mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io && ln -s "$0" "$1" && shift && exec "$@"'
"""In a mount namespace of its own: /var/run, which leads to /run, with nothing in it but the account's secrets."""
ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
QUEUED = {"kueue.x-k8s.io/queue-name": "night"}
WORKLOAD = {"kueue.x-k8s.io/workload": "job-train-4f2a1"}
SECONDS = 4
RATE = {"train-0": 0.1, "train-1": 0.1, "train-x7k2m": 0.05}


@dataclass(frozen=True)
class Seen:
    """A Prometheus that scrapes an exporter on a node with three pods."""

    server: Prometheus
    used: dict[str, float]
    """CPU seconds by namespace, by the kernel's word."""

    def values(self, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Of an instant query, by these labels; no two series may agree in them."""
        found = self.server.query(expression)
        values = {tuple(one["metric"].get(label, "") for label in labels): float(one["value"][1]) for one in found}
        assert len(values) == len(found)
        return values


def labelled(name: str, namespace: str, **more: Any) -> Any:
    labels = {"batch.kubernetes.io/job-name": "train", **more.pop("labels", {})}
    return make_pod(name, namespace, labels=labels, **more)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    place = tmp_path_factory.mktemp("two-of-one")
    account = place / "account"
    account.mkdir()
    certificate = make_certificate(place)
    (account / "ca.crt").write_bytes(certificate.certificate.read_bytes())
    (account / "token").write_text(TOKEN)
    pods = [
        labelled("train-0", "team-a", labels=QUEUED, annotations=WORKLOAD),
        labelled("train-1", "team-a", labels=QUEUED, annotations=WORKLOAD),
        labelled("train-x7k2m", "team-b"),
    ]
    with ExitStack() as stack:
        api = stack.enter_context(ApiServer(certificate))
        groups = stack.enter_context(own_groups())
        paths: dict[str, list[str]] = {"team-a": [], "team-b": []}
        programs = []
        for pod in pods:
            api.put(pod)
            name, namespace, uid = (pod["metadata"][key] for key in ("name", "namespace", "uid"))
            paths[namespace].append(f"kubepods.slice/kubepods-pod{uid.replace('-', '_')}.slice")
            inside = f"{paths[namespace][-1]}/cri-containerd-{container_id(name)}.scope"
            groups.make(inside)
            programs.append(stack.enter_context(start(BURN, SECONDS * RATE[name], RATE[name])))
            groups.move(programs[-1].pid, inside)
        environ = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(api.port),
            "NODE_NAME": NODE,
        }
        flags = ("--sample.interval=500ms", f"--storage.path={place / 'state'}", "--containers.sockets=")
        alone = f"--kubernetes.pod-resources-socket={place / 'none.sock'}"
        prefix = (need("unshare"), "--mount", "sh", "-c", IN_POD, str(account), ACCOUNT)
        exporter = stack.enter_context(Exporter(*flags, alone, environ=environ, prefix=prefix))
        server = stack.enter_context(prometheus(place, exporter.port))
        until_named(exporter)
        assert {program.says() for program in programs} == {"ready"}
        before = {namespace: sum(map(groups.used, mine)) for namespace, mine in paths.items()}
        for program in programs:
            program.go_on()
        assert {program.says() for program in programs} == {"done"}
        exporter.wait_for_samples(2)
        until_scraped(server)
        used = {namespace: sum(map(groups.used, mine)) - before[namespace] for namespace, mine in paths.items()}
        yield Seen(server, used)


def until_named(exporter: Exporter) -> None:
    """Until the exporter calls the pods by their names."""
    until = time.monotonic() + 30
    while sum(name == "carbon_job_member_info" for name, _ in exporter.series()) < len(RATE):
        assert time.monotonic() < until, exporter.text
        time.sleep(0.1)


def until_scraped(server: Prometheus) -> None:
    """Until the server has scraped twice from now on."""
    began = time.time()
    while float(server.query("timestamp(up)")[0]["value"][1]) < began + 1:
        assert time.time() < began + 30
        time.sleep(0.1)


@needs_root
def test_two_pods_of_one_job_are_one_job_with_two_members(seen: Seen) -> None:
    by = ("job_namespace", "job_name")
    ids = (*by, "job_id", "queue", "scheduler")
    assert seen.values('carbon_job_info{job_namespace=~"team-."}', *ids) == {
        ("team-a", "train", "job-train-4f2a1", "night", "kueue"): 1.0,
        ("team-b", "train", "", "", "kubernetes"): 1.0,
    }
    members = seen.values('carbon_job_member_info{job_namespace=~"team-."}', *by, "job_pod", "job_container")
    pods = (("team-a", "train-0"), ("team-a", "train-1"), ("team-b", "train-x7k2m"))
    assert members.keys() == {
        (namespace, "train", pod, container) for namespace, pod in pods for container in ("", "main")
    }, "a pod's own use, and its container's"


@needs_root
def test_what_a_job_uses_joins_with_what_is_known_of_it(seen: Seen) -> None:
    power, joined = 'carbon_job_power_watts{job_namespace=~"team-."}', "on (instance, job_namespace, job_name)"
    found = seen.values(
        f"{power} * {joined} group_left (job_id) carbon_job_info", "job_namespace", "job_name", "device", "job_id"
    )
    plain = seen.values(power, "job_namespace", "job_name", "device")
    ids = {"team-a": "job-train-4f2a1", "team-b": ""}
    assert found == {(*key, ids[key[0]]): watts for key, watts in plain.items()}
    assert len(plain) == 4, "two jobs on two devices"


@needs_root
def test_jobs_of_one_name_in_two_namespaces_stay_apart(seen: Seen) -> None:
    energy = seen.values('carbon_job_energy_kwh_total{job_name="train",device="cpu0"}', "job_namespace")
    ratio = energy[("team-a",)] / energy[("team-b",)]
    assert ratio == pytest.approx(seen.used["team-a"] / seen.used["team-b"], rel=0.1)
    assert ratio == pytest.approx(4.0, rel=0.15)
