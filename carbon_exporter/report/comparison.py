"""Groups of runs beside each other: mean and spread of every quantity, and Welch's test against the first group.

A group is written as conditions with commas between: `model=gelu*,batch_size=4`. A word alone is the name of a run or
of a job; `*`, `?` and `[…]` stand for anything, as in file names.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from carbon_exporter.errors import QueryError
from carbon_exporter.report.run_facts import Run, Value
from carbon_exporter.report.welch import Sample, Welch, sample, welch

__all__ = ["Comparison", "Contrast", "Group", "Quantity", "compare", "quantities", "values_of"]

_KEYS = ("run", "job", "namespace", "cluster", "model", "dataset", "batch_size")


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something that each run has one number of."""

    name: str
    """`duration`, `energy`, `co2e`, or of a recorded value its span and name."""
    of: Callable[[Run], float | None]
    """In seconds, kWh, grams or the value's own unit; None where the run has none."""


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that belong together, as they were asked for."""

    name: str
    runs: tuple[Run, ...]

    def sample(self, quantity: Quantity) -> Sample | None:
        """Mean and spread; None where no run has any."""
        found = [value for value in map(quantity.of, self.runs) if value is not None]
        return sample(found) if found else None


@dataclass(frozen=True, slots=True)
class Contrast:
    """One quantity of a group beside the first group's."""

    group: str
    quantity: str
    difference: float
    """Of the means, in the quantity's unit."""
    ratio: float | None
    """Of the means; None where the first one's is 0."""
    test: Welch | None
    """None where a group has a single run, or neither spreads."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Groups, and each of them but the first against the first."""

    groups: tuple[Group, ...]
    quantities: tuple[Quantity, ...]
    contrasts: tuple[Contrast, ...]
    notes: tuple[str, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """Those of all groups, each once."""
        return tuple({id(run): run for group in self.groups for run in group.runs}.values())


def values_of(runs: Sequence[Run], wanted: Sequence[str] = ()) -> tuple[Value, ...]:
    """What the runs recorded, what most of them have first; or what is wanted: `NAME`, or `SPAN.NAME`.

    Raises `QueryError` for a wanted one that no run recorded.
    """
    counted = Counter(which for run in runs for which, _ in run.values)
    known = sorted(counted, key=lambda which: (-counted[which], which))
    if not wanted:
        # An epoch's loss is the run's, too: what two spans say alike is said once.
        alike = {(which[1], tuple(repr(run.value(which)) for run in runs)): which for which in reversed(known)}
        return tuple(which for which in known if which in alike.values())
    chosen: list[Value] = []
    for text in wanted:
        found = [which for which in known if text in {which[1], ".".join(which)}]
        if not found:
            told = ", ".join(".".join(which) for which in known) or "nothing"
            raise QueryError(f"no run recorded {text!r}", remedy=f"recorded is {told}")
        chosen += [which for which in found if which not in chosen]
    return tuple(chosen)


def quantities(values: Sequence[Value]) -> tuple[Quantity, ...]:
    """What every run has, and the values."""
    return (
        Quantity("duration", lambda run: run.seconds),
        Quantity("energy", lambda run: run.energy_kwh),
        Quantity("co2e", lambda run: run.co2e_grams),
        *(Quantity(" ".join(which), lambda run, which=which: run.value(which)) for which in values),  # type: ignore[misc]
    )


def compare(runs: Sequence[Run], names: Sequence[str], values: Sequence[Value]) -> Comparison:
    """The groups of these names. Raises `QueryError` for one without a run that is known as a whole."""
    whole = [run for run in runs if run.whole]
    groups = tuple(Group(name, _members(name, whole, runs)) for name in names)
    measured = quantities(values)
    contrasts = (_contrast(group, groups[0], quantity) for group in groups[1:] for quantity in measured)
    return Comparison(
        groups, measured, tuple(one for one in contrasts if one is not None), tuple(_notes(groups, names, runs))
    )


def _members(name: str, whole: Sequence[Run], runs: Sequence[Run]) -> tuple[Run, ...]:
    found = tuple(run for run in whole if _belongs(run, name))
    if found:
        return found
    if any(_belongs(run, name) for run in runs):
        raise QueryError(
            f"no run of {name!r} both began after --from and has ended",
            remedy="an earlier --from has more; a run that goes on is not compared",
        )
    known = sorted({text for run in runs for text in (run.name, run.job)})
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:3]
    raise QueryError(f"no run is called {name!r}", remedy=f"nearest of {len(known)}: {', '.join(near)}")


def _belongs(run: Run, group: str) -> bool:
    return all(_meets(run, condition) for condition in group.split(","))


def _meets(run: Run, condition: str) -> bool:
    key, equals, pattern = condition.partition("=")
    if not equals or key not in _KEYS:
        return any(fnmatchcase(text, condition) for text in (run.name, run.job))
    has = {"run": run.name, "job": run.job, "namespace": run.namespace, "cluster": run.cluster, **dict(run.about)}
    return fnmatchcase(has.get(key, ""), pattern)


def _contrast(group: Group, first: Group, quantity: Quantity) -> Contrast | None:
    mine, its = group.sample(quantity), first.sample(quantity)
    if mine is None or its is None:
        return None
    ratio = mine.mean / its.mean if its.mean else None
    return Contrast(group.name, quantity.name, mine.mean - its.mean, ratio, welch(mine, its))


def _notes(groups: Sequence[Group], names: Sequence[str], runs: Sequence[Run]) -> list[str]:
    notes = []
    left = [run.name for run in runs if not run.whole and any(_belongs(run, name) for name in names)]
    if left:
        notes.append(f"Left out of the groups, for not all of them is known: {', '.join(left)}.")
    members = [run for group in groups for run in group.runs]
    if shared := dict.fromkeys(run.name for run in members if sum(run is one for one in members) > 1):
        notes.append(f"Welch's test takes groups as apart, but in more than one are: {', '.join(shared)}.")
    if len(groups) > 1 and any(len(group.runs) == 1 for group in groups):
        notes.append("A single run has no spread, so there is no test of it.")
    return notes
