"""The report as one HTML file: charts inside, no script, nothing from elsewhere; light, dark, narrow and on paper."""

from __future__ import annotations

from html import escape

from carbon_exporter.report.chart import KIND_ORDER, co2e_chart, power_chart
from carbon_exporter.report.facts import Facts
from carbon_exporter.report.figures import Figure, moment
from carbon_exporter.report.sections import Cell, Section, Table, lead, sections, title

__all__ = ["as_html"]

# The kinds' colours are those of Okabe and Ito, which people tell apart whatever colours they see, made darker or
# lighter until they stand out from their ground by 3:1.
_STYLE = """
:root { --paper: #fff; --ink: #17201b; --muted: #566059; --line: #d9dbd3; --accent: #1c6b4b;
  --gpu: #0072b2; --cpu: #c65500; --dram: #008a65; --accelerator: #a65a85; --other: #6b6b6b; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #101512; --ink: #e9eeea; --muted: #9faba4; --line: #2b342f;
  --accent: #6fcb9f; --gpu: #56b4e9; --cpu: #e69f00; --dram: #2bbd93; --accelerator: #cc79a7; --other: #a0a0a0; } }
@media print { :root { --paper: #fff; --ink: #000; --muted: #444; --line: #bbb; --accent: #1c6b4b; --gpu: #0072b2;
  --cpu: #c65500; --dram: #008a65; --accelerator: #a65a85; --other: #6b6b6b; color-scheme: light; }
  body { max-width: none; padding: 0; font-size: 10pt; } h2 { break-after: avoid; } tr, figure { break-inside: avoid; }
  .scroll { overflow: visible; } * { print-color-adjust: exact; } }
* { box-sizing: border-box; }
body { max-width: 66rem; margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 3rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 ui-sans-serif, system-ui, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .3rem; padding-top: .7rem; border-top: 2px solid var(--ink); }
p { margin: .3rem 0; } .sub, caption, figcaption, .times, .top { color: var(--muted); font-size: .875rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 1rem 2rem; margin: 1.5rem 0; }
dt { color: var(--muted); font-size: .875rem; } dd { margin: 0; font-size: 1.9rem; line-height: 1.2; }
data { font-variant-numeric: tabular-nums lining-nums; white-space: nowrap; }
.scroll { overflow-x: auto; } .scroll:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .45rem 1.25rem .45rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--line);
  font-weight: 400; min-width: 6rem; overflow-wrap: break-word; }
th:last-child, td:last-child { padding-right: 0; } thead th { border-top: 0; color: var(--muted); font-size: .875rem; }
.number { text-align: right; }
@media (max-width: 40rem) { td:not(.number) { min-width: 10rem; } }
 tbody th { font-weight: 600; }
figure { margin: 1.75rem 0 0; }
figcaption { display: flex; flex-wrap: wrap; justify-content: space-between; gap: .2rem 2rem; }
figcaption strong { color: var(--ink); font-size: 1rem; font-weight: 600; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1.25rem; margin: 0; padding: 0; list-style: none; color: var(--ink); }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; }
.plot { position: relative; padding-top: 1.5rem; } .top { position: absolute; top: 0; left: 0; }
svg { display: block; width: 100%; height: 11rem; border: solid var(--line); border-width: 1px 0; }
svg path { shape-rendering: crispEdges; } .times { display: flex; justify-content: space-between; gap: 1rem; }
.grid { stroke: var(--line); vector-effect: non-scaling-stroke; fill: none; }
.sum { stroke: var(--accent); stroke-width: 2; vector-effect: non-scaling-stroke; fill: none; }
svg path.sum { shape-rendering: auto; }
""" + "".join(f".{kind} {{ fill: var(--{kind}); background: var(--{kind}); }}\n" for kind in KIND_ORDER)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def as_html(facts: Facts) -> str:
    """The whole page."""
    name = escape(title(facts))
    numbers = "".join(f"<div><dt>{escape(what)}</dt><dd>{_shown(figure)}</dd></div>" for what, figure in lead(facts))
    period = f"{moment(facts.began)} to {moment(facts.ended)}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{name}</title>\n<style>{_STYLE}</style>\n</head>\n'
        f'<body>\n<header>\n<h1>{name}</h1>\n<p class="sub">{period}</p>\n</header>\n<main>\n<dl>{numbers}</dl>\n'
        f"{power_chart(facts.course)}\n{co2e_chart(facts.course)}\n"
        + "\n".join(map(_section, sections(facts)))
        + f'\n</main>\n<footer><p class="sub">carbon-exporter {escape(facts.version)}</p></footer>\n</body>\n</html>\n'
    )


def _section(section: Section) -> str:
    words = "".join(f"<p>{escape(sentence)}</p>" for sentence in section.sentences)
    table = _table(section.heading, section.table) if section.table else ""
    return f"<section><h2>{escape(section.heading)}</h2>{words}{table}</section>"


def _table(name: str, table: Table) -> str:
    numbers = table.numbers
    head = "".join(
        f'<th scope="col"{_number(one)}>{escape(word)}</th>' for word, one in zip(table.header, numbers, strict=True)
    )
    rows = "".join(_row(row, numbers) for row in table.rows)
    # What scrolls sideways has to be reachable by the keyboard, and then has to have a name.
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="Table: {escape(name)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(row: tuple[Cell, ...], numbers: tuple[bool, ...]) -> str:
    first, *rest = row
    cells = "".join(f"<td{_number(one)}>{_shown(cell)}</td>" for cell, one in zip(rest, numbers[1:], strict=True))
    return f'<tr><th scope="row"{_number(numbers[0])}>{_shown(first)}</th>{cells}</tr>'


def _number(one: bool) -> str:
    return ' class="number"' if one else ""


def _shown(cell: Cell) -> str:
    return f'<data value="{cell.value!r}">{escape(cell.text)}</data>' if isinstance(cell, Figure) else escape(cell)
