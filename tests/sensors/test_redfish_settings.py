"""The settings of the management controller: what is accepted, alone and together, and that no password is shown."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.config import Settings, load
from carbon_exporter.config.accepted import controller_url
from carbon_exporter.config.loading import shown
from carbon_exporter.errors import ConfigError
from carbon_exporter.sensors.base import Bmc
from carbon_exporter.sensors.redfish import bmc_of

URL = "redfish.url"
ACCOUNT = {"redfish.username": "watcher", "redfish.password-file": "/run/secrets/bmc"}


def from_file(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "settings.yml"
    file.write_text(text)
    return load({}, {}, file)


def test_without_a_url_there_is_no_controller_whatever_else_is_set() -> None:
    assert bmc_of(load({}, {}, None)) is None
    assert bmc_of(load({"redfish.username": "watcher", "redfish.ca-file": "/ca", URL: ""}, {}, None)) is None


def test_flags_environment_and_file_name_a_controller(tmp_path: Path) -> None:
    wanted = Bmc("https://bmc", "watcher", Path("/run/secrets/bmc"), verify=False, authentication="basic")
    text = (
        "redfish: {url: 'https://bmc', username: watcher, password-file: /run/secrets/bmc, "
        "insecure-skip-verify: true, authentication: basic}"
    )
    assert bmc_of(from_file(tmp_path, text)) == wanted
    flags = {URL: "https://bmc", **ACCOUNT, "redfish.insecure-skip-verify": "true", "redfish.authentication": "basic"}
    assert bmc_of(load(flags, {}, None)) == wanted
    variables = {f"CARBON_EXPORTER_{key.upper().replace('.', '_').replace('-', '_')}": v for key, v in flags.items()}
    assert bmc_of(load({}, variables, None)) == wanted


def test_certificates_are_checked_unless_told_otherwise() -> None:
    found = bmc_of(load({URL: "https://[fd00::1]:8443/", **ACCOUNT, "redfish.ca-file": "/etc/bmc.pem"}, {}, None))
    assert found is not None
    assert (found.verify, found.ca_file, found.authentication) == (True, Path("/etc/bmc.pem"), "session")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://bmc",
            "https://",
            "bmc",
            "https://bmc/redfish/v1",
            "https://bmc:99999",
            "https://bmc?x=1",
            "https://b m",
        ),
        *("ftp://localhost", "https://bmc#x", "https://bmc\n", "http://localhost.example", "https://[fd00::1"),
    ],
)
def test_a_url_that_is_no_controller_s_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"command line: --redfish\.url: .* accepted: https://HOST") as caught:
        load({URL: url}, {}, None)
    assert caught.value.value == url


@pytest.mark.parametrize("url", ["http://localhost:8000", "http://127.0.0.1", "http://[::1]:80/", "https://10.0.0.9"])
def test_plain_http_is_for_this_machine_only(url: str) -> None:
    assert controller_url(url) == url


@pytest.mark.parametrize(
    "url", ["https://admin:hunter2@bmc", "admin:hunter2@bmc", "https://a:hun/ter2@x@bmc/", "x\n:hunter2@"]
)
def test_a_password_in_the_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({URL: url}, {}, None)
    for secret in ("hunter2", "hun/", "ter2", "admin"):
        assert secret not in str(caught.value) + repr(caught.value) + repr(caught.value.__dict__)
    assert caught.value.__cause__ is None


def test_a_password_as_a_setting_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"redfish\.password-file") as caught:
        from_file(tmp_path, "redfish: {password: hunter2}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given_flags", "key", "needed"),
    [
        ({URL: "https://bmc", "redfish.username": "watcher"}, "--redfish.username", "redfish.password-file"),
        ({URL: "https://bmc", "redfish.password-file": "/p"}, "--redfish.password-file", "redfish.username"),
        (
            {URL: "https://bmc", "redfish.ca-file": "/ca", "redfish.insecure-skip-verify": "true"},
            "--redfish.ca-file",
            "redfish.insecure-skip-verify=false",
        ),
        ({URL: "http://localhost", "redfish.ca-file": "/ca"}, "--redfish.ca-file", "https://"),
    ],
)
def test_what_goes_only_together_is_said(given_flags: dict[str, str], key: str, needed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(given_flags, {}, None)
    assert (caught.value.where, caught.value.key) == ("command line", key)
    assert needed in caught.value.accepted
    assert "only together with" in caught.value.remedy


def test_the_file_that_holds_half_of_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"settings\.yml: redfish\.username: 'watcher'"):
        from_file(tmp_path, "redfish: {url: 'https://bmc', username: watcher}")


@pytest.mark.parametrize("text", ["redfish.insecure-skip-verify: 1", "redfish.insecure-skip-verify: maybe"])
def test_a_switch_is_true_or_false(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="true or false"):
        from_file(tmp_path, text)


@given(st.text(max_size=40))
def test_any_text_is_a_url_without_userinfo_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert "@" not in controller_url(text)


@given(st.text(max_size=20), st.text(max_size=20))
def test_what_stands_before_an_at_sign_is_never_shown(before: str, after: str) -> None:
    told = shown(URL, f"https://{before}@{after}")
    assert str(told).endswith(f"(not shown)@{after.rpartition('@')[2]}")
