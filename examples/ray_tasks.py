"""Ray tasks that are part of a run: each measures its shard, in a worker that may be on another node.

    CARBON_JOB=shards python examples/ray_tasks.py --shards 4

`run.environment()` tells the workers of job and run, as W3C's baggage and `CARBON_RUN`. What a worker measures is then
counted under the same job and run as what is measured here, by the exporter of the node where the worker is. Without a
cluster (`RAY_ADDRESS`) Ray starts one, whose own processes are children of this one and count here.
"""

from __future__ import annotations

import argparse
import random

import ray

from carbon_exporter import CarbonRun


@ray.remote
def shard(number: int, points: int) -> tuple[str, float, float]:
    """The area of a quarter of a disc, by points thrown at random; with the run, and what it cost here."""
    with CarbonRun(summary="none") as run:
        thrower = random.Random(number)  # noqa: S311 - nothing secret
        hits = sum(thrower.random() ** 2 + thrower.random() ** 2 < 1 for _ in range(points))
    run.wait(1.0)
    return run.name, hits / points, run.energy_kwh


def main() -> None:
    """Read the command line, start Ray, gather."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--points", type=int, default=2_000_000, help="of each shard")
    given = parser.parse_args()
    with CarbonRun(model="monte-carlo") as run:
        ray.init(runtime_env={"env_vars": run.environment()})
        told = ray.get([shard.remote(number, given.points) for number in range(given.shards)])
        ray.shutdown()
    for name, area, kwh in told:
        print(f"run {name}: pi is about {4 * area:.3f}, {kwh * 3.6e6:.3f} J")
    print(
        f"run {run.name}: {run.energy_kwh * 3.6e6:.3f} J here, {sum(kwh for _, _, kwh in told) * 3.6e6:.3f} J in tasks"
    )


if __name__ == "__main__":
    main()
