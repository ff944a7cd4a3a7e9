"""Spans to a Prometheus Pushgateway, for scripts that nothing can scrape and no exporter is near.

Each process has a group of its own: job, run, rank and instance (host and process), so that ranks do not overwrite each
other. A gateway puts a group's labels over those of what is pushed, so each further run of a process has another one.
What is put replaces its group: a run that the account does not list any more is put until its last total has arrived,
then left alone. At the end of a script its group stays, which is what a Pushgateway is for: the totals of a batch job
that has ended. Nobody but you deletes it (`curl -X DELETE URL`, or the gateway's page).
"""

from __future__ import annotations

import base64
import logging
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from carbon_exporter.carbon.grid import Grid
from carbon_exporter.carbon.runs import RunKey, RunTotal
from carbon_exporter.carbon.spans import SpanAccount
from carbon_exporter.publish.catalogue import utf8
from carbon_exporter.publish.prometheus import CONTENT_TYPES, Exposition
from carbon_exporter.sdk.base import Identity
from carbon_exporter.sdk.exposition import RUN_METRICS, SpanExposition
from carbon_exporter.sdk.own_grid import own_grid
from carbon_exporter.sdk.run_record import MOST_KEPT

__all__ = ["PushOutlet", "grouping_path"]

_log = logging.getLogger("carbon_exporter.sdk")

PERIOD = 5.0
"""Seconds between two pushes, at the least."""
TIMEOUT = 1.0
"""Seconds to connect, and for each piece of the answer."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_:-][A-Za-z0-9_.:-]*")
"""Label values that stand in a path as they are; `.` and `..` would be taken for folders."""


class PushOutlet:
    """Pushes what the account holds from a small thread of its own, for a network must not keep the sampler."""

    name = "pushgateway"

    def __init__(self, url: str, grid: Callable[[], Grid] = own_grid, period: float = PERIOD) -> None:
        """`url` is `http[s]://[USER:PASSWORD@]HOST[:PORT][/PATH]`; without a scheme it is `http`."""
        parts = _parts(url)
        self._base, self._credentials = _without_credentials(parts), _credentials(parts)
        self._grid = cache(grid)
        self._exposition = SpanExposition(self._grid)
        self._period = period
        self._identity = Identity("")
        self._list: Callable[[], Mapping[RunKey, RunTotal]] = dict
        self._others: Callable[[], Mapping[RunKey, RunTotal]] = dict
        self._listed: frozenset[RunKey] = frozenset()
        self._runs: Mapping[RunKey, RunTotal] = {}
        """Those listed, the process's own, and those whose last total has not arrived yet."""
        self._arrived: Mapping[RunKey, RunTotal] = {}
        """Of further runs."""
        self._thread: threading.Thread | None = None
        self._changed, self._closing = threading.Event(), threading.Event()
        self._due = self._warned = False

    def start(self, account: SpanAccount, identity: Identity) -> None:
        """Push this account from now on."""
        self._identity = identity
        self._list, self._others, account.runs = account.runs, account.other_runs, lambda: self._runs
        self._exposition.start(account, identity.run)
        self._thread = threading.Thread(target=self._run, name="carbon-push", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """The newest state is to be pushed, at the next time that it may be."""
        others, listed = self._others(), self._list()
        waiting = {key: total for key, total in self._runs.items() if self._arrived.get(key) != total}
        self._listed = frozenset(listed)
        self._runs = dict(list({**waiting, **others, **listed}.items())[-MOST_KEPT:])
        self._due = True
        self._changed.set()

    def close(self, patience: float) -> None:
        """Push the last state, and wait for that `patience` seconds at most. The group stays at the gateway."""
        self._closing.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join(patience)

    def _run(self) -> None:
        """Push what has changed, not more often than allowed, and once more at the end."""
        import requests  # noqa: F401, PLC0415 - takes long, and is better not paid for at the end

        while not self._closing.is_set():
            self._changed.wait()
            self._changed.clear()
            while self._due and not self._closing.is_set():
                self._push()
                self._closing.wait(self._period)
        if self._due:
            self._push()

    def _push(self) -> None:
        """One try; what failed stays due."""
        self._due = False
        trouble = self._put()
        if trouble:
            self._due = True
            if not self._warned:
                self._warned = True
                _log.warning("the Pushgateway at %s does not take spans: %s; it is tried again", self._base, trouble)

    def _put(self) -> str:
        """Empty if all groups arrived."""
        own, runs, listed = self._identity.run, self._runs, self._listed
        trouble = self._put_group(own, self._exposition.latest())
        further: dict[str, dict[RunKey, RunTotal]] = {}
        for key, total in runs.items() if own else ():
            if key.run != own:
                further.setdefault(key.run, {})[key] = total
        self._arrived = {key: total for key, total in self._arrived.items() if key in runs}
        for run, totals in further.items():
            if not trouble and (not listed.isdisjoint(totals) or totals.items() - self._arrived.items()):
                trouble = self._put_group(run, self._rendered(totals))
                self._arrived = self._arrived if trouble else {**self._arrived, **totals}
        return trouble

    def _rendered(self, totals: Mapping[RunKey, RunTotal]) -> tuple[object, Exposition] | None:
        """These totals as they stand here: the account may let go of them meanwhile, and an empty page would erase."""
        alone, exposition = SpanAccount(), SpanExposition(self._grid, RUN_METRICS)
        alone.runs = lambda: totals
        exposition.start(alone)
        return exposition.latest()

    def _put_group(self, run: str, latest: tuple[object, Exposition] | None) -> str:
        """Empty if it arrived. No text of the library leaves here, for it may quote credentials."""
        import requests  # noqa: PLC0415 - only who pushes pays for it
        from requests.auth import HTTPBasicAuth  # noqa: PLC0415

        if latest is None:
            return ""
        group = grouping_path(replace(self._identity, run=run), f"{socket.gethostname()}:{os.getpid()}")
        _stay_untraced()
        try:
            with requests.put(
                f"{self._base}/metrics/{group}",
                data=latest[1].page("text", compressed=False),
                headers={"Content-Type": CONTENT_TYPES["text"]},
                auth=HTTPBasicAuth(*self._credentials) if self._credentials else None,
                timeout=TIMEOUT,
                allow_redirects=False,
                stream=True,
            ) as answer:
                return "" if 200 <= answer.status_code < 300 else f"it answers {answer.status_code}"  # noqa: PLR2004
        except (OSError, ValueError) as error:  # requests' own are both
            return type(error).__name__


def _stay_untraced() -> None:
    """An application whose HTTP requests are traced did not make this one."""
    if "opentelemetry.context" in sys.modules:
        from opentelemetry.context import attach, set_value  # noqa: PLC0415 - loaded already, by the application

        attach(set_value("suppress_instrumentation", True))


def grouping_path(identity: Identity, instance: str) -> str:
    """The labels of a process's group as a Pushgateway wants them in its URL: `job/train/rank/0/instance/n7:412`."""
    labels = {"job": identity.job or "script", "run": identity.run, "rank": identity.rank, "instance": instance}
    return "/".join(_segments(labels))


def _segments(labels: dict[str, str]) -> Iterator[str]:
    for name, value in labels.items():
        if _PLAIN.fullmatch(value):
            yield f"{name}/{value}"
        elif value:
            yield f"{name}@base64/{base64.urlsafe_b64encode(utf8(value).encode()).decode()}"


def _parts(url: str) -> SplitResult:
    """An address that cannot be one is tried all the same, and then logged as any that does not answer."""
    try:
        return urlsplit(url if "://" in url else f"http://{url}")
    except ValueError:
        return SplitResult("http", "", "", "", "")


def _without_credentials(parts: SplitResult) -> str:
    """The gateway's address as it may be logged."""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def _credentials(parts: SplitResult) -> tuple[bytes, bytes] | None:
    if not parts.username and not parts.password:
        return None
    return unquote(parts.username or "").encode(), unquote(parts.password or "").encode()
