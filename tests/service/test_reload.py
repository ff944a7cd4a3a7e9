"""The settings file changes while the exporter runs: without a signal, and as editors and a kubelet change files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.exporter import Exporter
from support.waiting import until

from carbon_exporter.config import FileWatch


def pue(exporter: Exporter) -> float | None:
    return next((value for (name, _), value in exporter.series().items() if name == "carbon_pue_ratio"), None)


def test_a_changed_settings_file_is_applied_and_a_bad_one_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "settings.yml"
    file.write_text("site: {pue: 1.1}\n")
    with Exporter("--sample.interval=200ms", f"--config.file={file}", "--storage.path=") as exporter:
        assert pue(exporter) == 1.1
        file.write_text("site: {peu: 2.5}\n")
        told = exporter.wait_for_log("settings not reloaded, the old ones stay in force", 12)
        assert "site.peu" in told
        assert pue(exporter) == 1.1
        file.write_text("site: {pue: 1.5}\n")
        until(lambda: pue(exporter) == 1.5, 12)
        assert sum("not reloaded" in line for line in exporter.log) == 1
        assert sum("settings reloaded" in line for line in exporter.log) == 1


@contextmanager
def watching(file: Path, period: float = 0.02) -> Iterator[list[str]]:
    """What the file was each time that a change was told, and read."""
    told: list[str] = []
    watch = FileWatch(file, period)

    def read() -> None:
        watch.note()
        told.append(file.read_text() if file.exists() else "gone")

    watch.start(read)
    yield told
    watch.close()


def test_a_file_that_another_is_moved_over_and_one_that_goes_and_comes_back_are_changes(tmp_path: Path) -> None:
    file = tmp_path / "settings.yml"
    file.write_text("first")
    with watching(file) as told:
        (tmp_path / "other").write_text("second")
        (tmp_path / "other").replace(file)
        until(lambda: told == ["second"])
        file.unlink()
        until(lambda: told == ["second", "gone"])
        file.write_text("third")
        until(lambda: told == ["second", "gone", "third"])


def test_a_changed_configmap_is_a_change(tmp_path: Path) -> None:
    """As the kubelet writes it: the file is a link through a directory's link, and only the latter is another."""
    for version in ("first", "second"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "config.yml").write_text(version)
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "config.yml").symlink_to("..data/config.yml")
    with watching(tmp_path / "config.yml") as told:
        (tmp_path / "..next").symlink_to("second")
        (tmp_path / "..next").replace(tmp_path / "..data")
        until(lambda: told == ["second"])


def test_a_file_is_not_read_while_somebody_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "settings.yml"
    file.write_text("first")
    with watching(file, 0.5) as told:
        with file.open("w") as written:
            for _ in range(120):
                written.write("more ")
                written.flush()
                time.sleep(0.01)
        until(lambda: told == ["more " * 120])
