"""The resolvers, in the order in which they are asked: the first that knows a workload names it.

A new one is a file with a class and a line here.
"""

from __future__ import annotations

from collections.abc import Sequence

from carbon_exporter.jobs.base import Claim, Resolver, Workload
from carbon_exporter.jobs.cgroups import CgroupNames
from carbon_exporter.jobs.environment import EnvironmentNames

__all__ = ["RESOLVERS", "first_claim"]

RESOLVERS: tuple[Resolver, ...] = (
    EnvironmentNames(),
    CgroupNames(),
)


def first_claim(workload: Workload, resolvers: Sequence[Resolver] = RESOLVERS) -> Claim | None:
    """The first resolver's word; None leaves the workload to `_unattributed_`."""
    claims = (resolver.claim(workload) for resolver in resolvers)
    return next((claim for claim in claims if claim is not None), None)
