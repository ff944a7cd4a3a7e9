"""A newcomer's path: what docs/deploy.md says, word for word, on a clean Debian (`make soak`).

Stand-ins are told apart from words: `systemctl` starts what the unit would start, `docker` is podman with the host's
network, and `./.ci/image` gets its base from here.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.container import LIMITS, RUNTIME, podman
from support.container_image import base, clone, in_debian
from support.other_user import needs_root
from support.tools import need

import carbon_exporter

pytestmark = [pytest.mark.soak, needs_root, pytest.mark.timeout(900)]

PAGE = (Path(carbon_exporter.__file__).parents[1] / "docs/deploy.md").read_text()
PORT = 12011
SYSTEMCTL = """\
systemctl() {
  [ "$1" != enable ] || $(sed -n s/^ExecStart=//p /etc/systemd/system/carbon-exporter.service) >>~/log 2>&1 &
}
"""
DOCKER = """\
#!/bin/sh
command=$1; shift
[ "$command" != run ] || set -- {limits} "$@"
exec podman {runtime} "$command" "$@"
"""


def block(heading: str, word: str) -> str:
    """The commands below a heading that have this word in them."""
    section = PAGE.partition(f"\n{heading}\n")[2].partition("\n##")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    (found,) = (text for text in blocks if word in text)
    return str(found)


def packages() -> list[str]:
    """What the page asks Debian for before it begins."""
    told = re.search(r"on\s+Debian\s+after\s+`apt-get install ([^`]+)`", PAGE)
    assert told is not None
    return told[1].split()


def in_clean_debian(script: str, tree: Path) -> str:
    """What a script prints as root of a Debian that has nothing but Python, in this directory of a clone."""
    begin = "set -e; export DEBIAN_FRONTEND=noninteractive; cp -r /given /root/clone; cd /root/clone\n"
    begin += f"(apt-get update && apt-get install --yes {shlex.join(packages())}) >/dev/null\n"
    return in_debian(begin + script, f"--volume={tree}:/given:ro")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return clone(tmp_path / "clone")


@pytest.fixture
def free_port() -> None:
    with socket.socket() as asked:
        if asked.connect_ex(("127.0.0.1", PORT)) == 0:
            pytest.skip(f"port {PORT}, which the page names, is taken on this machine")


@pytest.mark.usefixtures("free_port")
def test_the_host_is_installed_and_scraped_by_the_words_of_the_page(tree: Path) -> None:
    told = in_clean_debian(SYSTEMCTL + block("## systemd", "systemctl enable"), tree)
    assert "carbon-exporter is healthy" in told
    assert re.search(r'^carbon_device_power_watts\{.*device="cpu0".*\} \d', told, re.MULTILINE)


def test_the_chart_is_rendered_by_the_words_of_the_page(tree: Path) -> None:
    (tree / "values.yaml").write_text(
        "image: {repository: images.example.com/carbon-exporter}\nconfig: {grid.region: FR}\n"
    )
    told = in_clean_debian(block("## Kubernetes", "chart-venv"), tree)
    text = told[told.index("---") :]
    kinds = {found["kind"] for part in text.split("---") if (found := yaml.safe_load(part)) and "kind" in found}
    assert {"DaemonSet", "ConfigMap", "ServiceAccount", "ClusterRole"} <= kinds
    assert 'image: "images.example.com/carbon-exporter:' in told


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a shell in which `docker` is podman; what it made is gone in the end."""
    script = tmp_path / "bin/docker"
    script.parent.mkdir()
    script.write_text(DOCKER.format(limits=shlex.join(LIMITS), runtime=shlex.join(RUNTIME)))
    script.chmod(0o755)
    yield {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}", "BASE": base(), "BUILDER": need("podman")}
    podman("rm", "--force", "--ignore", "carbon")
    podman("volume", "rm", "--force", "carbon-totals")


@pytest.mark.usefixtures("free_port")
def test_the_image_is_built_run_and_scraped_by_the_words_of_the_page(tree: Path, docker: dict[str, str]) -> None:
    need("curl")
    built = block("## Containers", "./.ci/image").splitlines()[-1]
    script = f"set -e\n{built} >&2\n{block('### Docker', 'docker run')}"
    ran = subprocess.run(["bash", "-c", script], cwd=tree, env=docker, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert re.search(r"^carbon_device_power_watts\{.*\} \d", ran.stdout, re.MULTILINE)
