"""A script that works in carbon spans and then ends in one of many ways, or does the same without spans.

    python ending.py HOW SECONDS [--plain] [--collector=URL]

It prints `working` once it is in its first span, works in spans of half a second, and ends: `return`, `raise`, `exit`
(sys.exit(3)), `os-exit` (os._exit(4)), `wait` (until somebody ends it), `thread` (in a span of a thread of its own).
With a collector it has configured OpenTelemetry's metrics, as an application does.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def span(name: str) -> AbstractContextManager[Any]:
    if "--plain" in sys.argv:
        return nullcontext()
    from carbon_exporter import carbon_span  # noqa: PLC0415 - the plain script knows nothing of it

    return carbon_span(name)


def step() -> None:
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        sum(range(1000))
        time.sleep(0.005)


def work(how: str, seconds: float) -> None:
    until = time.monotonic() + seconds
    sys.stdout.write("working\n")
    sys.stdout.flush()
    while time.monotonic() < until or how == "wait":
        with span("step"):
            step()
            if time.monotonic() >= until and how == "raise":
                raise RuntimeError("the script's own trouble")
            if time.monotonic() >= until and how == "exit":
                sys.exit(3)
            if time.monotonic() >= until and how == "os-exit":
                os._exit(4)


def configure_metrics(url: str) -> None:
    from opentelemetry import metrics  # noqa: PLC0415 - only where it is asked for
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415

    reader = PeriodicExportingMetricReader(OTLPMetricExporter(url, timeout=1), 500)
    metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))


def main() -> None:
    for argument in sys.argv[1:]:
        if argument.startswith("--collector="):
            configure_metrics(argument.partition("=")[2])
    how, seconds = sys.argv[1], float(sys.argv[2])
    with span("all"):
        if how == "thread":
            thread = threading.Thread(target=work, args=("return", seconds))
            thread.start()
            thread.join()
        else:
            work(how, seconds)


if __name__ == "__main__":
    main()
