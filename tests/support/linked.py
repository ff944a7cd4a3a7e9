"""A link to a small real exporter, and what a sampler and a tracker do with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from support.handoff_peer import HandoffPeer, hello
from support.waiting import until

from carbon_exporter.carbon.spans import SpanAccount, SpanEntry, SpanKey
from carbon_exporter.energy.ledger import EnergySlice
from carbon_exporter.jobs.base import Job
from carbon_exporter.sdk.base import Identity
from carbon_exporter.sdk.exporter_link import ExporterLink
from carbon_exporter.units import Joules

__all__ = ["ME", "linked", "looking", "post", "slices", "telling"]

ME = Identity("mine", "", "r1", "0")


@contextmanager
def linked(peer: HandoffPeer, account: SpanAccount | None = None, **changes: Any) -> Iterator[ExporterLink]:
    """A link that is connected and tells of an account."""
    link = ExporterLink(peer.path, lambda: hello(**changes))
    assert link.connect()
    link.start(account or SpanAccount(), ME)
    try:
        yield link
    finally:
        link.close(0.2)


def post(account: SpanAccount, span: str, joules: float = 1.0) -> None:
    """A span that has ended."""
    account.post(SpanEntry(SpanKey(Job("mine"), "FR", span), {"cpu": Joules(joules)}, seconds=0.5, ended=1))


def looking(link: ExporterLink, reached: Callable[[], object]) -> None:
    """Look in, as the sampler does, until something is so."""
    until(lambda: (*link.read(), reached())[-1])


def telling(link: ExporterLink, reached: Callable[[], object]) -> None:
    """Tell, as a tracker does, until something is so."""

    def told() -> object:
        link.tell()
        return reached()

    until(told, 30)


def slices(link: ExporterLink) -> list[EnergySlice]:
    """What comes next, once something does."""
    found: list[EnergySlice] = []
    until(lambda: found.extend(link.read()) or found)  # type: ignore[func-returns-value]
    return found
