"""What each privilege of the chart gives, and what is told without it: its container with real users, mounts and pids.

Held elsewhere, at the same boundary: the API server (service/test_kubernetes_names.py), a kubelet's socket for another
user than root (jobs/test_kubelet.py), a script that knocks without hostPID (service/test_spans_whose.py).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.chart import manifests
from support.chart_pod import run_pod
from support.exporter import Exporter, Series
from support.kubelet import kubelet, pods
from support.other_user import needs_root, public_directory
from support.powercap import PowercapTree
from support.scripts import process
from support.tools import need
from support.waiting import until

pytestmark = needs_root

QUICK = "--sample.interval=200ms"


@pytest.fixture
def host() -> Iterator[Path]:
    """A node: RAPL that root alone may read, no control groups, and a kubelet whose directory is root's."""
    with public_directory() as place:
        tree = PowercapTree(place / "sys")
        tree.add_socket(0)
        for zone in ("intel-rapl:0", "intel-rapl:0:2"):
            tree.deny(zone)
        for directory in ("sys/bus", "sys/fs/cgroup", "var/lib/kubelet/pod-resources"):
            (place / directory).mkdir(parents=True)
        yield place


def value(series: Series, name: str, **labels: str) -> float:
    (found,) = (v for (n, own), v in series.items() if n == name and labels.items() <= dict(own).items())
    return found


def energy(host: Path, exporter: Exporter) -> float:
    """Kilowatt-hours of the package, after its counter was seen to move by 20 J."""
    tree = PowercapTree(host / "sys")
    exporter.wait_for_samples(1)
    before = energy_now(exporter)
    tree.set_energy("intel-rapl:0", int((tree.directory("intel-rapl:0") / "energy_uj").read_text()) + 20_000_000)
    until(lambda: energy_now(exporter) > before)
    return energy_now(exporter)


def energy_now(exporter: Exporter) -> float:
    return value(exporter.series(), "carbon_device_energy_kwh_total", device="cpu0")


def test_standard_reads_what_is_roots_and_its_totals_survive_an_upgrade(host: Path) -> None:
    socket = host / "var/lib/kubelet/pod-resources/kubelet.sock"
    with kubelet(socket, pods("GPU-1", "train")):
        socket.chmod(0o700)
        with run_pod(manifests({}), host, QUICK, "--kubernetes.pods=off") as exporter:
            first = energy(host, exporter)
            series = exporter.series()
            assert value(series, "carbon_device_info", device="cpu0", sensor="rapl", quality="measured") == 1
            assert value(series, "carbon_resolver_success", resolver="pod-resources") == 1
        with run_pod(manifests({"image": {"tag": "0.2.0"}}), host, QUICK, "--kubernetes.pods=off") as exporter:
            assert energy(host, exporter) > first > 0
    assert not (host / "run").exists()


def test_without_root_the_counter_and_the_directory_are_named_with_the_remedy(host: Path) -> None:
    values = {"mode": "minimal", "features": {"hostSys": True}, "state": {"type": "hostPath"}}
    with run_pod(manifests(values), host, QUICK) as exporter:
        series = exporter.series()
        assert value(series, "carbon_sensor_success", sensor="rapl") == 0
        assert value(series, "carbon_device_info", device="cpu0", sensor="model") == 1
        denied = exporter.wait_for_log("energy_uj")
        assert "uid 0" in denied or "root" in denied
        assert "/var/lib/carbon-exporter" in exporter.text


def test_minimal_has_nothing_of_the_host_and_says_what_it_does_not_see(host: Path) -> None:
    with run_pod(manifests({"mode": "minimal"}), host, QUICK) as exporter:
        series = exporter.series()
        assert value(series, "carbon_device_info", device="cpu0", sensor="model") == 1
        assert "mount the host's /sys read-only at /host/sys" in exporter.wait_for_log("cgroup")
        until((host / ".volumes/state/totals.json").exists)
        told: Any = exporter.status()
        assert "rapl" not in {device.get("sensor") for device in told["devices"]}
    assert not any((host / place).exists() for place in ("run", "var/lib/carbon-exporter"))


@pytest.mark.parametrize(
    ("features", "place", "job"),
    [({}, "run/carbon-exporter", "/mine "), ({"hostPID": False}, "run/carbon-exporter/jobs/ml:train", "ml/train ")],
    ids=["with the host's process ids", "by sockets of jobs without them"],
)
def test_full_hears_scripts_through_the_hosts_directory(
    host: Path, features: dict[str, bool], place: str, job: str
) -> None:
    (host / place).mkdir(parents=True)
    values = {"mode": "full", "features": features}
    with run_pod(manifests(values), host, QUICK, "--kubernetes.pods=off"):
        socket = host / place / "sdk.sock"
        until(socket.exists)
        with process(socket, job="mine") as answer:
            assert answer.startswith(job)


def test_a_mount_of_all_of_sys_would_leave_what_is_below_it_writable(tmp_path: Path) -> None:
    script = """
    mkdir -p "$0/sys/class" "$0/sys/kernel/tracing" "$0/all" "$0/part"
    mount -t tmpfs tmpfs "$0/sys/kernel/tracing"
    mount --rbind "$0/sys" "$0/all" && mount -o remount,bind,ro "$0/all"
    mount --bind "$0/sys/class" "$0/part" && mount -o remount,bind,ro "$0/part"
    for file in all/class/x all/kernel/tracing/x part/x; do
      setpriv --bounding-set=-all --inh-caps=-all touch "$0/$file" 2>/dev/null && echo "$file"
    done; true
    """
    call = [need("unshare"), "--mount", "sh", "-c", script, str(tmp_path)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["all/kernel/tracing/x"]
