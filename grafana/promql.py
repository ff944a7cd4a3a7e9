"""What the boards' queries have in common: matchers of the variables, and the exact sums over a range.

A total is the sum of the recorded five-minute increases whose windows end in the range. Windows touch, so nothing is
counted twice, left out or extrapolated; a total lags the range's edges by up to five minutes.
"""

from __future__ import annotations

__all__ = ["CLUSTER", "ONE_JOB", "SITE", "WORK", "accumulated", "hours", "of_chosen_jobs", "total"]

CLUSTER = 'cluster=~"$cluster"'
SITE = f'{CLUSTER},region=~"$region"'
WORK = f'{CLUSTER},job_namespace=~"$namespace",job_name=~"$job"'
"""Of a variable that may have several values: Grafana makes a pattern of it."""
ONE_JOB = f'{CLUSTER},job_namespace=~"$namespace",job_name="$job"'

# Windows end at whole five minutes, and a range often does, too. Prometheus 2 counts both ends of it, Prometheus 3 the
# right one only. Two milliseconds later both see as many windows as the range holds; one would not do, because a day
# that is picked in Grafana ends a millisecond early.
_WINDOWS = "[$__range:5m] offset -2ms"


def total(record: str, matchers: str) -> str:
    """What a recorded `increase5m` adds up to over the range that is shown, in the record's unit."""
    return f"sum_over_time({record}{{{matchers}}}{_WINDOWS})"


def hours(record: str, matchers: str) -> str:
    """What a record of one sample an hour adds up to over the whole hours of the range."""
    return f"sum_over_time({record}{{{matchers}}}[$__range] offset -2ms)"


def of_chosen_jobs(vector: str) -> str:
    """A vector summed by job, of the jobs that are chosen.

    With a matcher of the job's name Prometheus 2 would hold the pattern against every name in its index: of a fleet in
    a month half a million, for a table of twenty.
    """
    told = f'label_replace({vector}, "chosen", "yes", "job_name", "$job")'
    chosen = 'label_replace(vector(1), "chosen", "yes", "", "")'
    return f"sum by (job_namespace, job_name) ({told} and on (chosen) {chosen})"


def accumulated(record: str, matchers: str) -> str:
    """The same from the beginning of the range to each moment of it."""
    since = "vector(time()) > ${__from:date:seconds}"
    return f"sum_over_time(({record}{{{matchers}}} and on () ({since})){_WINDOWS})"
