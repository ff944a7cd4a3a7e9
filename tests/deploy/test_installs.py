"""The wheel and the source archive on every Python that is here, by pip, uv and pipx (`make soak`)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.container_image import in_debian
from support.other_user import needs_root

import carbon_exporter

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
EXTRAS = "[auth,kubernetes,otlp]"
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))


def candidates(version: str) -> Iterator[Path]:
    """Where an interpreter may be: beside the one that runs, in PATH, at pyenv's."""
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        yield Path(sys.executable)
    found = shutil.which(f"python{version}")
    if found is not None:
        yield Path(found)
    yield from sorted(PYENV.glob(f"versions/{version}.*/bin/python{version}"))


def interpreter(version: str) -> Path:
    """One that works and can make a venv; skips where there is none."""
    check = f"import ensurepip, sys; sys.exit(sys.version_info[:2] != {tuple(map(int, version.split('.')))})"
    for found in candidates(version):
        if subprocess.run([found, "-c", check], capture_output=True, check=False).returncode == 0:
            return found
    pytest.skip(f"no Python {version} here")


def done(command: list[str | Path], place: Path) -> str:
    """What a command prints; it must succeed, and knows nothing of this venv and this tree."""
    environ = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    environ |= {"PIPX_HOME": str(place / "pipx"), "UV_CACHE_DIR": str(place / "uv")}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place, env=environ, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def made(python: Path, place: Path) -> Path:
    """The programs of a new venv."""
    done([python, "-m", "venv", place / "venv"], place)
    return place / "venv/bin"


def assert_it_runs(venv: Path, place: Path) -> None:
    assert done([venv / "carbon-exporter", "--version"], place).split()[1] == carbon_exporter.__version__
    assert "model  " in done([venv / "carbon-exporter", "sensors"], place)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where uv and pipx are, as the index has them today."""
    place = tmp_path_factory.mktemp("tools")
    done([sys.executable, "-m", "venv", place], place)
    done([place / "bin/pip", "install", "--quiet", "uv", "pipx"], place)
    return place / "bin"


@pytest.mark.parametrize("form", ["wheel", "archive"])
@pytest.mark.parametrize("version", PYTHONS)
def test_pip_installs_it_and_it_runs(version: str, form: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    venv = made(interpreter(version), tmp_path)
    done([venv / "pip", "install", "--quiet", f"{request.getfixturevalue(form)}{EXTRAS}"], tmp_path)
    assert_it_runs(venv, tmp_path)


@pytest.mark.parametrize("form", ["wheel", "archive"])
@pytest.mark.parametrize("version", PYTHONS)
def test_uv_installs_it_and_it_runs(
    version: str, form: str, tools: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    venv, file = made(interpreter(version), tmp_path), request.getfixturevalue(form)
    done([tools / "uv", "pip", "install", "--quiet", f"--python={venv}/python", f"{file}{EXTRAS}"], tmp_path)
    assert_it_runs(venv, tmp_path)


@needs_root
@pytest.mark.parametrize("form", ["wheel", "archive"])
def test_it_installs_and_runs_on_debians_newest_python(form: str, dist: Path, wheel: Path, archive: Path) -> None:
    file = {"wheel": wheel, "archive": archive}[form].name
    script = f"""set -e
    python3 --version; python3 -m venv /pip; python3 -m venv /uv; cp -r /dist here
    /pip/bin/pip install --quiet './here/{file}{EXTRAS}'; /uv/bin/pip install --quiet uv
    /uv/bin/uv pip install --quiet --python=/uv/bin/python './here/{file}{EXTRAS}'
    for place in pip uv; do /$place/bin/carbon-exporter --version; /$place/bin/carbon-exporter sensors; done"""
    told = in_debian(script, f"--volume={dist}:/dist:ro", suite="sid")
    assert told.startswith("Python 3.")
    _, by_pip, by_uv = told.split(f"carbon-exporter {carbon_exporter.__version__}\n")
    assert "model  " in by_pip
    assert "model  " in by_uv


def test_pipx_runs_it_without_an_installation(tools: Path, wheel: Path, tmp_path: Path) -> None:
    told = done([tools / "pipx", "run", "--spec", wheel, "carbon-exporter", "--version"], tmp_path)
    assert told.split()[1] == carbon_exporter.__version__
