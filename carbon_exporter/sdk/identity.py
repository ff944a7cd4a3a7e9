"""Who this process is: its job, its run, and its rank among many. Pure.

| | the first of these that says something |
|---|---|
| job | the argument, `CARBON_JOB`, Slurm's name (else `slurm-` and its number), `OTEL_SERVICE_NAME`, the script |
| run | the argument, `CARBON_RUN`, Slurm's number (of an array's task `208_3`), else start time and a random tail |
| rank | the argument, `RANK` (torchrun), `SLURM_PROCID`, `OMPI_COMM_WORLD_RANK`, `PMIX_RANK`, `PMI_RANK` |

The rank counts only where its launcher says that there are several, or says nothing of how many; it is empty otherwise.
With an exporter on the node, job and namespace are as it finds them, by the rules of docs/jobs.md.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from carbon_exporter.jobs.base import clean_name
from carbon_exporter.jobs.slurm import slurm_job
from carbon_exporter.sdk.base import Identity

__all__ = ["new_run", "own_identity", "script_name"]

_RANKS = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "PMIX_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
"""Each launcher's variables: which one this is, and of how many. `RANK` is a common word and needs its second one."""
_LONGEST_RANK = 9


def own_identity(
    environ: Mapping[str, str], argv: Sequence[str], *, new: str, job: str = "", run: str = "", rank: str = ""
) -> Identity:
    """The identity by this process's environment and command line; `new` is the run if nothing names one."""
    slurm = slurm_job(environ)
    scheduled = (slurm.name or f"slurm-{slurm.id}") if slurm else ""
    names = (job, environ.get("CARBON_JOB", ""), scheduled, environ.get("OTEL_SERVICE_NAME", ""), script_name(argv))
    runs = (run, environ.get("CARBON_RUN", ""), slurm.id if slurm else "", new)
    return Identity(_first(names) or "python", "", _first(runs), clean_name(rank) or _rank(environ))


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


def _rank(environ: Mapping[str, str]) -> str:
    for variable, size in _RANKS:
        rank, several = _number(environ.get(variable, "")), _number(environ.get(size, ""))
        if rank and (several not in {"", "0", "1"} or (not several and variable != "RANK")):
            return rank
    return ""


def _number(text: str) -> str:
    """In its shortest form; empty if it is none."""
    text = text.strip()
    return str(int(text)) if text.isascii() and text.isdecimal() and len(text) <= _LONGEST_RANK else ""
