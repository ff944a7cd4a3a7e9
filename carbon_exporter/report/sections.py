"""A report as titles, sentences and tables: what Markdown and HTML both write down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from carbon_exporter.carbon import tables
from carbon_exporter.report import figures
from carbon_exporter.report.codecarbon import codecarbon_rows
from carbon_exporter.report.facts import Facts, Price
from carbon_exporter.report.figures import Figure

__all__ = ["Cell", "Section", "Table", "lead", "sections", "title"]

Cell = str | Figure


@dataclass(frozen=True, slots=True)
class Table:
    """A header and rows; a row's first cell names it."""

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def numbers(self) -> tuple[bool, ...]:
        """Which columns hold numbers alone, to be set flush right."""
        cells = [[row[column] for row in self.rows if row[column]] for column in range(len(self.header))]
        return tuple(all(isinstance(cell, Figure) for cell in column) for column in cells)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what stands under it."""

    heading: str
    sentences: tuple[str, ...] = ()
    table: Table | None = None


def title(facts: Facts) -> str:
    """The report's name."""
    job = facts.job
    return f"Energy and CO2e of {job.namespace + '/' if job.namespace else ''}{job.name}"


def lead(facts: Facts) -> tuple[tuple[str, Figure], ...]:
    """The numbers that one looks for first."""
    return (
        ("energy", figures.energy(facts.energy_kwh)),
        ("CO2e", figures.mass(facts.co2e_grams)),
        ("duration", figures.duration(facts.seconds)),
        ("mean power", figures.power(facts.mean_watts)),
    )


def sections(facts: Facts) -> tuple[Section, ...]:
    """Everything, in the order in which it is read."""
    made = (_job, _energy, _carbon, _hardware, _quality, _spans, _equivalents, _codecarbon, _method)
    return tuple(section for make in made for section in make(facts))


def _job(facts: Facts) -> Iterable[Section]:
    job = facts.job
    rows: list[tuple[Cell, ...]] = [
        ("began", figures.moment(facts.began) + (" (it was there before)" if facts.before else "")),
        ("energy last grew", figures.moment(facts.ended)),
        ("duration", figures.duration(facts.seconds)),
        ("largest power in a window", figures.power(facts.peak_watts)),
        ("asked for", f"{figures.moment(facts.asked[0])} to {figures.moment(facts.asked[1])}"),
    ]
    rows += [("cluster", ", ".join(job.clusters))] if job.clusters else []
    rows += [(name.removeprefix("job_"), value) for name, value in job.details]
    yield Section("Job", facts.notes, Table(("what", "value"), tuple(rows)))


def _energy(facts: Facts) -> Iterable[Section]:
    rows: list[tuple[Cell, ...]] = [
        (
            one.kind or "unknown",
            figures.energy(one.energy_kwh),
            figures.share(one.energy_kwh / facts.energy_kwh if facts.energy_kwh else 0.0),
            figures.power(one.mean_watts),
        )
        for one in facts.kinds
    ]
    rows.append(("all", figures.energy(facts.energy_kwh), "", figures.power(facts.mean_watts)))
    yield Section("Energy", ("IT energy, without the site's overhead.",), _table("kind|energy|share|mean power", rows))


def _carbon(facts: Facts) -> Iterable[Section]:
    rows: list[tuple[Cell, ...]] = [
        (
            f"{one.region} ({one.name})" if one.name else one.region or "unknown",
            figures.energy(one.energy_kwh),
            figures.mass(one.co2e_grams),
            "" if one.realised_grams_per_kwh is None else figures.intensity(one.realised_grams_per_kwh),
            _between(one.pue) or "not stored",
        )
        for one in facts.regions
    ]
    sentence = (
        "Operational, location-based: energy times the grid's intensity when it was used, times the site's PUE. "
        "Realised intensity is CO2e over energy, so it contains the PUE."
    )
    yield Section("CO2e", (sentence,), _table("region|energy|CO2e|realised intensity|PUE", rows))
    prices = [_price(one.region, price) for one in facts.regions for price in one.prices]
    if prices:
        yield Section(
            "Intensity of the grid", (), _table("region|intensity|scope|how good|source|region is from", prices)
        )


def _price(region: str, price: Price) -> tuple[Cell, ...]:
    low, high = price.lowest_grams_per_kwh, price.highest_grams_per_kwh
    return (
        region,
        "not stored" if low is None or high is None else f"{_between((low, high))} g/kWh",
        " ".join(part for part in (price.scope, price.basis) if part),
        f"{price.quality}: {price.bound}" if price.bound else price.quality,
        f"{price.source}{', ' + price.year if price.year else ''} ({price.provider})",
        price.located_by,
    )


def _hardware(facts: Facts) -> Iterable[Section]:
    rows: list[tuple[Cell, ...]] = [
        (
            f"{one.count} x {one.title}",
            one.kind,
            figures.energy(one.energy_kwh),
            " by ".join(part for part in (one.quality, one.sensor) if part),
        )
        for one in facts.devices
    ]
    if rows:
        sentence = "The devices that the job used, and what it used of them."
        yield Section("Hardware", (sentence,), _table("devices|kind|energy of the job|how it is got", rows))


def _quality(facts: Facts) -> Iterable[Section]:
    rows: list[tuple[Cell, ...]] = [
        (one.quality, figures.energy(one.energy_kwh), figures.share(one.share), one.bound) for one in facts.qualities
    ]
    sentence = (
        "How the energy was got, by the worst that each device said of itself in a day, and how far off it may be."
    )
    yield Section("How sure it is", (sentence,), _table("quality|energy|share|what it means", rows))


def _spans(facts: Facts) -> Iterable[Section]:
    rows: list[tuple[Cell, ...]] = []
    for one in facts.spans:
        each = max(one.ended, 1.0)
        rows.append(
            (
                f"{one.name} ({one.ranks} ranks)" if one.ranks > 1 else one.name,
                Figure(figures.number(one.ended), one.ended),
                figures.energy(one.energy_kwh),
                figures.mass(one.co2e_grams),
                figures.energy(one.energy_kwh / each),
                figures.duration(one.seconds / each),
                ", ".join(f"{name} {figures.number(value)}" for name, value in one.values),
            )
        )
    if rows:
        sentence = "What the scripts say of their blocks: within the job's energy, each with its children's."
        header = "span|ended|energy|CO2e|energy of one|time of one|last values"
        yield Section("Spans", (sentence,), _table(header, rows))


def _equivalents(facts: Facts) -> Iterable[Section]:
    rows: list[tuple[Cell, ...]] = []
    for one in tables.equivalents():
        amount = facts.co2e_grams / one.grams
        year = f" ({one.year})" if one.year else ""
        rows.append(
            (Figure(figures.number(amount), amount), one.what, f"{one.grams:g} g", f"{one.source.citation}{year}")
        )
    sentence = "About as much is emitted by any one of these. Each figure is a mean; sources differ by half and more."
    yield Section("The same CO2e", (sentence,), _table("amount|of|each|source", rows))


def _codecarbon(facts: Facts) -> Iterable[Section]:
    sentence = "Field by field what a CodeCarbon report has, in its units; where there is no counterpart it says why."
    yield Section("As in a CodeCarbon report", (sentence,), _table("field|value|note", codecarbon_rows(facts)))


def _method(facts: Facts) -> Iterable[Section]:
    yield Section(
        "Method",
        (
            f"Totals are {facts.method}; the windows of the course are of {_windows(facts)} at most.",
            f"Beginning and end are off by {_precision(facts)} at most.",
            "Emissions of making the hardware, of cooling beyond the PUE and of networks are not in it.",
            f"Made by carbon-exporter {facts.version}.",
        ),
    )


def _windows(facts: Facts) -> str:
    return figures.duration(max(one.end - one.begin for one in facts.course)).text


def _precision(facts: Facts) -> str:
    return figures.duration(facts.precision).text if facts.precision else "a scrape interval"


def _table(header: str, rows: list[tuple[Cell, ...]]) -> Table:
    return Table(tuple(header.split("|")), tuple(rows))


def _between(edges: tuple[float, float] | None) -> str:
    if edges is None:
        return ""
    low, high = map(figures.number, edges)
    return low if low == high else f"{low} to {high}"
