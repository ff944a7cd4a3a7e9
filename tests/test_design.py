"""The design, held: rooms, direction of imports, sizes, docstrings, and what importing the package costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import carbon_exporter

PACKAGE = Path(carbon_exporter.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ["units", "errors", "config", "sensors", "energy", "jobs", "carbon", "snapshot", "publish", "sdk"]
ROOMS += ["service", "report", "integrations", "cli"]
"""From the bottom to the top: a room imports from those before it, and from itself."""
OUTSIDE = {"__init__": 0, "__main__": len(ROOMS), "logs": 0}
OF_THE_REPORT = {"units", "errors", "carbon", "report"}
"""All that a report needs: it asks a Prometheus, and knows nothing of what runs here."""
BELOW_PUBLISH = ROOMS[: ROOMS.index("publish")]
FILE_LINES, FUNCTION_LINES = 400, 60


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def height(room: str) -> int:
    return ROOMS.index(room) if room in ROOMS else OUTSIDE[room]


def at_loading(tree: ast.Module) -> Iterator[str]:
    """What loading a module imports: not what stands in functions, nor what is for type checkers alone."""
    waiting: list[ast.stmt] = list(tree.body)
    for node in waiting:  # grows meanwhile
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imports(node)
        elif isinstance(node, ast.If) and not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            waiting += [*node.body, *node.orelse]
        elif isinstance(node, ast.If):
            waiting += node.orelse
        elif isinstance(node, ast.Try):
            waiting += [*node.body, *node.orelse, *node.finalbody, *(s for one in node.handlers for s in one.body)]
        elif isinstance(node, (ast.ClassDef, ast.With)):
            waiting += node.body


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_keeps_to_its_room_and_size(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a module says what it is for"
    assert text.count("\n") <= FILE_LINES
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name
    mine = room_of(path)
    for name in imports(tree):
        home = carbon_exporter._HOMES.get(name.removeprefix("carbon_exporter."), name)
        parts = home.split(".") if name.startswith("carbon_exporter.") else name.split(".")
        assert parts[0] not in {"subprocess", "pickle"}
        if parts[0] == "carbon_exporter" and len(parts) > 1 and mine != "__init__" and parts[1] != "__version__":
            assert height(parts[1]) <= height(mine), f"{mine} imports {parts[1]}, which stands above it"
            assert (mine, parts[1]) != ("service", "sdk"), "the exporter does not need the SDK, nor it the exporter"
            assert mine != "report" or parts[1] in OF_THE_REPORT
            assert parts[1] != "integrations" or mine == "integrations", "a framework's file is the script's to load"
        if mine in BELOW_PUBLISH:
            assert parts[0] not in {"prometheus_client", "opentelemetry", "h11"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_loading_a_module_does_not_load_opentelemetry(path: Path) -> None:
    if not path.is_relative_to(PACKAGE / "publish") or not path.stem.startswith("otlp"):
        assert not [name for name in at_loading(ast.parse(path.read_text())) if name.startswith("opentelemetry")]


def test_the_sdk_loads_where_there_is_no_linux() -> None:
    for path in (PACKAGE / "sdk").glob("*.py"):
        names = {name.split(".")[0] for name in at_loading(ast.parse(path.read_text()))}
        assert not names & {"fcntl", "resource", "grp", "pwd", "termios", "pty"}, path.name


def test_no_file_has_a_vague_name() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
    assert not [path for path in MODULES if path.stem in vague]


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["prometheus_client", "opentelemetry", "pynvml", "amdsmi", "grpc", "requests", "yaml", "h11", "msgspec"]
    heavy += ["psutil", "asyncio", "carbon_exporter.integrations", "torch", "lightning", "pytorch_lightning"]
    heavy += ["transformers", "accelerate", "keras", "IPython", "mlflow", "wandb", "jax", "sklearn", "ray"]
    script = f"import sys, carbon_exporter; print([name for name in {heavy!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


def test_public_names_are_sorted_and_there() -> None:
    assert carbon_exporter.__all__ == sorted(carbon_exporter.__all__)
    for name in carbon_exporter.__all__:
        assert getattr(carbon_exporter, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = carbon_exporter.nothing


def test_the_unit_of_energy_is_converted_in_one_place() -> None:
    trees = {path.name: ast.parse(path.read_text()) for path in MODULES}
    numbers = [
        (name, node) for name, tree in trees.items() for node in ast.walk(tree) if isinstance(node, ast.Constant)
    ]
    assert [name for name, node in numbers if node.value == 3_600_000] == ["units.py"]
