"""A watch of pods that runs against a server of the test's, in step with the test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.apiserver import NODE, TOKEN, ApiServer, make_pod

from carbon_exporter.jobs.api_server import ApiAddress
from carbon_exporter.jobs.pod_watch import Pace, PodWatch

__all__ = ["BRISK", "address_of", "eventually", "following", "knows", "settled", "well"]

BRISK = Pace(first_pause=0.02, longest_pause=0.1, forbidden_pause=0.1, answer=10.0, gather=0.02, steady=0.2)
PATIENCE = 20.0


def eventually(condition: Callable[[], bool], what: str = "it") -> None:
    """Wait for what another thread does."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen"
        time.sleep(0.005)


@contextmanager
def following(
    address: ApiAddress, pace: Pace = BRISK, clock: Callable[[], float] = time.monotonic
) -> Iterator[PodWatch]:
    """One that has been started, closed at the end."""
    watch = PodWatch(address, NODE, pace=pace, clock=clock)
    watch.start()
    try:
        yield watch
    finally:
        watch.close()
        assert watch._thread is not None
        watch._thread.join(10)
        assert not watch._thread.is_alive()


def knows(watch: PodWatch, *names: str) -> None:
    """Wait until it knows these."""
    eventually(lambda: all(watch.by_name("default", name) is not None for name in names), f"{names}")


def well(watch: PodWatch) -> bool:
    """Whether it has no trouble."""
    return watch.health().success


def address_of(server: ApiServer, directory: Path) -> ApiAddress:
    """Where it is, without TLS; the file `token` in the directory holds one that it accepts."""
    file = directory / "token"
    file.write_text(f"{TOKEN}\n")
    return ApiAddress("127.0.0.1", server.port, file, tls=False)


@contextmanager
def settled(server: ApiServer, address: ApiAddress) -> Iterator[PodWatch]:
    """One that follows pods already: `first` is there."""
    server.put(make_pod("first"))
    with following(address) as running:
        eventually(lambda: len(server.watchers) == 1 and well(running))
        yield running
