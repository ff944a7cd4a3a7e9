"""The wheel and the source archive, the locks and the notice: what is handed out is what stands in the tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from support import notice
from support.requirements import asked, locked

import carbon_exporter

ROOT = Path(carbon_exporter.__file__).parents[1]
LOCKS = sorted(ROOT.glob("requirements/*.txt"))


def test_an_index_would_take_both(dist: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, dist.iterdir())]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("PASSED") == 2


def test_the_wheel_holds_every_file_of_the_package_and_its_licences(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    package = {name for name in names if name.startswith("carbon_exporter/")}
    files = (path for path in (ROOT / "carbon_exporter").rglob("*") if path.is_file())
    assert package == {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    licences = {name.partition(".dist-info/licenses/")[2] for name in names} - {""}
    assert licences == {"LICENSE", "NOTICE", "carbon_exporter/data/PROVENANCE.md"}


def test_the_source_archive_has_what_a_build_needs_and_no_tests(archive: Path) -> None:
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "NOTICE"} <= names
    assert not {name for name in names if name.startswith("tests")}


def test_what_is_in_the_wheel_runs_without_the_tree(wheel: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(wheel, tmp_path, "zip")
    command = [sys.executable, "-m", "carbon_exporter", "sensors"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "model  " in ran.stdout


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_locked_release_has_hashes_and_no_lock_names_a_place(lock: Path) -> None:
    text = lock.read_text()
    blocks = re.findall(r"^[\w.-]+==.+\n(?:    .+\n)*", text, re.MULTILINE)
    assert len(blocks) == len(locked(lock.stem)) > 0
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"://|^-|@ ", text, re.MULTILINE)


@pytest.mark.parametrize(("lock", "extras"), [("image", ("auth", "kubernetes", "otlp")), ("test", ("test",))])
def test_a_lock_holds_what_the_package_asks_for(lock: str, extras: tuple[str, ...]) -> None:
    held = {package.name: package.version for package in locked(lock)}
    wanted = asked(*extras)
    assert len(wanted) > len(extras)
    for one in wanted:
        version = held.get(canonicalize_name(one.name))
        assert version is not None, f"{one}: renew the locks (.ci/lock)"
        assert one.specifier.contains(version), f"{one}: renew the locks (.ci/lock)"


def test_the_notice_is_what_the_lock_the_packages_and_the_tables_say() -> None:
    assert (ROOT / "NOTICE").read_text() == notice.as_text()


def test_only_licences_that_allow_to_hand_the_image_on_are_in_it() -> None:
    allowed = {"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "PSF-2.0", "MPL-2.0"}
    for package in locked("image"):
        assert set(notice.licence_of(package).split(" AND ")) <= allowed, package
