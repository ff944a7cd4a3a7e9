"""Which totals the node's exporter has yet to be told: the newest of each span, never a queue of messages.

Totals are running totals, so a newer one makes an older one needless. What is kept is therefore as large as the
account, however long the exporter is away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final, get_args

from carbon_exporter.carbon.runs import RunKey, RunTotal
from carbon_exporter.carbon.spans import SpanKey, SpanTotal, Trace
from carbon_exporter.publish.handoff_wire import LONGEST_LINE, KindName, SpanRow, Spans, encode, fit
from carbon_exporter.sdk.due import Due, Place
from carbon_exporter.sdk.told_runs import ToldRuns
from carbon_exporter.units import Joules

__all__ = ["MOST_ROWS", "ToldRows"]

MOST_ROWS = 64
"""In one message, as the wire has it."""
_MOST_AMOUNT = 1e15
_MOST_VALUES = 8
_KINDS: Final[tuple[KindName, ...]] = get_args(KindName)
_HEX = re.compile("[0-9a-f]{1,32}")


class ToldRows:
    """What is due, on its way, and safe at the exporter. Not for use from several threads."""

    def __init__(self, own_job: str = "") -> None:
        """Nothing is due yet. `own_job` is this process's, which need not be told with each span."""
        self.own_job = own_job
        self._parts: dict[Place, dict[SpanKey, SpanTotal]] = {}
        """By span and job: regions and ranks are the exporter's to say, so a row is their sum."""
        self._spans, self._runs = Due(), ToldRuns()
        self._number = 0

    @property
    def due(self) -> bool:
        """Whether there is something to send."""
        return bool(self._spans) or bool(self._runs.due)

    @property
    def unsafe(self) -> frozenset[Place]:
        """Those with a total that the exporter may not have yet, spans or runs."""
        return self._spans.unsafe | self._runs.due.unsafe

    def note(self, totals: Mapping[SpanKey, SpanTotal]) -> None:
        """The account as it stands now; a total that is another object than before has changed."""
        for key, total in totals.items():
            place = (key.span, "" if key.job.name == self.own_job else key.job.name)
            parts = self._parts.setdefault(place, {})
            if parts.get(key) is not total:
                parts[key] = total
                self._spans.add(place)

    def note_runs(self, totals: Mapping[RunKey, RunTotal]) -> None:
        """The runs as they stand now."""
        self._runs.note(totals, self.own_job)

    def take(self) -> bytes | None:
        """The next message as a line, None if nothing is due. What is in it counts as sent."""
        if not self.due:
            return None
        places = self._spans.first(MOST_ROWS)
        rows, runs = [self._row(place) for place in places], self._runs.take(self._number + 1)
        while len(line := encode(Spans(self._number + 1, tuple(rows), runs))) > LONGEST_LINE and len(rows) > 1:
            del rows[len(rows) // 2 :]
        self._number += 1
        self._spans.send(places[: len(rows)], self._number)
        return line

    def seen(self, number: int) -> None:
        """The exporter holds the message of this number, and all before."""
        self._spans.seen(number)
        self._runs.due.seen(number)

    def lost(self) -> None:
        """The connection has broken: what was not seen is due again."""
        self._spans.lost()
        self._runs.due.lost()

    def trust(self) -> None:
        """The session ends: what the kernel has taken must do."""
        self._spans.trust()
        self._runs.due.trust()

    def _row(self, place: Place) -> SpanRow:
        totals = tuple(self._parts[place].values())
        trace = max((total.trace for total in totals if total.trace), key=lambda trace: trace.at, default=None)
        return SpanRow(
            fit(place[0]),
            {kind: joules for kind in _KINDS if (joules := _amount(total.joules.get(kind, 0.0) for total in totals))},
            _amount(total.seconds for total in totals),
            sum(total.count for total in totals),
            _values(totals),
            *_trace(trace),
            fit(place[1]),
        )


def _amount(parts: Iterable[float]) -> float:
    """Their sum within what the wire accepts: nothing here may get the session cut off."""
    return min(math.fsum(part for part in parts if 0 < part < math.inf), _MOST_AMOUNT)


def _values(totals: Iterable[SpanTotal]) -> dict[str, float]:
    values = {
        fit(name): float(value) for total in totals for name, value in total.values.items() if math.isfinite(value)
    }
    return dict(list(values.items())[:_MOST_VALUES])


def _trace(trace: Trace | None) -> tuple[str, str, Joules]:
    if trace is None or not (_HEX.fullmatch(trace.trace_id) and _HEX.fullmatch(trace.span_id)):
        return "", "", Joules(0.0)
    return trace.trace_id, trace.span_id, Joules(_amount([trace.joules]))
