"""Without a framework its integration says, in one sentence, what to install; nothing else of the SDK minds."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys
for name in {packages!r}:
    sys.modules[name] = None  # as if it were not installed
from carbon_exporter import CarbonRun
try:
    import carbon_exporter.integrations.{module}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "packages", "pip"),
    [
        ("lightning", ("lightning", "pytorch_lightning"), "lightning"),
        ("transformers", ("transformers",), "transformers accelerate"),
        ("keras", ("keras",), "keras"),
        ("accelerate", ("accelerate",), "accelerate"),
    ],
)
def test_without_its_framework_an_integration_says_what_to_install(
    module: str, packages: tuple[str, ...], pip: str
) -> None:
    script = SCRIPT.format(module=module, packages=packages)
    (said,) = subprocess.check_output([sys.executable, "-c", script], text=True).splitlines()
    assert said.startswith(f"carbon_exporter.integrations.{module} needs {pip} (")
    assert said.endswith(f"): pip install {pip}")
