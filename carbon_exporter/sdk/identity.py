"""Who this process is: its job, its run, and its rank among many. Pure.

| | the first of these that says something |
|---|---|
| job | the argument, `CARBON_JOB`, `BAGGAGE`, Slurm's name (else `slurm-` and its number), `OTEL_SERVICE_NAME`, file |
| run | the argument, `CARBON_RUN`, `BAGGAGE`, Slurm's number (`208_3` of an array), the launcher's name, else its own |
| rank | the argument, else what the launcher says (ranks.py) |

A run's own name is its start and a random tail. With an exporter, job and namespace are as it finds them, by the
rules of docs/jobs.md.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from carbon_exporter.jobs.base import clean_name
from carbon_exporter.jobs.slurm import slurm_job
from carbon_exporter.sdk.baggage import JOB, RUN, baggage_of
from carbon_exporter.sdk.base import Identity
from carbon_exporter.sdk.ranks import launcher_run, rank_of

__all__ = ["new_run", "own_identity", "script_name"]


def own_identity(
    environ: Mapping[str, str], argv: Sequence[str], *, new: str, job: str = "", run: str = "", rank: str = ""
) -> Identity:
    """The identity by this process's environment and command line; `new` is the run if nothing names one."""
    slurm = slurm_job(environ)
    scheduled = (slurm.name or f"slurm-{slurm.id}") if slurm else ""
    carried = baggage_of(environ)
    told = (job, environ.get("CARBON_JOB", ""), carried.get(JOB, ""), scheduled)
    names = (*told, environ.get("OTEL_SERVICE_NAME", ""), script_name(argv))
    named = (run, environ.get("CARBON_RUN", ""), carried.get(RUN, ""), slurm.id if slurm else "")
    runs = (*named, launcher_run(environ), new)
    return Identity(_first(names) or "python", "", _first(runs), clean_name(rank) or rank_of(environ))


def new_run(at: float | None = None) -> str:
    """A name for a run that nobody has named: its start in UTC and a random tail."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(at))}-{secrets.token_hex(3)}"


def script_name(argv: Sequence[str]) -> str:
    """`train` for `python path/train.py`, `trainer` for `python -m trainer`; empty for `python -c` and a prompt."""
    path = PurePath(argv[0]) if argv else PurePath()
    if path.name in {"__main__.py", "__init__.py"}:
        return path.parent.name
    return "" if path.name in {"-c", "-m", "-"} else path.stem


def _first(names: Sequence[str]) -> str:
    return next((clean for clean in map(clean_name, names) if clean), "")
