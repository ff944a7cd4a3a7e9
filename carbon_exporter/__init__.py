"""carbon-exporter: the watts, kilowatt-hours and CO2e of a machine, by job, for Prometheus.

Names are loaded on first use, so that importing the package costs nothing in a training script.
"""

from __future__ import annotations

__version__ = "0.1.0"
