"""Resolver: the job that a process was started for, as `CARBON_JOB` in its environment says."""

from __future__ import annotations

from carbon_exporter.jobs.base import Claim, Job, Workload, clean_name

__all__ = ["VARIABLE", "EnvironmentNames"]

VARIABLE = "CARBON_JOB"


class EnvironmentNames:
    """Takes the name from the environment; an empty one counts as none."""

    name = "environment"
    variables = (VARIABLE,)

    def claim(self, workload: Workload) -> Claim | None:
        """The job that `CARBON_JOB` names."""
        name = clean_name(workload.environment.get(VARIABLE, ""))
        return Claim(Job(name), VARIABLE) if name else None
