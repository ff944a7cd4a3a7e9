"""`carbon-exporter serve`: measure this machine and serve /metrics until stopped."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from typing import Any

from carbon_exporter import logs
from carbon_exporter.cli.settings import add_flags, load_settings, settings_file
from carbon_exporter.config import FileWatch, Settings
from carbon_exporter.errors import ListenError

__all__ = ["register", "run"]

_log = logging.getLogger(__name__)
_SWITCH_SECONDS = 0.001
"""How long a busy tick may keep the server's thread from a scrape; Python's default is 5 ms."""

_EPILOG = """\
endpoints:
  /metrics         Prometheus text or OpenMetrics, gzip if wanted; name[]=METRIC chooses
  /                the live page
  /api/v1/status   the same as JSON
  /-/healthy       200 while the process lives
  /-/ready         200 once the first sample is taken

signals:
  SIGTERM, SIGINT  take a last sample, write the totals, stop
  SIGHUP           read the settings and the web configuration again, look for sensors; which settings need a restart,
                   docs/settings.md says. A change of the file of settings does the same

examples:
  carbon-exporter --grid.region=FR --site.pue=1.2
  CARBON_JOB=train python train.py        # its energy appears as job_name="train"
"""


def register(commands: Any) -> None:
    """Add the command and its flags."""
    parser = commands.add_parser(
        "serve",
        help="measure this machine and serve /metrics (the default)",
        description="Measure this machine and serve its watts, kWh and CO2e by job until stopped.\n"
        "Needs no settings and no privileges; says at the start what it found and what would make it better.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_flags(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    logs.configure("info", "logfmt")
    watch = FileWatch(settings_file(parsed))

    def load() -> Settings:
        watch.note()
        return load_settings(parsed)

    settings = load()
    logs.configure(settings.log_level, settings.log_format)

    from carbon_exporter.cli.sensors import findings_table  # noqa: PLC0415 - --help needs none of the rooms
    from carbon_exporter.service import Service  # noqa: PLC0415

    sys.setswitchinterval(_SWITCH_SECONDS)
    service = Service(settings, os.environ)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    signal.signal(signal.SIGHUP, lambda *_: service.reload(load))
    try:
        service.start()
    except ListenError:
        service.close()
        raise
    if settings.log_format == "logfmt":
        devices = service.snapshot.devices if service.snapshot else ()
        seen = {state.device.name: (state.quality.value if state.quality else None, state.power) for state in devices}
        print(findings_table(service.findings, seen), flush=True)
    gc.collect()
    gc.freeze()
    watch.start(lambda: service.reload(load))
    status = service.run()
    watch.close()
    _log.info("stopped")
    return status
