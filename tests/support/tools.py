"""Programs that tests need and that are not Python packages."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["need"]


def need(program: str) -> str:
    """The program's path; without it the test is skipped by its name, and fails where CI=true."""
    path = shutil.which(program)
    if path is not None:
        return path
    message = f"{program} is not installed (make deps)"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
