"""Runs, and groups of runs, as sections with tables: what a terminal and Markdown both show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from carbon_exporter.report import figures
from carbon_exporter.report.comparison import Comparison, Contrast, Group, Quantity
from carbon_exporter.report.figures import Figure
from carbon_exporter.report.run_facts import Run, Value
from carbon_exporter.report.sections import Cell, Section, Table
from carbon_exporter.report.welch import Welch

__all__ = ["compared", "listed"]

MOST_VALUES = 3
"""Columns of recorded values, where none are chosen."""
_UNITS = {"duration": figures.TIME, "energy": figures.ENERGY, "co2e": figures.MASS}
_HEADINGS = {"duration": "Duration", "energy": "Energy", "co2e": "CO2e"}


def listed(runs: Sequence[Run], values: Sequence[Value], *, chosen: bool) -> Section:
    """The runs in the order in which they began; a column that is empty for all goes without."""
    shown, others = _shown(values, chosen=chosen)
    columns: list[tuple[str, Callable[[Run], Cell]]] = [
        ("Run", lambda run: run.name),
        ("Job", lambda run: run.job),
        ("Namespace", lambda run: run.namespace),
        ("Cluster", lambda run: run.cluster),
        ("Model", lambda run: dict(run.about).get("model", "")),
        ("Dataset", lambda run: dict(run.about).get("dataset", "")),
        ("Batch", lambda run: dict(run.about).get("batch_size", "")),
        ("Ranks", lambda run: Figure(str(run.ranks), run.ranks) if run.ranks > 1 else ""),
        ("Began", lambda run: figures.moment(run.began)),
        ("Duration", lambda run: figures.duration(run.seconds)),
        ("Energy", lambda run: figures.energy(run.energy_kwh)),
        ("CO2e", lambda run: figures.mass(run.co2e_grams)),
    ]
    for which in shown:
        columns += [(" ".join(which), _value(which)), (f"for one {which[1]}", _cost(which))]
    rows = [tuple(cell(run) for _, cell in columns) for run in runs]
    table = _without_empty(tuple(name for name, _ in columns), rows)
    return Section("Runs", tuple(_unfinished(runs) + others), table)


def compared(comparison: Comparison, values: Sequence[Value], *, chosen: bool) -> tuple[Section, ...]:
    """The groups, and each against the first."""
    shown, others = _shown(values, chosen=chosen)
    wanted = {*_UNITS, *(" ".join(which) for which in shown)}
    measured = [one for one in comparison.quantities if one.name in wanted]
    header = ("Group", "Runs", *(_HEADINGS.get(one.name, one.name) for one in measured))
    rows = [_group(group, measured) for group in comparison.groups]
    notes = (*comparison.notes, *others)
    groups = Section("Groups: mean ± standard deviation", notes, _without_empty(header, rows))
    contrasts = tuple(_contrast(one) for one in comparison.contrasts if one.quantity in wanted)
    if not contrasts:
        return (groups,)
    against = ("Group", "Quantity", "Times", "Difference", "t", "Degrees of freedom", "p")
    return groups, Section(f"Against {comparison.groups[0].name}: Welch's test", (), Table(against, contrasts))


def _without_empty(header: Sequence[str], rows: Sequence[tuple[Cell, ...]]) -> Table:
    """The columns in which any row has something."""
    kept = [number for number in range(len(header)) if any(row[number] for row in rows)]
    return Table(tuple(header[number] for number in kept), tuple(tuple(row[number] for number in kept) for row in rows))


def _shown(values: Sequence[Value], *, chosen: bool) -> tuple[Sequence[Value], list[str]]:
    if chosen or len(values) <= MOST_VALUES:
        return values, []
    others = ", ".join(".".join(which) for which in values[MOST_VALUES:])
    return values[:MOST_VALUES], [f"Recorded, too, and shown by --value=NAME: {others}."]


def _unfinished(runs: Sequence[Run]) -> list[str]:
    notes = []
    if going := [run.name for run in runs if run.goes_on]:
        notes.append(f"May go on: {', '.join(going)}.")
    if cut := [run.name for run in runs if run.cut]:
        notes.append(f"Began before --from, which leaves out what they used until then: {', '.join(cut)}.")
    return notes


def _value(which: Value) -> Callable[[Run], Cell]:
    def cell(run: Run) -> Cell:
        value = run.value(which)
        return "" if value is None else Figure(figures.number(value), value)

    return cell


def _cost(which: Value) -> Callable[[Run], Cell]:
    def cell(run: Run) -> Cell:
        cost = run.of_one(which)
        return Figure(f"{figures.energy(cost[0]).text}, {figures.mass(cost[1]).text}", cost[0]) if cost else ""

    return cell


def _group(group: Group, measured: Sequence[Quantity]) -> tuple[Cell, ...]:
    return (group.name, Figure(str(len(group.runs)), len(group.runs)), *(_mean(group, one) for one in measured))


def _mean(group: Group, quantity: Quantity) -> Cell:
    found = group.sample(quantity)
    return figures.spread(found.mean, found.spread, _units(quantity.name)) if found else ""


def _units(quantity: str) -> figures.Units:
    return _UNITS.get(quantity, (("", 1),))


def _contrast(one: Contrast) -> tuple[Cell, ...]:
    change = figures.spread(one.difference, None, _units(one.quantity))
    return (
        one.group,
        _HEADINGS.get(one.quantity, one.quantity),
        "" if one.ratio is None else Figure(figures.number(one.ratio), one.ratio),
        Figure(f"+{change.text}" if one.difference > 0 else change.text, one.difference),
        *(_test(one.test) if one.test else ("", "", "")),
    )


def _test(test: Welch) -> tuple[Cell, ...]:
    t, degrees = (Figure(figures.number(value), value) for value in (test.t, test.degrees_of_freedom))
    return t, degrees, Figure(f"{test.p:.2g}", test.p)
