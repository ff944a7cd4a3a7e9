"""Files in YAML: what cannot be read is an error that names the file and shows nothing of it, whoever wants it."""

from __future__ import annotations

from pathlib import Path

import pytest

from carbon_exporter.cli import main
from carbon_exporter.config import load
from carbon_exporter.config.yaml_file import read_yaml
from carbon_exporter.errors import ConfigError


def read(directory: Path, text: str) -> object:
    file = directory / "file.yml"
    file.write_text(text)
    return read_yaml(file, "command line", "--config.file")


@pytest.mark.parametrize(
    "text",
    [
        "since: 2024-99-99",
        "since: !!timestamp hunter2",
        "is: !!bool hunter2",
        "count: !!int hunter2",
        "count: !!int ''",
        f"count: {'9' * 5000}",
        "hunter2: [",
        "word: hunter2\0",
        "[" * 500,
        "[hunter2]: 1",
        "{hunter2: 1}: 1",
        "--- 1\n--- hunter2",
    ],
)
def test_what_cannot_be_read_is_an_error_that_shows_nothing_of_it(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert (caught.value.where, caught.value.key) == (str(tmp_path / "file.yml"), "(whole file)")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["site:\n  pue: 1\n  pue: 2", "site: {pue: 1}\n\n'site': {}", "7: 1\n\n'7': 2"])
def test_a_key_that_stands_twice_is_refused_with_its_line(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"near line 3.*no key stands twice"):
        read(tmp_path, text)


def test_a_key_may_stand_again_in_another_mapping_and_take_the_place_of_a_merged_one(tmp_path: Path) -> None:
    text = "base: &base {pue: 1, zone: a}\nsite:\n  <<: *base\n  pue: 2"
    assert read(tmp_path, text) == {"base": {"pue": 1, "zone": "a"}, "site": {"pue": 2, "zone": "a"}}


def test_settings_and_budgets_are_read_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file.yml"
    file.write_text("since: 2024-99-99")
    with pytest.raises(ConfigError, match="YAML"):
        load({}, {}, file)
    assert main(["budgets", str(file)]) == 2
    assert str(file) in capsys.readouterr().err
