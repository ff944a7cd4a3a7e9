"""A run whose data come from workers of torch's DataLoader, which say what run and job they take themselves to be of.

CARBON_JOB=load python loaders.py
"""

from __future__ import annotations

import os
import sys

import torch
from torch.utils.data import DataLoader, Dataset

from carbon_exporter import CarbonRun, carbon_span
from carbon_exporter.sdk.baggage import JOB, baggage_of


class Asked(Dataset[str]):
    """An item is what the process that makes it says of itself."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> str:
        with carbon_span("load"), CarbonRun(summary="none") as run:
            torch.ones(10).sum()
        return f"{run.name} {baggage_of(os.environ)[JOB]} {os.getpid()}"


def main(way: str) -> None:
    """With a worker that is forked, or one that is started anew (`spawn`)."""
    with CarbonRun(f"run-{way}", job="load", summary="none"):
        ((told,),) = list(DataLoader(Asked(), num_workers=1, multiprocessing_context=way))
    run, job, process = told.split()
    sys.stdout.write(f"{run} {job} {int(process) != os.getpid()} {'CARBON_RUN' in os.environ}\n")


if __name__ == "__main__":
    main(sys.argv[1])
