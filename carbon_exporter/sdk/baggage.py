"""Baggage: job and run for the processes that a run starts and the workers that it calls.

W3C's Baggage carries them: as OpenTelemetry's baggage, where that is loaded, over every call that it propagates; and in
the environment, as `BAGGAGE` and `TRACEPARENT` (OpenTelemetry, "Environment Variables as Context Propagation Carriers")
and `CARBON_RUN`, to whatever is started meanwhile. Runs may overlap in any order: the environment, which all threads
share, tells of the newest that is open, and is put back when the last one ends.
"""

from __future__ import annotations

import os
import sys
from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from threading import RLock
from urllib.parse import quote, unquote

__all__ = ["JOB", "RUN", "Carried", "baggage_of", "current_baggage", "own_environment"]

JOB, RUN = "carbon.job.name", "carbon.run"
_LONGEST = 8192
"""Bytes of a header, as the recommendation has it; a longer one is not read, and not made longer."""
_API, _TRACE = "opentelemetry.baggage", "opentelemetry.trace"


def baggage_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The entries of `BAGGAGE`, without their properties; what is malformed is left out."""
    text = environ.get("BAGGAGE", "")
    found: dict[str, str] = {}
    for member in text.split(",") if len(text) <= _LONGEST else ():
        name, equals, value = member.partition(";")[0].partition("=")
        if equals and name.strip():
            found[name.strip()] = unquote(value.strip())
    return found


def current_baggage() -> dict[str, str]:
    """What OpenTelemetry carries here now; nothing where it is not loaded."""
    api = sys.modules.get(_API)
    if api is None:
        return {}
    return {name: str(value) for name, value in api.get_all().items() if name in {JOB, RUN}}


def own_environment() -> Mapping[str, str]:
    """This process's environment as it was given, without what open runs have put there."""
    return _ours.untouched()


class _Environment:
    """What the environment says of runs: of the newest that is open, else what it said before the first."""

    _NAMES = ("CARBON_RUN", "BAGGAGE", "TRACEPARENT")

    def __init__(self, variables: MutableMapping[str, str]) -> None:
        self._variables = variables
        self.forget()

    def forget(self) -> None:
        """In a forked child: what the parent's runs have put there is what the child was given."""
        self._lock = RLock()  # re-entrant: a signal's handler may open a run
        self._open: dict[Carried, Mapping[str, str]] = {}
        self._before: dict[str, str | None] = {}

    def enter(self, carried: Carried) -> None:
        with self._lock:
            told = carried.variables()
            if not self._open:
                self._before = {name: self._variables.get(name) for name in self._NAMES}
            self._open[carried] = told
            self._put()

    def leave(self, carried: Carried) -> None:
        with self._lock:
            if self._open.pop(carried, None) is not None:
                self._put()

    def untouched(self) -> ChainMap[str, str]:
        with self._lock:
            before = self._before if self._open else {}
            return ChainMap({name: value or "" for name, value in before.items()}, self._variables)

    def _put(self) -> None:
        newest: Mapping[str, str] = next(reversed(self._open.values()), {})
        for name, before in self._before.items():
            value = newest.get(name, before)
            if value is not None:
                self._variables[name] = value
            else:
                self._variables.pop(name, None)


class Carried:
    """Job and run in the environment, and in OpenTelemetry's context, from `take_up` to `put_down`."""

    def __init__(
        self, job: str, run: str, environ: MutableMapping[str, str] | None = None, above: Carried | None = None
    ) -> None:
        """An empty job is left out. `environ` is this process's by default; `above` is that of the run around it."""
        self._told = {name: value for name, value in ((JOB, job), (RUN, run)) if value}
        self._environment = _ours if environ is None else _Environment(environ)
        self._above, self._is_open = above, False
        self._outside: Mapping[str, str] = {}
        """OpenTelemetry's baggage before the outermost of the runs around it."""

    def take_up(self) -> None:
        """What is started from now on knows of the run."""
        self._is_open = True
        self._environment.enter(self)
        self._outside = self._above._outside if self._above else current_baggage()  # noqa: SLF001 - of its own kind
        _attach(self._told)

    def put_down(self) -> None:
        """As it was before, or as the runs that are still open have it."""
        self._is_open = False
        self._environment.leave(self)
        if current_baggage().get(RUN) != self._told.get(RUN):
            return  # it ended before one that began later, or in another context than it began in
        above = self._above
        while above is not None and not above._is_open:  # noqa: SLF001 - likewise
            above = above._above  # noqa: SLF001 - likewise
        _attach(above._told if above else self._outside)  # noqa: SLF001 - likewise

    def environ(self) -> Mapping[str, str]:
        """This process's environment as a run that is opened within is to see it."""
        return self._environment.untouched().new_child(self.variables())

    def variables(self) -> dict[str, str]:
        """The environment for a worker that does not inherit this one, such as a Ray task's `env_vars`."""
        entries = {name: quote(value, safe="") for name, value in self._told.items()}
        others = [
            member
            for member in self._environment.untouched().get("BAGGAGE", "").split(",")
            if member.strip() and member.partition("=")[0].strip() not in entries
        ]
        text = ",".join([*others, *(f"{name}={value}" for name, value in entries.items())])
        variables = {"CARBON_RUN": self._told.get(RUN, ""), "BAGGAGE": text if len(text) <= _LONGEST else ""}
        parent = _traceparent()
        if parent:
            variables["TRACEPARENT"] = parent
        return {name: value for name, value in variables.items() if value}


def _attach(told: Mapping[str, str]) -> None:
    """OpenTelemetry's baggage has this job and run from now on here, or none."""
    if _TRACE not in sys.modules:
        return
    from opentelemetry import baggage, context  # noqa: PLC0415 - loaded already, by the application

    changed = context.get_current()
    for name in (JOB, RUN):
        value = told.get(name)
        changed = baggage.set_baggage(name, value, changed) if value else baggage.remove_baggage(name, changed)
    context.attach(changed)


def _traceparent() -> str:
    """W3C's, of the span that is open here; empty if there is none."""
    api = sys.modules.get(_TRACE)
    if api is None:
        return ""
    known = api.get_current_span().get_span_context()
    return f"00-{known.trace_id:032x}-{known.span_id:016x}-{int(known.trace_flags):02x}" if known.is_valid else ""


_ours = _Environment(os.environ)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ours.forget)
