"""Why a job was not found: another spelling, another namespace, another time, or nothing at all."""

from __future__ import annotations

import difflib

from carbon_exporter.errors import QueryError
from carbon_exporter.report.client import PrometheusClient
from carbon_exporter.report.counters import ENERGY, Selection

__all__ = ["absent", "namespaces", "the_only_namespace"]

JOB_LABELS = ("job_name", "hpc_job", "job")
_RECORDED = "job_kind:carbon_job_energy_kwh:increase5m"
_EARLIEST = 0


def namespaces(client: PrometheusClient, selection: Selection, begin: int, end: int) -> list[str]:
    """The namespaces in which there is a job of this name; an empty one stands for none."""
    found: set[str] = set()
    for metric in (ENERGY, _RECORDED):
        matching = f"{metric}{{{selection.job}}}"
        found |= set(client.label_values("job_namespace", matching, begin, end))
        if client.label_values(selection.job_label, f'{metric}{{{selection.job},job_namespace=""}}', begin, end):
            found.add("")
        if found:
            break
    return sorted(found)


def the_only_namespace(client: PrometheusClient, selection: Selection, begin: int, end: int) -> str:
    """The namespace of the job where it is not said. Raises `QueryError` if there are several, or no such job."""
    found = namespaces(client, selection, begin, end)
    if not found:
        raise absent(client, selection, begin, end)
    if len(found) > 1:
        named = ", ".join(name or "(none)" for name in found)
        remedy = "choose one by --namespace=NAME, or --namespace= for none"
        raise QueryError(f"there are jobs called {selection.name!r} in several namespaces: {named}", remedy=remedy)
    return found[0]


def absent(client: PrometheusClient, selection: Selection, begin: int, end: int) -> QueryError:
    """The error for a job of which nothing is stored then; it names what comes nearest."""
    label, name = selection.job_label, selection.name
    here = _jobs(client, label, begin, end)
    if not here:
        return _no_jobs_at_all(client, label, begin, end)
    reason = f"no job {name!r} used energy between --from and --to"
    if name in here:
        found = ", ".join(one or "(none)" for one in namespaces(client, Selection(name, job_label=label), begin, end))
        return QueryError(f"{reason} in this namespace and cluster", remedy=f"it is in the namespaces: {found}")
    if name in _jobs(client, label, _EARLIEST, end):
        return QueryError(reason, remedy="it did at another time: an earlier --from finds it")
    near = difflib.get_close_matches(name, here, n=3, cutoff=0.4) or here[:3]
    return QueryError(reason, remedy=f"nearest of {len(here)}: {', '.join(near)}")


def _no_jobs_at_all(client: PrometheusClient, label: str, begin: int, end: int) -> QueryError:
    reason = f"this server has no jobs with the label {label} between --from and --to"
    for other in JOB_LABELS:
        # Every scraped series has a label `job`: only one beside the scrape's own says something.
        if other not in {label, "job"} and _jobs(client, other, begin, end):
            return QueryError(reason, remedy=f"there are some with --job-label={other}")
    return QueryError(reason, remedy="does it scrape a carbon-exporter, and for as long as that?")


def _jobs(client: PrometheusClient, label: str, begin: int, end: int) -> list[str]:
    raw = client.label_values(label, ENERGY, begin, end)
    return raw or client.label_values(label, _RECORDED, begin, end)
