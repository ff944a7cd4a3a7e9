"""The report as Markdown (GitHub's, for its tables)."""

from __future__ import annotations

import re

from carbon_exporter.report.facts import Facts
from carbon_exporter.report.figures import Figure
from carbon_exporter.report.sections import Cell, Section, Table, lead, sections, title

__all__ = ["as_markdown", "section"]

_ACTIVE = re.compile(r"([\\`*_{}\[\]<>#|~])")


def as_markdown(facts: Facts) -> str:
    """The whole page."""
    first = ", ".join(f"{name} **{figure.text}**" for name, figure in lead(facts))
    return "\n\n".join([f"# {_safe(title(facts))}", f"{first}.", *map(section, sections(facts))]) + "\n"


def section(one: Section) -> str:
    """A heading, and what stands under it."""
    parts = [f"## {_safe(one.heading)}", *map(_safe, one.sentences)]
    return "\n\n".join([*parts, *([_table(one.table)] if one.table else [])])


def _table(table: Table) -> str:
    lines = [tuple(map(_safe, table.header)), tuple("---:" if one else "---" for one in table.numbers)]
    rows = [tuple(map(_cell, row)) for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *rows])


def _cell(cell: Cell) -> str:
    return cell.text if isinstance(cell, Figure) else _safe(cell)


def _safe(text: str) -> str:
    """What a job is called must not become a heading, a table or a link."""
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))
