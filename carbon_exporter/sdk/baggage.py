"""Baggage: job and run for the processes that a run starts and the workers that it calls.

W3C's Baggage carries them: as OpenTelemetry's baggage, where that is loaded, over every call that it propagates; and in
the environment, as `BAGGAGE` and `TRACEPARENT` (OpenTelemetry, "Environment Variables as Context Propagation Carriers")
and `CARBON_RUN`, to whatever is started meanwhile. The environment is put back when the run ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

__all__ = ["JOB", "RUN", "Carried", "baggage_of", "current_baggage"]

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


class Carried:
    """Job and run in the environment, and in OpenTelemetry's context, from `take_up` to `put_down`."""

    def __init__(self, job: str, run: str, environ: MutableMapping[str, str] | None = None) -> None:
        """An empty job is left out. `environ` is this process's by default."""
        self._told = {name: value for name, value in ((JOB, job), (RUN, run)) if value}
        self._environ = os.environ if environ is None else environ
        self._before: dict[str, str | None] = {}
        self._token: Any = None

    def take_up(self) -> None:
        """What is started from now on knows of the run."""
        for name, value in self.variables().items():
            self._before[name] = self._environ.get(name)
            self._environ[name] = value
        self._attach()

    def put_down(self) -> None:
        """As it was before."""
        made, self._before = self._before, {}
        for name, before in made.items():
            if before is None:
                self._environ.pop(name, None)
            else:
                self._environ[name] = before
        token, self._token = self._token, None
        if token is not None:
            sys.modules["opentelemetry.context"].detach(token)

    def variables(self) -> dict[str, str]:
        """The environment for a worker that does not inherit this one, such as a Ray task's `env_vars`."""
        entries = {name: quote(value, safe="") for name, value in self._told.items()}
        others = [
            member
            for member in self._environ.get("BAGGAGE", "").split(",")
            if member.strip() and member.partition("=")[0].strip() not in entries
        ]
        text = ",".join([*others, *(f"{name}={value}" for name, value in entries.items())])
        variables = {"CARBON_RUN": self._told.get(RUN, ""), "BAGGAGE": text if len(text) <= _LONGEST else ""}
        parent = _traceparent()
        if parent:
            variables["TRACEPARENT"] = parent
        return {name: value for name, value in variables.items() if value}

    def _attach(self) -> None:
        if _TRACE not in sys.modules:
            return
        from opentelemetry import baggage, context  # noqa: PLC0415 - loaded already, by the application

        changed = context.get_current()
        for name, value in self._told.items():
            changed = baggage.set_baggage(name, value, changed)
        self._token = context.attach(changed)


def _traceparent() -> str:
    """W3C's, of the span that is open here; empty if there is none."""
    api = sys.modules.get(_TRACE)
    if api is None:
        return ""
    known = api.get_current_span().get_span_context()
    return f"00-{known.trace_id:032x}-{known.span_id:016x}-{int(known.trace_flags):02x}" if known.is_valid else ""
