"""What a user gets for settings that cannot be: file, key, value and what is accepted, and exit code 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter import config
from carbon_exporter.errors import ConfigError

SETTINGS = sorted(config.settings_table().values(), key=lambda setting: setting.key)


def cli(*arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command's result; it must end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "carbon_exporter", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        env={**os.environ, **(environ or {})},
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--no.such-flag=1"], ["unrecognized arguments: --no.such-flag=1"]),
        (["--site.pue=-1"], ["command line: --site.pue: '-1' is not accepted", "a number from 1 to 10"]),
        (["--site.pue=nan"], ["--site.pue", "a number from 1 to 10"]),
        (["--sample.interval=5"], ["--sample.interval", "a duration from 100ms to 5m"]),
        (["--sample.interval=1ms"], ["--sample.interval", "a duration from 100ms to 5m"]),
        (["--web.listen-address=12011"], ["--web.listen-address", "HOST:PORT, :PORT or unix:/PATH"]),
        (["--web.listen-address=:99999"], ["--web.listen-address", "HOST:PORT"]),
        (["--path.procfs=proc"], ["--path.procfs", "an absolute path"]),
        (["--attribution.idle=mine"], ["--attribution.idle", "separate, shared or reserved"]),
        (["--log.level=loud"], ["--log.level", "debug, info, warning or error"]),
        (["--grid.region=Frnace"], ["grid.region", "FR"]),
        (["--grid.provider=oracle"], ["grid.provider: 'oracle' is not accepted", "static"]),
        (["--grid.region=UK"], ["grid.region", "GB"]),
        (["--grid.region=JP", "--grid.scope=direct"], ["JP", "lifecycle"]),
        (["--config.file=/nowhere.yml"], ["--config.file", "/nowhere.yml", "No such file"]),
        (["--replay.file=/nowhere.jsonl"], ["/nowhere.jsonl"]),
    ],
)
def test_a_flag_that_cannot_be_is_named_with_what_is_accepted(arguments: list[str], says: list[str]) -> None:
    result = cli("serve", *arguments)
    assert result.returncode == 2
    for part in says:
        assert part in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("site: {peu: 1.2}", ["site.peu", "1.2", "nearest: site.pue"]),
        ("site: {pue: [1.2]}", ["site.pue", "a number from 1 to 10"]),
        ("site.pue: true", ["site.pue", "True", "a number from 1 to 10"]),
        ("sample: {interval: soon}", ["sample.interval", "soon", "a duration"]),
        ("just a sentence", ["(whole file)", "a mapping of settings"]),
        ("site: {pue: 1.2", ["(whole file)", "YAML"]),
        ("colour: blue", ["colour", "blue", "no such setting"]),
    ],
)
def test_a_file_that_cannot_be_is_named_with_its_key(tmp_path: Path, text: str, says: list[str]) -> None:
    file = tmp_path / "settings.yml"
    file.write_text(text)
    result = cli("serve", f"--config.file={file}")
    assert result.returncode == 2
    for part in [str(file), *says]:
        assert part in result.stderr


def test_a_variable_that_cannot_be_is_named() -> None:
    result = cli("serve", environ={"CARBON_EXPORTER_SITE_PUE": "0.5"})
    assert result.returncode == 2
    assert "environment: CARBON_EXPORTER_SITE_PUE: '0.5' is not accepted" in result.stderr


def test_an_unknown_zone_in_carbon_region_is_named_with_its_variable() -> None:
    result = cli("serve", environ={"CARBON_REGION": "Atlantis"})
    assert result.returncode == 2
    assert "CARBON_REGION" in result.stderr


def test_a_port_in_use_says_how_to_find_the_other(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = cli("serve", f"--web.listen-address=127.0.0.1:{port}", f"--storage.path={tmp_path}")
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in result.stderr
    assert f"ss -ltnp 'sport = :{port}'" in result.stderr
    assert "--web.listen-address=HOST:PORT" in result.stderr


def test_help_reads_like_a_manual() -> None:
    top, serve = cli("--help"), cli("serve", "--help")
    assert top.returncode == serve.returncode == 0
    assert "exit codes:" in top.stdout
    for part in ("endpoints:", "signals:", "examples:", "SIGHUP"):
        assert part in serve.stdout
    for setting in SETTINGS:
        assert setting.flag in serve.stdout
        assert f"[{setting.variable}]" in " ".join(serve.stdout.split())


def test_flags_win_over_variables_and_these_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yml"
    file.write_text("site: {pue: 1.1}\nsample: {interval: 2s}\ngrid.region: SE\n")
    environ = {"CARBON_EXPORTER_SITE_PUE": "1.2", "CARBON_EXPORTER_SAMPLE_INTERVAL": "3s"}
    settings = config.load({"sample.interval": "4s"}, environ, file)
    assert (settings.region, settings.pue, settings.interval) == ("SE", 1.2, 4.0)
    assert config.unknown_variables({**environ, "CARBON_EXPORTER_SERVICE_HOST": "10.0.0.1"}) == [
        "CARBON_EXPORTER_SERVICE_HOST"
    ]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: str(setting.key))
@given(text=st.text(max_size=40))
def test_no_text_makes_a_setting_fail_otherwise(setting: config.Setting, text: str) -> None:
    try:
        config.load({setting.key: text}, {}, None)
    except ConfigError as error:
        assert error.key == setting.flag
        assert error.accepted == setting.accepted
