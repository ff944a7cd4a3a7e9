"""The shipped tables hold what their provenance page promises: columns, keys, ranges, citations, licences."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

import pytest

from carbon_exporter.carbon import tables

DATA = Path(str(resources.files("carbon_exporter"))) / "data"

COLUMNS = {
    "grid_intensity.csv": ("zone", "name", "scope", "g_co2e_per_kwh", "year", "source", "note"),
    "territory_parent.csv": ("territory", "name", "proxy_zone", "reason", "source"),
    "zone_alias.csv": ("alias", "zone", "source"),
    "timezones.csv": ("timezone", "country", "source"),
    "cpu_tdp.csv": ("vendor", "model", "tdp_watts", "cores", "source"),
    "equivalents.csv": ("key", "what", "grams", "year", "source", "note"),
    "sources.csv": ("key", "citation", "licence", "verified", "note"),
}
KEYS = {
    "grid_intensity.csv": ("zone", "scope"),
    "territory_parent.csv": ("territory",),
    "zone_alias.csv": ("alias",),
    "timezones.csv": ("timezone",),
    "cpu_tdp.csv": ("vendor", "model"),
    "equivalents.csv": ("key",),
    "sources.csv": ("key",),
}
LICENCES = {
    "Apache-2.0",
    "CC-BY-4.0",
    "MIT",
    "OGL-Canada-2.0",
    "OGL-UK-3.0",
    "US-public-domain",
    "cited-fact",
    "government-notice",
    "public-domain",
}
RESTRICTIVE = ("-SA", "-NC", "GPL", "ODbL")
WORKING_NOTES = ("PyPI", "second-hand", "@", "author memory", "mlco2", "http", "\u200b")
ZONE_TAB = Path("/usr/share/zoneinfo/zone.tab")


def rows(table: str) -> list[dict[str, str]]:
    with (DATA / table).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_shipped_table_is_checked_here_and_described_on_the_provenance_page() -> None:
    assert {path.name for path in DATA.glob("*.csv")} == set(COLUMNS)
    page = (DATA / "PROVENANCE.md").read_text(encoding="utf-8")
    for table, columns in COLUMNS.items():
        assert f"| `{table}` | {len(rows(table)):,} | {', '.join(columns)} |" in page


@pytest.mark.parametrize("table", COLUMNS)
def test_a_table_has_its_columns_and_whole_trimmed_rows(table: str) -> None:
    with (DATA / table).open(encoding="utf-8", newline="") as file:
        header, *body = list(csv.reader(file))
    assert tuple(header) == COLUMNS[table]
    assert body
    for row in body:
        assert len(row) == len(header)
        assert row == [cell.strip() for cell in row]


@pytest.mark.parametrize("table", COLUMNS)
def test_the_key_of_a_table_is_unique_and_never_empty(table: str) -> None:
    keys = [tuple(row[column].casefold() for column in KEYS[table]) for row in rows(table)]
    assert all(all(key) for key in keys)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("table", [table for table in COLUMNS if table != "sources.csv"])
def test_every_row_names_a_source_that_has_a_citation_and_a_permissive_licence(table: str) -> None:
    sources = tables.sources()
    for key in {row["source"] for row in rows(table)}:
        assert sources[key].citation
        assert sources[key].licence in LICENCES


def test_every_source_is_used_and_says_how_it_was_verified() -> None:
    used = {row["source"] for table in COLUMNS if table != "sources.csv" for row in rows(table)}
    assert used == set(tables.sources())
    assert {source.verified for source in tables.sources().values()} <= {"publisher", "compared", "transcribed", "no"}


@pytest.mark.parametrize("table", COLUMNS)
def test_a_table_has_no_restrictive_licence_and_no_working_notes(table: str) -> None:
    text = (DATA / table).read_text(encoding="utf-8")
    licences = {row.get("licence", "") for row in rows(table)}
    assert not [word for word in RESTRICTIVE for licence in licences if word in licence]
    assert not [note for note in WORKING_NOTES if note in text]


def test_grid_intensities_are_plausible() -> None:
    for row in tables.grid().values():
        assert 1 <= row.grams_per_kwh <= 1500
        assert 2000 <= row.year <= 2026
        assert row.name


def test_both_views_of_the_grid_have_the_promised_extent() -> None:
    keys = set(tables.grid())
    lifecycle = {zone for zone, scope in keys if scope == "lifecycle"}
    direct = {zone for zone, scope in keys if scope == "direct"}
    europe = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
    assert not [zone for zone in lifecycle if "-" in zone]
    assert len(lifecycle) == 214
    assert {zone for zone in direct if "-" not in zone} == {*europe.split(), "AU", "GB", "NZ", "US", "world"}
    assert {zone[:2] for zone in direct if "-" in zone} == {"AU", "CA", "CN", "RU", "US"}
    assert "XK" not in lifecycle | direct


@pytest.mark.parametrize(
    ("zone", "lifecycle", "direct"),
    [("US", 384.4, 349.667), ("DE", 329.65, 291), ("GB", 217.41, 177), ("world", 458.49, 445)],
)
def test_values_agree_with_their_citations(zone: str, lifecycle: float, direct: float) -> None:
    assert tables.grid()[zone, "lifecycle"].grams_per_kwh == lifecycle
    assert tables.grid()[zone, "direct"].grams_per_kwh == direct


def test_a_territory_has_no_value_of_its_own_and_a_stand_in_that_has_one() -> None:
    zones = {zone for zone, _ in tables.grid()}
    for territory in tables.territories().values():
        assert territory.zone not in zones
        assert territory.proxy_zone in zones
        assert territory.reason


def test_an_alias_is_no_zone_itself_and_points_to_one() -> None:
    zones = {zone for zone, _ in tables.grid()} | set(tables.territories())
    for alias, zone in tables.aliases().items():
        assert alias == alias.upper()
        assert alias not in zones
        assert zone in zones


def test_time_zones_name_countries_and_none_is_a_mere_offset() -> None:
    for name, country in tables.time_zones().items():
        assert len(country) == 2
        assert country.isupper()
        assert not name.startswith("Etc/")
    assert not {"UTC", "GMT", "CET", "EST5EDT"} & set(tables.time_zones())


def test_an_alias_of_a_time_zone_lies_where_its_name_says_not_where_its_link_leads() -> None:
    zones = tables.time_zones()
    assert zones["Iceland"] == "IS"
    assert zones["America/Virgin"] == "VI"
    assert zones["Asia/Calcutta"] == "IN"
    assert zones["US/Pacific"] == "US"


@pytest.mark.skipif(not ZONE_TAB.exists(), reason="needs the Debian package tzdata")
def test_time_zones_agree_with_the_ones_of_this_machine() -> None:
    lines = [line.split("\t") for line in ZONE_TAB.read_text("utf-8").splitlines() if not line.startswith("#")]
    here = {fields[2]: fields[0] for fields in lines}
    shipped = tables.time_zones()
    common = here.keys() & shipped.keys()
    assert len(common) > 400
    assert {name: here[name] for name in common} == {name: shipped[name] for name in common}


def test_processors_have_a_vendor_and_a_plausible_power() -> None:
    for row in rows("cpu_tdp.csv"):
        assert 0.03 <= float(row["tdp_watts"]) <= 600
        assert not row["cores"] or 1 <= int(row["cores"]) <= 256


def test_equivalents_are_of_one_each_and_in_grams() -> None:
    grams = {row.key: row.grams for row in tables.equivalents()}
    assert grams["car-eu-km"] == pytest.approx(175)
    assert grams["tree-month"] == pytest.approx(11_000 / 12, rel=1e-3)
    assert grams["us-household-week"] == pytest.approx(8.35e6 / 52, rel=1e-3)


def test_tables_are_read_once_and_cannot_be_changed() -> None:
    assert tables.grid() is tables.grid()
    with pytest.raises(TypeError):
        tables.time_zones()["Europe/Paris"] = "DE"  # type: ignore[index]
