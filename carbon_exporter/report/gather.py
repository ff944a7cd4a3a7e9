"""Asks a Prometheus about one job and makes `Facts` of the answers."""

from __future__ import annotations

import math
from collections import defaultdict

from carbon_exporter import __version__
from carbon_exporter.report.client import PrometheusClient
from carbon_exporter.report.counters import RULE_SECONDS, Counters, RawCounters, RecordedCounters, Selection
from carbon_exporter.report.course import Course, DeviceKey, Presence, first_and_last, presence
from carbon_exporter.report.facts import Facts, JobIdentity, KindShare, Slice
from carbon_exporter.report.figures import moment
from carbon_exporter.report.origin import Origin
from carbon_exporter.report.search import absent
from carbon_exporter.report.spans import Spans
from carbon_exporter.report.stretch import DAY
from carbon_exporter.units import JOULES_PER_KWH

__all__ = ["gather"]

GOES_ON_SECONDS = 300
_IDENTITY = ("job_id", "scheduler", "queue", "job_user")


def gather(client: PrometheusClient, selection: Selection, begin: int, end: int) -> Facts:
    """What the job used and emitted from `begin` to `end`, in Unix seconds.

    Raises `QueryError` where the server does not answer, or knows no such job then.
    """
    counters, there, raw_from = _find(client, selection, begin, end)
    course, origin, spans = Course(), Origin(selection), Spans(selection)
    for stretch in there.days:
        energy = course.add(client, counters, stretch)
        origin.add(client, stretch, energy)
        spans.add(client, counters, stretch)
    slices = course.slices()
    if not slices:
        raise absent(client, selection, begin, end)
    recorded = not isinstance(counters, RawCounters)
    began, ended, before = (
        first_and_last(client, selection, slices, begin) if not recorded else (slices[0].begin, slices[-1].end, False)
    )
    energy = {key: math.fsum(values) for key, values in course.energy.items()}
    grams = {region: math.fsum(values) for region, values in course.grams.items()}
    notes = _notes(there, origin, energy)
    if recorded:
        notes.append(_of_recorded(raw_from))
    if end - ended < GOES_ON_SECONDS:
        notes.append("Its energy still grew within five minutes of the end: the job may go on.")
    return Facts(
        job=_identity(client, selection, energy, there),
        asked=(begin, end),
        began=began,
        ended=ended,
        before=before,
        method=counters.method,
        precision=float(counters.finest or 0),
        kinds=_kinds(energy, ended - began),
        regions=origin.regions(_by(energy, 4), grams),
        devices=origin.devices(energy),
        qualities=origin.qualities(),
        spans=spans.facts(),
        course=slices,
        energy_kwh=math.fsum(energy.values()),
        co2e_grams=math.fsum(grams.values()),
        peak_watts=max(map(_watts, slices)),
        notes=(*notes, *client.warnings),
        version=__version__,
    )


def _find(
    client: PrometheusClient, selection: Selection, begin: int, end: int
) -> tuple[Counters, Presence, int | None]:
    """What to read, when the job was there by it, and from when on there are counters, if there are any.

    Counters are read, or what the rules recorded where these alone reach back. Raises `QueryError` without either.
    """
    raw, recorded = RawCounters(selection), RecordedCounters(selection)
    there = presence(client, raw, begin, end)
    if there is not None and not _goes_further_back(client, recorded, begin, there.begin):
        return raw, there, there.begin
    known = presence(client, recorded, begin, end)
    if known is None:
        raise absent(client, selection, begin, end)
    return recorded, known, there.begin if there else None


def _goes_further_back(client: PrometheusClient, recorded: Counters, begin: int, raw_from: int) -> bool:
    """Whether it was recorded more than a window before its counters begin: these are kept for a shorter time."""
    until = raw_from - RULE_SECONDS
    return until > begin and presence(client, recorded, begin, until) is not None


def _by(energy: dict[DeviceKey, float], label: int) -> dict[str, float]:
    parts: dict[str, list[float]] = defaultdict(list)
    for key, kwh in energy.items():
        parts[key[label]].append(kwh)
    return {name: math.fsum(values) for name, values in parts.items()}


def _kinds(energy: dict[DeviceKey, float], seconds: float) -> tuple[KindShare, ...]:
    rows = [
        KindShare(kind, kwh, kwh * JOULES_PER_KWH / seconds if seconds > 0 else 0.0)
        for kind, kwh in _by(energy, 3).items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.energy_kwh, row.kind)))


def _watts(one: Slice) -> float:
    return math.fsum(kwh for _, kwh in one.energy_kwh) * JOULES_PER_KWH / (one.end - one.begin)


def _identity(
    client: PrometheusClient, selection: Selection, energy: dict[DeviceKey, float], there: Presence
) -> JobIdentity:
    details: dict[str, set[str]] = defaultdict(set)
    window = min(there.end - there.begin, DAY)
    told = f"group by ({', '.join(_IDENTITY)}) (last_over_time({selection.of('carbon_job_info', window)}))"
    for row in client.instant(told, there.end):
        for name in _IDENTITY:
            details[name] |= {row.label(name)} - {""}
    clusters = sorted({key[0] for key in energy if key[0]})
    known = tuple((name, ", ".join(sorted(values))) for name, values in sorted(details.items()) if values)
    return JobIdentity(selection.name, selection.namespace, tuple(clusters), known)


def _of_recorded(raw_from: int | None) -> str:
    if raw_from is None:
        return "This server holds recorded series alone: devices, how they are measured and prices are not in it."
    return (
        f"This server holds the job's counters from {moment(raw_from)} on and recorded series from before: the totals "
        "are those of the recorded ones. Devices and how they are measured are not in these; prices are of the time "
        "since then."
    )


def _notes(there: Presence, origin: Origin, energy: dict[DeviceKey, float]) -> list[str]:
    notes = []
    if there.unseen_seconds:
        notes.append(
            f"For about {there.unseen_seconds / 60:.0f} minutes in between nothing is stored of the job. What its "
            "counters gained meanwhile is in the total if the pause was shorter than an hour."
        )
    if origin.missing_seconds > 0:
        notes.append(
            f"The energy of its devices is not known for {origin.missing_seconds:.0f} device-seconds: it is missing "
            "from the totals, never invented."
        )
    if len({key[0] for key in energy}) > 1:
        notes.append("Jobs of this name in several clusters are added up; --cluster chooses one.")
    return notes
