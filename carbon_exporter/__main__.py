"""`python -m carbon_exporter` is `carbon-exporter`."""

from __future__ import annotations

import sys

from carbon_exporter.cli import main

if __name__ == "__main__":
    sys.exit(main())
