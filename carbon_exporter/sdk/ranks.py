"""Ranks: which of how many processes this is, and the name of the run that they share, as launchers tell it. Pure.

| launcher | rank, world size | run |
|---|---|---|
| torchrun, Ray Train | `RANK`, `WORLD_SIZE` | `TORCHELASTIC_RUN_ID` (torchrun's `--rdzv-id`) |
| Slurm | `SLURM_PROCID`, `SLURM_NTASKS` | the job's number (identity.py) |
| Open MPI | `OMPI_COMM_WORLD_RANK`, `OMPI_COMM_WORLD_SIZE` | `PMIX_NAMESPACE` |
| PMIx | `PMIX_RANK`, `PMIX_SIZE` | `PMIX_NAMESPACE` |
| MPICH, Intel MPI | `PMI_RANK`, `PMI_SIZE` | |

A rank counts only where its launcher says that there are several, or says nothing of how many.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["launcher_run", "rank_of", "world_of"]

_RANKS = (
    ("RANK", "WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMIX_RANK", "PMIX_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
)
"""Each launcher's variables: which one this is, and of how many. `RANK` is a common word and needs its second one."""
_RUNS = ("TORCHELASTIC_RUN_ID", "PMIX_NAMESPACE")
_NO_RUN = "none"
"""What torchrun calls a run that nobody has named."""
_LONGEST_RANK = 9


def rank_of(environ: Mapping[str, str]) -> str:
    """Which one this is; empty outside distributed runs."""
    return _told(environ)[0]


def world_of(environ: Mapping[str, str]) -> int:
    """How many there are; 1 outside distributed runs and where it is not known."""
    return int(_told(environ)[1] or 1)


def launcher_run(environ: Mapping[str, str]) -> str:
    """The name by which a launcher calls all of them, the same after an elastic restart; empty if it has none."""
    return next((told for told in map(environ.get, _RUNS) if told and told != _NO_RUN), "")


def _told(environ: Mapping[str, str]) -> tuple[str, str]:
    for variable, size in _RANKS:
        rank, several = _number(environ.get(variable, "")), _number(environ.get(size, ""))
        if rank and (several not in {"", "0", "1"} or (not several and variable != "RANK")):
            return rank, several
    return "", ""


def _number(text: str) -> str:
    """In its shortest form; empty if it is none."""
    text = text.strip()
    return str(int(text)) if text.isascii() and text.isdecimal() and len(text) <= _LONGEST_RANK else ""
