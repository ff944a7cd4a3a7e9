"""The image: what its file says, and, with `make soak`, a real one that is built and run here."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.container import Container, podman
from support.container_image import BASE, build
from support.exporter import parse
from support.other_user import needs_root
from support.powercap import PowercapTree
from support.requirements import extras, locked

import carbon_exporter

ROOT = Path(carbon_exporter.__file__).parents[1]
LARGEST_BYTES = 90e6
LONGEST_START_SECONDS = 2.0
PARTS = tuple(f"--volume=/sys/{part}:/host/sys/{part}:ro" for part in ("bus", "class", "devices", "fs/cgroup"))
HOST = ("--volume=/proc:/host/proc:ro", *PARTS, "--pid=host")
MOUNTED = ("--path.procfs=/host/proc", "--path.sysfs=/host/sys")


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as pairs of a word and its arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line]


def last_stage() -> list[tuple[str, str]]:
    lines = instructions()
    return lines[max(number for number, (word, _) in enumerate(lines) if word == "FROM") :]


def test_the_image_runs_as_nobody_and_without_a_shell() -> None:
    stage = dict(last_stage())
    assert stage["USER"] == "65534:65534"
    commands = [
        text.partition("CMD ")[2] if word == "HEALTHCHECK" else text
        for word, text in instructions()
        if word in {"RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK"}
    ]
    assert all(json.loads(command) for command in commands)
    assert json.loads(stage["ENTRYPOINT"]) == ["carbon-exporter"]


def test_the_base_is_pinned_and_the_index_stays_out_of_the_image() -> None:
    assert re.fullmatch(r"BASE=\S+/python:3\.\d+\.\d+-slim-\w+", instructions()[0][1])
    assert {"BASE", "VERSION", "REVISION"} == {text for word, text in last_stage() if word == "ARG"}
    assert not any("PIP" in text for _, text in last_stage())


def test_the_image_has_the_extras_that_the_lock_has() -> None:
    text = (ROOT / "Dockerfile").read_text()
    chosen = set(re.findall(r"carbon-exporter\[([\w,]+)\]", text)[0].split(","))
    assert chosen == set(re.findall(r"--extra=(\w+)", (ROOT / ".ci/lock").read_text())) - {"test"}
    assert chosen == extras() - {"amd", "frameworks", "test", "train"}


def test_the_manual_mounts_of_the_host_what_is_tried_here_and_never_all_of_sys() -> None:
    page = (ROOT / "docs/deploy.md").read_text()
    command = page.partition("docker run --detach")[2].partition("```")[0].replace("\\\n", " ").split()
    volumes = {word for word in command if word.startswith("--volume=")} - {
        "--volume=carbon-totals:/var/lib/carbon-exporter"
    }
    assert volumes == {option for option in HOST if option.startswith("--volume=")}
    assert not re.search(r"/sys:/host/sys", page + (ROOT / "SECURITY.md").read_text())


def test_only_what_the_image_is_built_from_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        name for word, text in instructions() if word == "COPY" and "--from" not in text for name in text.split()[:-1]
    }
    assert lines[1] == "*"
    assert copied <= {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number: int = taken.getsockname()[1]
    return number


@pytest.fixture
def volume() -> Iterator[str]:
    name = f"carbon-exporter-{uuid.uuid4().hex[:8]}"
    yield name
    podman("volume", "rm", "--force", name)


@pytest.mark.soak
@needs_root
@pytest.mark.timeout(900)
@pytest.mark.parametrize("builder", ["buildah", "podman"])
def test_the_built_image_is_small_and_says_what_it_is(builder: str) -> None:
    image = build(builder, f"localhost/carbon-exporter:{builder}", "--no-cache")
    built, base = (json.loads(podman("image", "inspect", name))[0] for name in (image, BASE))
    assert built["Size"] - base["Size"] < LARGEST_BYTES
    assert built["Labels"]["org.opencontainers.image.version"] == carbon_exporter.__version__
    assert not [line for line in built["Config"]["Env"] if line.startswith("PIP_")]
    history = podman("history", "--no-trunc", image)
    assert 'HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["carbon-exporter", "health"]' in history
    assert "PIP_INDEX_URL" not in history


@pytest.mark.soak
@needs_root
def test_the_list_of_components_names_every_locked_package(image: str) -> None:
    assert image
    listed = json.loads((ROOT / "dist/carbon-exporter.cdx.json").read_text())
    names = {component["name"].lower().replace("_", "-"): component["version"] for component in listed["components"]}
    assert {package.name: package.version for package in locked("image")}.items() <= names.items()


@pytest.mark.soak
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_locked_package_has_a_wheel_for_both_architectures(machine: str, tmp_path: Path) -> None:
    python = re.findall(r"python:(3\.\d+)", instructions()[0][1])[0]
    platforms = [f"--platform={tag}_{machine}" for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28")]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ]
    asked = [f"--python-version={python}", f"--dest={tmp_path}", f"--requirement={ROOT}/requirements/image.txt"]
    done = subprocess.run([*command, *platforms, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.whl"))) == len(locked("image"))


@pytest.mark.soak
@needs_root
def test_it_is_ready_two_seconds_after_the_runtime_was_asked(image: str, port: int) -> None:
    seconds = []
    for _ in range(5):  # the best of some: the machine may be busy, the image is the same
        with Container(port, "--storage.path=") as container:
            seconds.append(container.seconds_to_ready)
        if seconds[-1] < LONGEST_START_SECONDS:
            return
    raise AssertionError(f"{image}: {seconds}")


@pytest.mark.soak
@needs_root
def test_it_measures_this_machine_as_nobody_on_a_read_only_root(image: str, port: int, volume: str) -> None:
    assert image
    state = (f"--volume={volume}:/var/lib/carbon-exporter",)
    with Container(port, *MOUNTED, options=(*HOST, *state)) as container:
        process = container.process()
        assert set(process["Uid"].split()) == {"65534"}
        assert {int(process[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert process["NoNewPrivs"] == "1"
        assert "Read-only file system" in container.run("python3", "-c", "open('/x', 'w')").stderr
        assert container.run("carbon-exporter", "health").returncode == 0
        series = parse(container.get("/metrics"))
        assert any(name == "carbon_device_energy_kwh_total" for name, _ in series)
        assert container.stop() == 0
    place = Path(json.loads(podman("volume", "inspect", volume))[0]["Mountpoint"])
    assert (place / "totals.json").stat().st_uid == 65534


@pytest.mark.soak
@needs_root
@pytest.mark.parametrize(("user", "sensor"), [("0:65534", "rapl"), ("65534:65534", "model")])
def test_only_uid_0_reads_the_energy_counters_and_needs_no_capability_for_it(
    *, image: str, port: int, volume: str, tmp_path: Path, user: str, sensor: str
) -> None:
    assert image
    PowercapTree(tmp_path / "sys").add("intel-rapl:0", "package-0")
    for counter in (tmp_path / "sys").rglob("energy_uj"):
        counter.chmod(0o400)
    mounts = (f"--volume={tmp_path}/sys:/host/sys:ro", f"--volume={volume}:/var/lib/carbon-exporter")
    with Container(port, "--path.sysfs=/host/sys", options=(*mounts, f"--user={user}")) as container:
        found = parse(container.get("/metrics"))
        infos = [dict(labels) for name, labels in found if name == "carbon_device_info"]
        assert {info["sensor"] for info in infos if info["kind"] == "cpu"} == {sensor}
        assert int(container.process()["CapEff"], 16) == 0
        assert ("not allowed" in container.log()) == (sensor == "model")
        assert container.run("test", "-s", "/var/lib/carbon-exporter/totals.json").returncode == 0
