"""The worked examples of docs/jobs.md: each number in its tables is what the code pays."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import pytest

import carbon_exporter
from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.attribute import split
from carbon_exporter.jobs.base import IDLE, UNATTRIBUTED, Activity, Holding, IdlePolicy, Job, Usage
from carbon_exporter.jobs.boards import Boards
from carbon_exporter.sensors.base import Device, Kind, Occupancy, Occupant, Partition, Quality
from carbon_exporter.units import Joules

PAGE = (Path(carbon_exporter.__file__).parent.parent / "docs/jobs.md").read_text()
A, B = Job("a"), Job("b")
PAYERS = {"a": A, "b": B, "`_unattributed_`": UNATTRIBUTED, "`_idle_`": IDLE}
PIDS = {"a": (1, 2, 3), "b": (4, 5, 6), "unknown": (7, 8, 9), "nobody": ()}
JOBS = {pid: {"a": A, "b": B}.get(name, UNATTRIBUTED) for name, pids in PIDS.items() for pid in pids}
POLICIES: tuple[IdlePolicy, ...] = ("separate", "shared", "reserved")

Row = dict[str, str]


def tables(page: str) -> Iterator[list[Row]]:
    """The tables of a Markdown page: cells by the header of their column."""
    for block in re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE):
        cells = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines()]
        assert {len(row) for row in cells} == {len(cells[0])}, block
        yield [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def table(first_column: str, following: str) -> list[Row]:
    """The one table with this first column and this among the others."""
    (found,) = [rows for rows in tables(PAGE) if first_column == next(iter(rows[0])) and following in rows[0]]
    return found


CPU = table("`attribution.idle`", "b")
(DRAM,) = [rows for rows in tables(PAGE) if next(iter(rows[0])) == "`attribution.idle`" and "b" not in rows[0]]
WHOLE = table("on the board at one look", "at the next")
DIVIDED = table("partitions", "a")


def example(kind: str) -> list[float]:
    """The numbers in the sentence that tells an example, in their order."""
    found = re.search(rf"^Example, {kind}: (.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", found[1])]


def told(row: Row, factor: float = 1.0) -> dict[Job, float]:
    """Who pays what by the page; `_unattributed_` and all who are not named pay nothing."""
    numbers = {job: row[name].removesuffix(" J") for name, job in PAYERS.items() if name in row}
    return {job: float(Fraction(number)) * factor for job, number in numbers.items()}


def digits(row: Row) -> int:
    """After the point, of the number that has most of them; fractions are exact."""
    cells = [row[name].removesuffix(" J") for name in PAYERS if name in row]
    return 9 if any("/" in cell for cell in cells) else max(len(cell.partition(".")[2]) for cell in cells)


def paid(
    joules: float, kind: Kind, *during: Activity, policy: IdlePolicy = "separate", holdings: Sequence[Holding] = ()
) -> dict[Job, float]:
    """Joules by job of five seconds of a device."""
    device = Device(f"{kind}0", kind, "example")
    energy = EnergySlice(device, 0.0, 5.0, Joules(joules), Quality.MEASURED, caught_up=False)
    return {part.job: float(part.joules) for part in split(energy, during, policy, holdings)}


def assert_same(computed: dict[Job, float], row: Row) -> None:
    wanted, places = told(row), digits(row)
    for job in {*computed, *wanted}:
        assert round(computed.get(job, 0.0), places) == pytest.approx(wanted.get(job, 0.0), abs=1e-9), (job, row)
    assert math.fsum(told(row).values()) == pytest.approx(math.fsum(computed.values()), abs=10.0**-places)


def use(text: str) -> float | None:
    return None if text == "?" else float(text.removesuffix("%")) / 100


def whole(text: str, at: float) -> Occupancy:
    """A board as a cell tells it: `a at 30 % and 30 % (two processes), b at ?`."""
    occupants = []
    for one in re.sub(r" \(.*?\)", "", text).split(", "):
        name, _, uses = one.partition(" at ")
        assert bool(uses) == (name != "nobody"), one
        shares = uses.split(" and ") if uses else []
        occupants += [Occupant(pid, use(share)) for pid, share in zip(PIDS[name], shares, strict=False)]
    return Occupancy("gpu0", at, tuple(occupants))


def divided(text: str, at: float) -> Occupancy:
    """A board with partitions as a cell tells it: `a on 2/7 at 50 %, nobody on 3/7 at 0 %, 2/7 free`."""
    partitions, occupants, free = [], [], Fraction(0)
    for number, one in enumerate(text.split(", ")):
        if one.endswith(" free"):
            free += Fraction(one.removesuffix(" free"))
            continue
        found = re.fullmatch(r"(\w+) on (\d/\d) at (\?|\d+ %)", one)
        assert found is not None, one
        partitions.append(Partition(f"gi{number}", float(Fraction(found[2])), utilization=use(found[3])))
        occupants += [Occupant(pid, partition=f"gi{number}") for pid in PIDS[found[1]][:1]]
        free += Fraction(found[2])
    assert free == 1, text
    return Occupancy("gpu0", at, tuple(occupants), tuple(partitions))


def held(before: Occupancy, now: Occupancy) -> Sequence[Holding]:
    boards = Boards()
    boards.look([before], JOBS.__getitem__)
    boards.look([now], JOBS.__getitem__)
    return boards.holdings("gpu0")


@pytest.mark.parametrize("row", CPU, ids=lambda row: row["`attribution.idle`"])
def test_cpu_energy_is_paid_as_the_page_says(row: Row) -> None:
    joules, seconds, cpus, capacity, a, b, unknown, cpuset, cpuset_seconds = example("CPU")
    assert (seconds * cpus, seconds * cpuset) == (capacity, cpuset_seconds)
    activity = Activity(
        0.0, seconds, int(cpus), a + b + unknown, 0.0, 0.0, (Usage(A, a), Usage(B, b, cpus_reserved=cpuset))
    )
    (policy,) = (policy for policy in POLICIES if f"`{policy}`" in row["`attribution.idle`"])
    assert_same(paid(joules, "cpu", activity, policy=policy), row)


@pytest.mark.parametrize(
    ("policy", "row"),
    [(policy, row) for row in DRAM for policy in POLICIES if f"`{policy}`" in row["`attribution.idle`"]],
)
def test_dram_energy_is_paid_as_the_page_says(policy: IdlePolicy, row: Row) -> None:
    joules, installed, in_use, a, unknown = example("DRAM")
    assert a + unknown == in_use
    activity = Activity(0.0, 5.0, 4, 0.0, installed, in_use, (Usage(A, memory_bytes=a),))
    assert_same(paid(joules, "dram", activity, policy=policy), row)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("row", WHOLE, ids=lambda row: f"{row['on the board at one look']}, next {row['at the next']}")
def test_a_board_is_paid_as_the_page_says(row: Row, policy: IdlePolicy) -> None:
    first, second = row["on the board at one look"], row["at the next"]
    holdings = held(whole(first, 0.0), whole(first if second == "the same" else second, 5.0))
    assert_same(paid(1.0, "gpu", policy=policy, holdings=holdings), row)


@pytest.mark.parametrize("row", DIVIDED, ids=lambda row: row["partitions"])
def test_a_divided_board_is_paid_as_the_page_says(row: Row) -> None:
    holdings = held(divided(row["partitions"], 0.0), divided(row["partitions"], 5.0))
    assert_same(paid(1.0, "gpu", holdings=holdings), row)


def test_every_policy_has_its_examples() -> None:
    for rows in (CPU, DRAM):
        named = " ".join(row["`attribution.idle`"] for row in rows)
        assert all(f"`{policy}`" in named for policy in POLICIES)
