"""Where a node is said to be: settings first, then the environment, then a guess that says so, then nowhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_exporter.carbon import static, tables
from carbon_exporter.carbon.base import Location
from carbon_exporter.carbon.region import locate
from carbon_exporter.errors import RegionUnknown

NOWHERE = Path("/nonexistent")
WAYS_TO_SET = ("--grid.region=FR", "grid: {region: FR}", "CARBON_REGION=FR")


def etc_tree(root: Path, timezone: str = "", localtime: str = "") -> Path:
    if timezone:
        (root / "timezone").write_text(timezone, encoding="utf-8")
    if localtime:
        (root / "localtime").symlink_to(localtime)
    return root


def test_a_setting_wins_over_everything_else(tmp_path: Path) -> None:
    etc = etc_tree(tmp_path, "Europe/Paris\n", "/usr/share/zoneinfo/Europe/Paris")
    environ = {"CARBON_REGION": "SE", "TZ": "Asia/Tokyo"}
    assert locate(" us-ca ", environ, etc) == Location("US-CA", "setting")


def test_the_environment_comes_next(tmp_path: Path) -> None:
    etc = etc_tree(tmp_path, "Europe/Paris\n")
    assert locate("", {"CARBON_REGION": "se", "TZ": "Asia/Tokyo"}, etc) == Location("SE", "environment")


def test_the_world_can_be_chosen_in_any_case_of_letters() -> None:
    assert locate("World", {}, NOWHERE) == Location("world", "setting")
    assert locate("", {"CARBON_REGION": "WORLD"}, NOWHERE) == Location("world", "environment")


def test_a_territory_and_a_part_of_a_country_can_be_chosen() -> None:
    assert locate("je", {}, NOWHERE).zone == "JE"
    assert locate("de-by", {}, NOWHERE).zone == "DE-BY"


def test_an_unknown_setting_is_an_error_that_names_it_and_the_nearest_zones() -> None:
    with pytest.raises(RegionUnknown) as caught:
        locate("Frnace", {"CARBON_REGION": "FR"}, NOWHERE)
    assert caught.value.reason == "grid.region: 'Frnace' is not a known grid zone"
    assert "FR (France)" in caught.value.remedy


def test_an_unknown_zone_in_the_environment_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(RegionUnknown) as caught:
        locate("", {"CARBON_REGION": "UK"}, etc_tree(tmp_path, "Europe/London\n"))
    assert caught.value.reason == "CARBON_REGION: 'UK' is not a known grid zone"
    assert "GB (United Kingdom)" in caught.value.remedy


def test_settings_of_nothing_but_space_are_not_set(tmp_path: Path) -> None:
    assert locate("  ", {"CARBON_REGION": " "}, etc_tree(tmp_path, "Europe/Paris\n")).located_by == "timezone"


@pytest.mark.parametrize(
    "value",
    ["Europe/Paris", ":Europe/Paris", "/usr/share/zoneinfo/Europe/Paris", ":/usr/share/zoneinfo/posix/Europe/Paris"],
)
def test_every_spelling_of_tz_that_names_a_place_is_understood(value: str) -> None:
    assert locate("", {"TZ": value}, NOWHERE).zone == "FR"


def test_a_guess_says_that_it_is_one_from_what_and_how_to_set_the_region(tmp_path: Path) -> None:
    etc = etc_tree(tmp_path, "Europe/Berlin\n", "/usr/share/zoneinfo/Europe/Paris")
    location = locate("", {}, etc)
    assert (location.zone, location.located_by) == ("DE", "timezone")
    assert f"a guess from the time zone Europe/Berlin ({etc / 'timezone'})" in location.note
    assert all(way in location.note for way in WAYS_TO_SET)


@pytest.mark.parametrize("target", ["/usr/share/zoneinfo/Asia/Kolkata", "../usr/share/zoneinfo/Asia/Kolkata"])
def test_the_link_of_localtime_is_read_where_there_is_no_better_hint(tmp_path: Path, target: str) -> None:
    location = locate("", {}, etc_tree(tmp_path, localtime=target))
    assert (location.zone, location.located_by) == ("IN", "timezone")


def test_the_time_zone_of_the_process_wins_over_the_machines(tmp_path: Path) -> None:
    etc = etc_tree(tmp_path, "Europe/Berlin\n", "/usr/share/zoneinfo/Europe/Paris")
    assert locate("", {"TZ": "Europe/Madrid"}, etc).zone == "ES"


def test_a_time_zone_without_a_country_leaves_the_guess_to_the_next_hint(tmp_path: Path) -> None:
    etc = etc_tree(tmp_path, "Etc/UTC\n", "/usr/share/zoneinfo/Europe/Madrid")
    assert locate("", {"TZ": "UTC"}, etc).zone == "ES"


@pytest.mark.parametrize("value", ["UTC", "CET-1CEST", "Etc/GMT+5", "", "Mars/Olympus", ":", "Antarctica/Troll"])
def test_where_nothing_is_known_the_world_is_used_and_said_loudly(value: str) -> None:
    location = locate("", {"TZ": value}, NOWHERE)
    assert (location.zone, location.located_by) == ("world", "nothing")
    assert "priced at the world's average" in location.note
    assert all(way in location.note for way in WAYS_TO_SET)


def test_a_damaged_etc_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "timezone").write_bytes(b"\xff\xfe\x00\n")
    (tmp_path / "localtime").mkdir()
    assert locate("", {}, tmp_path).located_by == "nothing"


def test_nothing_is_ever_asked_over_the_network(tmp_path: Path) -> None:
    events: list[str] = []
    watching = True

    def watch(event: str, _: tuple[object, ...]) -> None:
        if watching and event.startswith("socket."):
            events.append(event)

    sys.addaudithook(watch)
    locate("FR", {}, tmp_path)
    locate("", {"TZ": "Europe/Paris"}, tmp_path)
    locate("", {}, tmp_path)
    watching = False
    assert events == []


@given(name=st.sampled_from(sorted(tables.time_zones())))
def test_every_country_time_zone_leads_to_a_zone_that_can_be_priced_or_to_the_world(name: str) -> None:
    location = locate("", {"TZ": name}, NOWHERE)
    country = tables.time_zones()[name]
    if location.located_by == "timezone":
        assert location.zone == country
        assert static.StaticProvider("lifecycle").latest(country).grams_per_kwh > 0
    else:
        assert location.zone == "world"
        assert not static.is_known(country)


@given(setting=st.sampled_from(["", " ", "fr", "US-CA", "world"]), variable=st.sampled_from(["", "SE", "us-tx"]))
def test_the_order_of_trust_is_setting_environment_guess(setting: str, variable: str) -> None:
    location = locate(setting, {"CARBON_REGION": variable, "TZ": "Asia/Tokyo"}, NOWHERE)
    expected = "setting" if setting.strip() else "environment" if variable else "timezone"
    assert location.located_by == expected
    assert bool(location.note) == (expected == "timezone")
