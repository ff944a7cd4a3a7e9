"""axe-core in a page: what its rules for WCAG 2.2, levels A and AA, find there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome

__all__ = ["violations"]

_SCRIPT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "carbon-exporter" / "axe.min.js"
"""Where .ci/deps puts it."""
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RUN = """
const [within, rules, done] = arguments;
axe.run(within, { runOnly: rules, resultTypes: ["violations"] })
  .then((found) => done(found.violations), (error) => done(String(error)));
"""


def violations(driver: Chrome, within: str = "html") -> list[str]:
    """One line for each element that breaks a rule: the rule's weight and name, and where.

    Without axe-core the test is skipped, with CI=true it fails. It is loaded by the driver, which no policy binds.
    """
    if not driver.execute_script("return window.axe !== undefined"):
        driver.execute_script(_script())
    found: list[dict[str, Any]] | str = driver.execute_async_script(_RUN, within, _RULES)
    assert not isinstance(found, str), found
    return [f"{rule['impact']} {rule['id']}: {node['target']}" for rule in found for node in rule["nodes"]]


def _script() -> str:
    if _SCRIPT.is_file():
        return _SCRIPT.read_text(encoding="utf-8")
    message = "axe-core is not there (make deps)"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
