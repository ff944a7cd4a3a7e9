"""What the static provider answers: own rows, stand-ins, and errors that say how to go on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_exporter.carbon import static, tables
from carbon_exporter.carbon.base import Intensity, Provider, Scope
from carbon_exporter.carbon.static import StaticProvider
from carbon_exporter.errors import IntensityError, RegionUnknown

SCOPES: tuple[Scope, ...] = ("lifecycle", "direct")
scopes = st.sampled_from(SCOPES)
ZONES = sorted({zone for zone, _ in tables.grid()} | set(tables.territories()))
known = st.one_of(st.sampled_from(ZONES), st.sampled_from(["DE-BY", "FR-IDF", "GB-SCT", "IN-MH", "SE-SE3"]))


def answer(scope: Scope, zone: str) -> Intensity | IntensityError:
    try:
        return StaticProvider(scope).latest(zone)
    except IntensityError as error:
        return error


def test_it_is_a_provider_named_static() -> None:
    provider: Provider = StaticProvider("lifecycle")
    assert provider.name == "static"
    assert provider.latest("FR").provider == "static"


def test_a_country_has_its_own_yearly_value_in_each_view() -> None:
    lifecycle = StaticProvider("lifecycle").latest("DE")
    direct = StaticProvider("direct").latest("DE")
    assert (lifecycle.grams_per_kwh, lifecycle.year, lifecycle.quality) == (329.65, 2025, "yearly")
    assert (direct.grams_per_kwh, direct.year, direct.quality) == (291.0, 2024, "yearly")
    assert "Ember" in lifecycle.source
    assert lifecycle.source.endswith("(CC-BY-4.0)")
    assert (lifecycle.basis, lifecycle.at) == ("average", None)


def test_a_subdivision_has_its_own_value_in_the_direct_view() -> None:
    california = StaticProvider("direct").latest("US-CA")
    assert (california.grams_per_kwh, california.quality) == (179.064, "yearly")


def test_a_subdivision_without_a_value_in_this_view_gets_its_countrys_and_says_how_to_get_its_own() -> None:
    california = StaticProvider("lifecycle").latest("us-ca")
    assert (california.zone, california.grams_per_kwh, california.quality) == ("US-CA", 384.4, "proxy")
    assert "US (United States)" in california.note
    assert "set grid.scope: direct for US-CA's own value" in california.note


def test_a_subdivision_that_no_table_has_is_priced_as_its_country_without_a_false_promise() -> None:
    bavaria = StaticProvider("direct").latest("DE-BY")
    assert (bavaria.grams_per_kwh, bavaria.quality) == (291.0, "proxy")
    assert "DE-BY is taken for a part of it" in bavaria.note
    assert "own value" not in bavaria.note


def test_a_territory_gets_its_stand_ins_value_labelled_as_our_judgement() -> None:
    jersey = StaticProvider("direct").latest("JE")
    assert (jersey.zone, jersey.grams_per_kwh, jersey.quality) == ("JE", 36.0, "proxy")
    assert "FR (France)" in jersey.note
    assert "our own judgement" in jersey.note


def test_a_stand_in_without_a_value_in_this_view_leaves_it_to_its_country() -> None:
    norfolk = StaticProvider("lifecycle").latest("NF")
    assert norfolk.grams_per_kwh == tables.grid()["AU", "lifecycle"].grams_per_kwh
    assert StaticProvider("direct").latest("NF").grams_per_kwh == tables.grid()["AU-NSW", "direct"].grams_per_kwh


@pytest.mark.parametrize("zone", ["IN", "IN-MH", "LI", "RU-KAM"])
def test_a_zone_without_a_value_in_this_view_is_an_error_that_names_the_other(zone: str) -> None:
    with pytest.raises(IntensityError) as caught:
        StaticProvider("direct").latest(zone)
    assert not isinstance(caught.value, RegionUnknown)
    assert f"no direct intensity for {zone}" in caught.value.reason
    assert "grid.scope: lifecycle" in caught.value.remedy
    assert StaticProvider("lifecycle").latest(zone).grams_per_kwh > 0


def test_the_world_is_given_only_to_who_asks_for_it() -> None:
    world = StaticProvider("lifecycle").latest(" World ")
    assert (world.zone, world.grams_per_kwh, world.quality) == ("world", 458.49, "world")
    for scope in SCOPES:
        for zone in ZONES:
            said = answer(scope, zone)
            assert (isinstance(said, Intensity) and said.quality == "world") == (zone == "world")


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Frnace", "FR (France)"),
        ("UK", "GB (United Kingdom)"),
        ("Germany", "DE (Germany)"),
        ("California", "US-CA (California)"),
        ("reunion", "RE (Réunion)"),
        ("FR-974", "RE (Réunion)"),
        ("CN-HK", "HK (Hong Kong)"),
        ("FRA", "FR (France)"),
    ],
)
def test_an_unknown_zone_is_an_error_that_suggests_the_one_that_was_meant(text: str, first: str) -> None:
    with pytest.raises(RegionUnknown) as caught:
        StaticProvider("lifecycle").latest(text)
    assert repr(text) in caught.value.reason
    assert caught.value.remedy.startswith(f"nearest: {first}")


@pytest.mark.parametrize("text", ["US-ZZ", "AU-XX", "ZZ-FR", "", " ", "qqqqqqqqqq", "FR-", "FR-ABCD", "XK"])
def test_what_is_no_zone_is_never_priced(text: str) -> None:
    for scope in SCOPES:
        with pytest.raises(RegionUnknown, match="ISO 3166-1"):
            StaticProvider(scope).latest(text)


def test_an_ambiguous_name_suggests_both_places() -> None:
    assert static.nearest_zones("Georgia") == (("GE", "Georgia"), ("US-GA", "Georgia"))


def test_a_doubtful_source_is_said_in_the_note() -> None:
    assert "low quality" in StaticProvider("direct").latest("RU-MOW").note
    assert "CO2 alone" in StaticProvider("direct").latest("CN-BJ").note
    assert "not verified" in StaticProvider("direct").latest("RU-MOW").note
    assert "not compared with the publication" in StaticProvider("direct").latest("AU").note
    assert StaticProvider("direct").latest("US").note == ""


def test_known_zones_are_those_with_a_value_of_their_own_in_the_view() -> None:
    assert ("US-CA", "California") in static.known_zones("direct")
    assert ("US-CA", "California") not in static.known_zones("lifecycle")
    assert ("FR", "France") in static.known_zones("lifecycle")
    for scope in SCOPES:
        zones = static.known_zones(scope)
        assert list(zones) == sorted(zones)
        assert all(StaticProvider(scope).latest(zone).quality in {"yearly", "world"} for zone, _ in zones)


@given(zone=known, scope=scopes)
def test_the_two_views_are_never_mixed(zone: str, scope: Scope) -> None:
    own = tables.grid().get((zone, scope))
    said = answer(scope, zone)
    if isinstance(said, IntensityError):
        assert own is None
        return
    assert (said.zone, said.scope) == (zone, scope)
    assert said.grams_per_kwh in {row.grams_per_kwh for row in tables.grid().values() if row.scope == scope}
    assert own is None or said.grams_per_kwh == own.grams_per_kwh


@given(zone=known, scopes=st.permutations(SCOPES))
def test_every_known_zone_has_a_value_in_one_view_at_least_and_the_error_names_it(
    zone: str, scopes: list[Scope]
) -> None:
    asked, other = scopes
    said = answer(asked, zone)
    if isinstance(said, IntensityError):
        assert f"grid.scope: {other}" in said.remedy
        said = answer(other, zone)
    assert isinstance(said, Intensity)


@given(zone=known, scope=scopes, pad=st.sampled_from(["", " ", "\t", "\n"]), lower=st.booleans())
def test_case_and_surrounding_space_do_not_matter(zone: str, scope: Scope, pad: str, lower: bool) -> None:
    text = pad + (zone.lower() if lower else zone) + pad
    said, expected = answer(scope, text), answer(scope, zone)
    assert str(said) == str(expected)


@settings(max_examples=50)
@given(text=st.text(max_size=300), scope=scopes)
def test_any_text_is_priced_in_its_view_or_refused_with_a_remedy(text: str, scope: Scope) -> None:
    said = answer(scope, text)
    assert said.remedy if isinstance(said, IntensityError) else said.scope == scope
    assert len(static.nearest_zones(text)) <= 5
