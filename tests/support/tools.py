"""Programs that tests need and that are not Python packages."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["need"]


def need(program: str, place: str | None = None) -> str:
    """The program's path, in `place` or in PATH; without it a test is skipped by its name, or fails where CI=true."""
    path = shutil.which(program, path=place)
    if path is not None:
        return path
    message = f"{program} is not installed (make deps)"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
