"""Programs and packages that tests need and that not everybody has."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import NoReturn

import pytest

__all__ = ["need", "need_package"]


def need(program: str, place: str | None = None) -> str:
    """The program's path, in `place` or in PATH; without it a test is skipped by its name, or fails where CI=true."""
    path = shutil.which(program, path=place)
    if path is None:
        _do_without(f"{program} is not installed (make deps)")
    return path


def need_package(*names: str) -> None:
    """Likewise without a package of Python."""
    lacking = [name for name in names if importlib.util.find_spec(name) is None]
    if lacking:
        _do_without(f"{', '.join(lacking)} is not installed")


def _do_without(message: str) -> NoReturn:
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
