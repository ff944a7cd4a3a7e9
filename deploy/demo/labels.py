"""How a series is spelt: its name and labels, as in the exposition formats."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Target"]


class Target:
    """A scrape target: gives every series of its own labels, and spells the label of jobs as the site does."""

    def __init__(self, instance: str = "", *, job_label: str = "job_name", cluster: str = "demo") -> None:
        """`job_label` is `job_name`, `job` or `hpc_job`; without an instance nothing of the target is added."""
        self._job_label = job_label
        self._own = {"cluster": cluster, "instance": instance, "job": "carbon-exporter"} if instance else {}

    def series(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """The series, with a space behind it. Empty labels go without; where jobs are `job`, that label is theirs."""
        spelt = {self._job_label if key == "job_name" else key: value for key, value in (labels or {}).items()}
        pairs = ",".join(f'{key}="{value}"' for key, value in {**self._own, **spelt}.items() if value)
        return f"{name}{{{pairs}}} " if pairs else f"{name} "
