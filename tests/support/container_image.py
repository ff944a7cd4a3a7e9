"""Builds images as `.ci/image` does, on a base that `.ci/base` makes where no registry can be reached."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from support.container import LIMITS, RUNTIME, podman
from support.tools import need

__all__ = ["BASE", "base", "build", "clone", "in_debian"]

ROOT = Path(__file__).parents[2]
BASE = "localhost/python-base"


def base(suite: str = "bookworm") -> str:
    """A clean Debian with Python and venv: minutes the first time."""
    need("runc")
    name = BASE if suite == "bookworm" else f"{BASE}:{suite}"
    known = [one for image in json.loads(podman("images", "--format=json")) for one in image.get("Names") or ()]
    if not {name, f"{name}:latest"} & set(known):
        need("debootstrap")
        subprocess.run([ROOT / ".ci/base", suite, name], check=True, capture_output=True)
    return name


def in_debian(script: str, *options: str, suite: str = "bookworm") -> str:
    """What a script prints as root of a clean Debian with this machine's network, and the index of its pip."""
    command = [need("podman"), *RUNTIME, "run", "--rm", *LIMITS, *_index_options(), *options, base(suite)]
    ran = subprocess.run([*command, "bash", "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def build(builder: str, image: str, *options: str) -> str:
    """The image, made by buildah or podman of this tree; `options` are the builder's."""
    environ = {**os.environ, "BUILDER": need(builder), "BASE": base(), "IMAGE": image}
    command = [str(ROOT / ".ci/image"), *options]
    built = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
    return image


def clone(place: Path) -> Path:
    """What `git clone` of this tree would give, with what is not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    names = b"\0".join(name for name in listed.stdout.split(b"\0") if name and (ROOT / os.fsdecode(name)).exists())
    packed = subprocess.run(
        ["tar", "--create", "--null", "--files-from=-"], cwd=ROOT, input=names, stdout=subprocess.PIPE, check=True
    )
    place.mkdir()
    subprocess.run(["tar", "--extract"], cwd=place, input=packed.stdout, check=True)
    return place


def _index_options() -> tuple[str, ...]:
    """Options of `podman run` by which pip and uv in a container find the index that this machine's pip has."""
    options = [f"--env={name}" for name in ("PIP_INDEX_URL", "PIP_CERT") if os.environ.get(name)]
    certificates = os.environ.get("PIP_CERT")
    if certificates:
        options += [f"--env=SSL_CERT_FILE={certificates}", f"--volume={certificates}:{certificates}:ro"]
    return tuple(options)
