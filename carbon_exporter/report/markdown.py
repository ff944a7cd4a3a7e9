"""The report as Markdown (GitHub's, for its tables)."""

from __future__ import annotations

import re

from carbon_exporter.report.facts import Facts
from carbon_exporter.report.figures import Figure
from carbon_exporter.report.sections import Cell, Section, Table, lead, sections, title

__all__ = ["as_markdown"]

_ACTIVE = re.compile(r"([\\`*_{}\[\]<>#|~])")


def as_markdown(facts: Facts) -> str:
    """The whole page."""
    first = ", ".join(f"{name} **{figure.text}**" for name, figure in lead(facts))
    return "\n\n".join([f"# {_safe(title(facts))}", f"{first}.", *map(_section, sections(facts))]) + "\n"


def _section(section: Section) -> str:
    parts = [f"## {section.heading}", *map(_safe, section.sentences)]
    return "\n\n".join([*parts, *([_table(section.table)] if section.table else [])])


def _table(table: Table) -> str:
    lines = [table.header, tuple("---:" if one else "---" for one in table.numbers)]
    rows = [tuple(map(_cell, row)) for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *rows])


def _cell(cell: Cell) -> str:
    return cell.text if isinstance(cell, Figure) else _safe(cell)


def _safe(text: str) -> str:
    """What a job is called must not become a heading, a table or a link."""
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))
