"""Slurm: a job from its steps' environment. Pure.

The environment says who (sbatch(1), srun(1), "OUTPUT ENVIRONMENT VARIABLES"); the control group's path (places.py) says
for sure which job, for no user can leave it. Both number a job alike (`SLURM_JOB_ID`); a task of an array is called
`ARRAY_TASK` as `squeue` does.

What was seen of Slurm 22.05, and why the boards are found as they are:

- `SLURM_JOB_GPUS` holds the job's boards as the node numbers them, on the node where its script runs. A step on another
  node inherits the script's, so that there `SLURM_STEP_GPUS` counts.
- A job that was submitted from within a step inherits `SLURM_STEP_GPUS`, `SLURM_STEP_ID` and `SLURM_ARRAY_*`, though
  it has other boards or none, and need not be of an array.
- `CUDA_VISIBLE_DEVICES` and `GPU_DEVICE_ORDINAL` start at 0 in every job where Slurm fences devices in
  (`ConstrainDevices`): numbers there are the node's only if Slurm says none of its own.
- Where Slurm hands out slices (MIG), its numbers count slices, and `CUDA_VISIBLE_DEVICES` has their uuids.
- The device cgroup tells nothing: Slurm denies devices one by one, and version 1 lists such a group as `a *:* rwm`;
  version 2 has a program of the kernel's (BPF) in its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from carbon_exporter.jobs.base import clean_name
from carbon_exporter.jobs.cuda_devices import ALL, parse_slurm_gpus, parse_visible
from carbon_exporter.jobs.workload import SlurmJob

__all__ = ["VARIABLES", "slurm_job", "slurm_number"]

VARIABLES = (
    "SLURM_JOB_ID",
    "SLURM_JOBID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_COUNT",
    "SLURM_JOB_NAME",
    "SLURM_JOB_USER",
    "SLURM_JOB_ACCOUNT",
    "SLURM_JOB_PARTITION",
    "SLURM_JOB_NODELIST",
    "SLURMD_NODENAME",
    "SLURM_JOB_GPUS",
    "SLURM_STEP_GPUS",
    "SLURM_GPUS_ON_NODE",
    "GPU_DEVICE_ORDINAL",
    "CUDA_VISIBLE_DEVICES",
)
"""All that is read here of an environment."""

LONGEST_LIST = 4096

_NUMBER = re.compile(r"[0-9]{1,10}")
_FIRST_NODE = re.compile(r"(?P<prefix>[^\[,]*)(?:\[(?P<number>[0-9]+)[^\]]*\](?P<suffix>[^,\[]*))?")


def slurm_job(environment: Mapping[str, str]) -> SlurmJob | None:
    """The job that this environment was made for, None if it is none of Slurm's. Its values are bounded and cleaned.

    What is inherited by mistake is left out as far as it can be told: an array is believed only if it can hold this
    job (its first task has the array's number, none has a lower one).
    """
    number = slurm_number(environment)
    if number is None:
        return None
    return SlurmJob(
        id=_array_task(number, environment) or number,
        name=_clean(environment, "SLURM_JOB_NAME"),
        user=_clean(environment, "SLURM_JOB_USER"),
        account=_clean(environment, "SLURM_JOB_ACCOUNT"),
        partition=_clean(environment, "SLURM_JOB_PARTITION"),
        boards=_boards(environment),
    )


def slurm_number(environment: Mapping[str, str]) -> str | None:
    """The job's own number, as its control group's path has it too; None if the environment is none of Slurm's."""
    return _number(environment, "SLURM_JOB_ID") or _number(environment, "SLURM_JOBID")


def _number(environment: Mapping[str, str], variable: str) -> str | None:
    """A number above 0 in its shortest form."""
    text = environment.get(variable, "")
    return str(int(text)) if _NUMBER.fullmatch(text) and text.isascii() and int(text) > 0 else None


def _clean(environment: Mapping[str, str], variable: str) -> str:
    return clean_name(environment.get(variable, ""))


def _array_task(number: str, environment: Mapping[str, str]) -> str | None:
    """`208_3`, None if it is no task of an array, or the array is another job's."""
    array = _number(environment, "SLURM_ARRAY_JOB_ID")
    task = environment.get("SLURM_ARRAY_TASK_ID", "")
    if array is None or not _NUMBER.fullmatch(task) or not task.isascii() or int(number) < int(array):
        return None
    if _number(environment, "SLURM_ARRAY_TASK_COUNT") == "1" and number != array:
        return None
    return f"{array}_{int(task)}"


def _boards(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What the job was given on this node: uuids of slices or boards, or the node's numbers of them."""
    visible = tuple(entry for entry in parse_visible(environment.get("CUDA_VISIBLE_DEVICES", "")) if entry != ALL)
    ordinals = parse_slurm_gpus(environment.get("GPU_DEVICE_ORDINAL", ""))
    if visible and all(entry.startswith("MIG-") for entry in visible):
        return visible
    of_job = parse_slurm_gpus(environment.get("SLURM_JOB_GPUS", ""))
    of_step = parse_slurm_gpus(environment.get("SLURM_STEP_GPUS", ""))
    if of_job and _on_first_node(environment):
        return of_job
    if of_job or of_step:
        return of_step if visible or ordinals or "SLURM_GPUS_ON_NODE" in environment else ()
    return visible or ordinals


def _on_first_node(environment: Mapping[str, str]) -> bool:
    """Whether the job's script runs on this node: the first of its list (`node[03-05,9]`), as far as is known."""
    here, nodes = environment.get("SLURMD_NODENAME", ""), environment.get("SLURM_JOB_NODELIST", "")
    match = _FIRST_NODE.match(nodes[:LONGEST_LIST])
    if not here or match is None or not match[0]:
        return True
    return here == f"{match['prefix']}{match['number'] or ''}{match['suffix'] or ''}"
