"""carbon-exporter: the watts, kilowatt-hours and CO2e of a machine, by job, for Prometheus.

Names are loaded on first use, so that importing the package costs nothing in a training script. In such a script:

    from carbon_exporter import carbon_span

    with carbon_span("epoch") as span:
        span.record(loss=train())

To expose an exporter's series in a registry of your own:

    from carbon_exporter import CarbonCollector, Service, Settings

    service = Service(Settings(listen="127.0.0.1:0"), os.environ)
    service.start()
    threading.Thread(target=service.run, daemon=True).start()
    REGISTRY.register(CarbonCollector(lambda: service.snapshot))
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; importing typing would cost more than all the rest
if TYPE_CHECKING:
    from carbon_exporter.config import Settings
    from carbon_exporter.errors import BudgetExceeded, CarbonExporterError
    from carbon_exporter.publish.collector import CarbonCollector
    from carbon_exporter.sdk.page_outlet import start_metrics_server
    from carbon_exporter.sdk.processor import CarbonSpanProcessor
    from carbon_exporter.sdk.run import CarbonRun
    from carbon_exporter.sdk.span import CarbonSpan, carbon_span
    from carbon_exporter.sdk.track import track
    from carbon_exporter.sdk.tracker import configure
    from carbon_exporter.service import Service

__version__ = "0.1.0"

__all__ = [
    "BudgetExceeded",
    "CarbonCollector",
    "CarbonExporterError",
    "CarbonRun",
    "CarbonSpan",
    "CarbonSpanProcessor",
    "Service",
    "Settings",
    "__version__",
    "carbon_span",
    "configure",
    "start_metrics_server",
    "track",
]

_HOMES = {
    "BudgetExceeded": "carbon_exporter.errors",
    "CarbonCollector": "carbon_exporter.publish.collector",
    "CarbonExporterError": "carbon_exporter.errors",
    "CarbonRun": "carbon_exporter.sdk.run",
    "CarbonSpan": "carbon_exporter.sdk.span",
    "CarbonSpanProcessor": "carbon_exporter.sdk.processor",
    "Service": "carbon_exporter.service",
    "Settings": "carbon_exporter.config",
    "carbon_span": "carbon_exporter.sdk.span",
    "configure": "carbon_exporter.sdk.tracker",
    "start_metrics_server": "carbon_exporter.sdk.page_outlet",
    "track": "carbon_exporter.sdk.track",
}


def __getattr__(name: str) -> object:
    """Load a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - the package itself imports nothing

    return getattr(import_module(_HOMES[name]), name)
