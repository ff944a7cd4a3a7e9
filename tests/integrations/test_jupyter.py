"""`%%carbon` in a real kernel and in IPython's terminal: what a cell cost, and the cell as it is without the magic."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.example_node import EXAMPLES, alone
from support.tools import need_package

LOAD = "%load_ext carbon_exporter.integrations.jupyter"
Outputs = Sequence[Mapping[str, Any]]
Execute = Callable[[Any], list[Outputs]]


@pytest.fixture
def execute(tmp_path: Path) -> Execute:
    """Runs a notebook in a kernel of its own; the outputs of its cells."""
    for name in ("nbclient", "ipykernel"):
        need_package(name)

    def executed(notebook: Any) -> list[Outputs]:
        file = tmp_path / "notebook.ipynb"
        file.write_text(json.dumps(notebook))
        command = [sys.executable, "-m", "jupyter", "execute", "--inplace", "--allow-errors", "--timeout=90", str(file)]
        done = subprocess.run(command, env=environ(tmp_path), capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        return [cell["outputs"] for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]

    return executed


def environ(place: Path) -> dict[str, str]:
    own = {"CARBON_REGION": "FR", "IPYTHONDIR": str(place / "ipython"), "JUPYTER_RUNTIME_DIR": str(place / "runtime")}
    return {**alone(place), **own}


def notebook_of(*sources: str) -> Any:
    new = import_module("nbformat.v4")
    return new.new_notebook(cells=[new.new_code_cell(source) for source in sources])


def shown(outputs: Outputs, kind: str = "text/plain") -> str:
    """The summary below a cell; empty if there is none."""
    found = [one["data"][kind] for one in outputs if one["output_type"] == "display_data"]
    assert len(found) <= 1
    return "".join(found[0]) if found else ""


def result(outputs: Outputs) -> str:
    (found,) = [one["data"]["text/plain"] for one in outputs if one["output_type"] == "execute_result"]
    return "".join(found)


def test_the_examples_notebook_shows_what_each_cell_cost(execute: Execute) -> None:
    cells = execute(json.loads((EXAMPLES / "notebook.ipynb").read_text()))
    assert not [one for outputs in cells for one in outputs if one["output_type"] == "error"]
    _, prepare, fit, numbers, waited, run = cells
    assert result(prepare) == "200000"
    assert float(result(fit)) == pytest.approx(3.14, abs=0.05)
    for title, outputs in (("prepare", prepare), ("fit", fit), ("wait", waited)):
        text, html = shown(outputs), shown(outputs, "text/html")
        assert text.startswith(f"carbon: {title}\n")
        assert "<caption" in html
        for row in ("energy", "CO2e", "time", "mean power", "cpu0", "grid", "quality"):
            assert re.search(rf"^  {row} +\S", text, re.MULTILINE), text
            assert f">{row}</th>" in html
        assert re.search(r"energy +\S+ m?Wh ± \S+ m?Wh\n", text)
        assert re.search(r"grid +FR, \S+ g/kWh", text)
        quality = re.search(r"quality +(\w+)(.*)", text)
        assert quality is not None
        assert ("an estimate" in quality[2]) == (quality[1] in {"modelled", "default"})
    assert re.search(r"time +0\.[2-9]\d* s", shown(waited))
    (printed,) = (one["text"] for one in numbers if one["output_type"] == "stream")
    assert re.match(r"\d+\.\d+ J, \d\.\d+ g, \w+", "".join(printed))
    assert result(run) == "5"
    assert any("5 epochs" in "".join(one["text"]) for one in run if one["output_type"] == "stream")


def test_a_cell_is_what_it_is_without_the_magic(execute: Execute) -> None:
    sources = {
        "load": LOAD,
        "value": "%%carbon '<b>bold</b> & co'\ntext = '''\nmany\n  lines'''\ntext",
        "kept": "_",
        "error": "%%carbon\nraise KeyError('mine')",
        "async": "%%carbon\nimport asyncio\nawait asyncio.sleep(0.01)\n'waited'",
        "stacked": "%%carbon\n%%capture out\nprint('hidden')",
        "captured": "out.stdout",
        "under": "%%capture below\n%%carbon\n6 * 7",
        "outer": "%%carbon outer --into outer\nget_ipython().run_cell('%%carbon inner\\n1')\n'outer value'",
        "plain": "get_ipython().run_cell('1')\n'nothing'",
        "quiet": "%%carbon --quiet --into quiet\n'quiet value'",
        "names": "outer.name, quiet.name, quiet.duration_seconds > 0",
        "wrong": "%%carbon --wrong\nnever = 1",
        "quoted": "%%carbon 'open\nnever = 1",
        "syntax": "%%carbon\nx = = 1",
        "shell": "%%carbon\n%%bash\nexit 3",
        "left": "'never' in globals(), [len(cell.spans) for cell in get_ipython().carbon_cells._running]",
        "help": "%%carbon?",
        "unload": LOAD.replace("%load", "%unload"),
        "gone": "%%carbon\n1",
        "again": f"{LOAD}",
        "back": "%%carbon\n'back'",
    }
    cells = dict(zip(sources, execute(notebook_of(*sources.values())), strict=True))
    errors = {name: one["ename"] for name, outputs in cells.items() for one in outputs if "ename" in one}
    assert errors == {"error": "KeyError", "syntax": "SyntaxError", "shell": "CalledProcessError"}
    assert result(cells["value"]) == result(cells["kept"]) == repr("\nmany\n  lines")
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; co" in shown(cells["value"], "text/html")
    assert "<b>" not in shown(cells["value"], "text/html")
    assert result(cells["async"]) == repr("waited")
    assert result(cells["captured"]) == repr("hidden\n")
    assert result(cells["quiet"]) == repr("quiet value")
    assert result(cells["back"]) == repr("back")
    assert result(cells["names"]) == "('outer', 'cell', True)"
    assert result(cells["left"]) == "(False, [0])"
    measured = {name for name, outputs in cells.items() if name != "outer" and shown(outputs)}
    assert measured == {"value", "error", "async", "stacked", "shell", "back"}
    titles = ["".join(one["data"]["text/plain"]).splitlines()[0] for one in cells["outer"] if "data" in one]
    assert titles == ["1", "carbon: inner", repr("outer value"), "carbon: outer"]
    for name, told in (("wrong", "--wrong"), ("quoted", "No closing quotation"), ("gone", "not found")):
        assert any(told in "".join(one.get("text", "")) for one in cells[name]), name


def test_ipython_in_a_terminal_shows_lines_of_text(tmp_path: Path) -> None:
    need_package("IPython")
    script = f"{LOAD}\nimport time; time.sleep(1)\n%%carbon probe\ntime.sleep(0.3)\n6 * 7\n\n\n"
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--no-confirm-exit", "--colors=nocolor"],
        input=script,
        env=environ(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Out[3]: 42" in done.stdout
    assert re.search(r"carbon: probe\n  energy +\S+ m?Wh ± .*\n.*\n  time +0\.[3-9]", done.stdout), done.stdout
    assert "<" not in done.stdout
