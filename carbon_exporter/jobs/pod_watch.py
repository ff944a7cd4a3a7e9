"""Directory: this node's pods, by one list and then a watch that tells each change (Kubernetes' API concepts).

It needs the verbs list and watch on pods, and asks for nothing else. A watch that ends goes on from the last
version it told; only a version that the server no longer has (410 Gone) costs a new list.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from carbon_exporter.errors import JobResolutionError
from carbon_exporter.jobs.api_server import (
    BAD_REQUEST,
    FORBIDDEN,
    GONE,
    Answer,
    ApiAddress,
    ApiClient,
    ApiRefusal,
    Lines,
)
from carbon_exporter.jobs.base import ResolverHealth
from carbon_exporter.jobs.pod_index import PodIndex
from carbon_exporter.jobs.pods import Event, Page, decode_event, decode_page
from carbon_exporter.jobs.workload import Pod

__all__ = ["Pace", "PodWatch"]

PATH = "/api/v1/pods"
PAGE, MOST_PAGES = 500, 16
MOST_PAGE_BYTES = 64 << 20
LONGEST_LINE = 4 << 20
"""A pod is stored in 1.5 MiB at most; as JSON it is longer."""
MOST_NONSENSE = 3
"""After so many answers in a row that make no sense, the version is given up as one that the server cannot follow."""
AT_ONCE_SECONDS = 0.001
MOST_TOLD = 8
"""Log lines until it is well again, each of another reason."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient it is, in seconds."""

    first_pause: float = 1.0
    """After a failure; doubled with each in a row, and made up to a half shorter by chance."""
    longest_pause: float = 30.0
    forbidden_pause: float = 60.0
    """Until a role is looked for again."""
    answer: float = 30.0
    """For an answer to begin."""
    page: float = 60.0
    """For all of a page."""
    watch: float = 290.0
    """After which the server is asked to end a watch, and up to a tenth more: not all nodes at once."""
    watch_slack: float = 15.0
    """How much longer it may take."""
    gather: float = 0.25
    """How long changes may gather after the first of them."""
    steady: float = 10.0
    """A watch that held so long was a good one, however it ends; one that ends earlier without a word is a failure."""


class _Broken(JobResolutionError):
    """A watch that began well and failed."""


class _Nonsense(_Broken):
    """It told something that is no event, or an error."""


class _Expired(_Broken):
    """The server no longer has the version."""


class PodWatch:
    """Lookups are for any thread, and never wait."""

    name = "pods"

    def __init__(
        self, api: ApiAddress, node: str, *, clock: Callable[[], float] = time.monotonic, pace: Pace | None = None
    ) -> None:
        """`node` is this node's name in the cluster; `clock` gives monotonic seconds, for how long a pod is gone."""
        self._node = node
        self._clock = clock
        self._pace = pace or Pace()
        self._client = ApiClient(api, self._pace.answer)
        self._index = PodIndex()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._version = ""
        self._consistent = False
        """Whether the next list must be the newest there is, not what a server has at hand."""
        self._failures = 0
        """In a row."""
        self._nonsense = 0
        """Of them, those that a new list may mend."""
        self._wary = False
        """The last failure was in a watch that began well: the next must do more than begin."""
        self._unreadable = 0
        self._trouble: JobResolutionError | None = JobResolutionError("this node's pods are not known yet")
        self._told: set[str] = set()
        """What the log knows of it."""
        self.synced = False
        """Whether there was a first full list."""

    @property
    def revision(self) -> int:
        """Rises with each change of what is known."""
        return self._index.revision

    def by_uid(self, uid: str) -> Pod | None:
        """The pod of this uid, as the API or as the control group's path has it."""
        return self._index.by_uid(uid)

    def by_name(self, namespace: str, name: str) -> Pod | None:
        """The pod of this name: the living one, else the last that is gone."""
        return self._index.by_name(namespace, name)

    def by_container(self, container_id: str) -> Pod | None:
        """The pod that a container of this id (64 hex digits) is part of."""
        return self._index.by_container(container_id)

    def is_gone(self, uid: str) -> bool:
        """Whether this pod is known, and is no more: it stays known for ten minutes."""
        return self._index.is_gone(uid)

    @property
    def refused(self) -> bool:
        """Whether the API server does not let pods be read, and has never told of any."""
        trouble = self._trouble
        return not self.synced and isinstance(trouble, ApiRefusal) and trouble.status == FORBIDDEN

    def start(self) -> None:
        """Begin to ask; once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name="pods", daemon=True)
            self._thread.start()

    def health(self) -> ResolverHealth:
        """Whether the pods are known as they are now."""
        trouble, unreadable = self._trouble, self._unreadable
        if trouble is None and unreadable:
            trouble = JobResolutionError(
                f"{unreadable} pods, or changes of them, could not be read since the last list"
            )
        if trouble is None:
            return ResolverHealth(self.name, success=True)
        return ResolverHealth(self.name, success=False, reason=trouble.reason, remedy=trouble.remedy)

    def close(self) -> None:
        """Stop asking; what is known stays."""
        self._closing.set()
        self._client.close()

    def _follow(self) -> None:
        """The thread: ends at `close`, and at nothing else."""
        while not self._closing.is_set():
            error = self._trial()
            if error is not None:
                self._closing.wait(self._failed(error))

    def _trial(self) -> JobResolutionError | None:
        """One watch, and a list before it if there must be one; what ended it, None if it was time."""
        try:
            if not self._version:
                self._list()
            self._watch()
        except JobResolutionError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is costs these facts only; the log has the traceback
            _log.exception("pods: failed in a way it should not")
            return JobResolutionError(f"failed in a way it should not: {type(error).__name__}")
        return None

    def _list(self) -> None:
        """Learn all of them. What a server has at hand will do: it need not read the whole cluster from its store."""
        query = {"fieldSelector": f"spec.nodeName={self._node}", "limit": str(PAGE)}
        if not self._consistent:
            query["resourceVersion"] = "0"
        pages = [self._page(query)]
        query.pop("resourceVersion", None)  # the next page is of the same version anyway, and it may not be said
        while pages[-1].more and len(pages) < MOST_PAGES:
            pages.append(self._page({**query, "continue": pages[-1].more}))
        left_out = self._index.replace((pod for page in pages for pod in page.pods), self._clock())
        self._unreadable = 0
        self._miss(left_out + sum(page.unreadable for page in pages) + bool(pages[-1].more))
        self._version = pages[-1].version
        self._publish()
        self.synced = True

    def _page(self, query: dict[str, str]) -> Page:
        with self._client.get(PATH, query, self._pace.page) as answer:
            return decode_page(answer.body(MOST_PAGE_BYTES), self._node)

    def _watch(self) -> None:
        """Follow the changes until the server ends the watch. Raises `JobResolutionError`."""
        seconds = self._pace.watch * random.uniform(1.0, 1.1)  # noqa: S311 - a moment
        query = {
            "fieldSelector": f"spec.nodeName={self._node}",
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        with self._client.get(PATH, query, seconds + self._pace.watch_slack) as answer:
            began, told = time.monotonic(), False
            if not self._wary:
                self._well()
            try:
                for lines in self._lines(answer):
                    self._take(lines)
                    told = True
                if not told and time.monotonic() - began < self._pace.steady:
                    raise _Broken("the API server ends each watch at once")
            except _Nonsense:
                raise
            except JobResolutionError as error:
                if time.monotonic() - began >= self._pace.steady:
                    self._progress()
                raise error if isinstance(error, _Broken) else _Broken(error.reason, remedy=error.remedy) from None
        self._progress()

    def _lines(self, answer: Answer) -> Iterator[list[bytes]]:
        """As they come; a line that is too long is a pod that cannot be read.

        Who had to wait for one leaves time for more to gather, because a thread that wakes for each costs the most.
        """
        lines, asked = Lines(LONGEST_LINE), time.monotonic()
        for piece in answer.pieces():
            waited = time.monotonic() - asked > AT_ONCE_SECONDS
            whole = lines.feed(piece)
            self._miss(lines.skipped)
            lines.skipped = 0
            if lines.pending > MOST_PAGE_BYTES:
                raise _Nonsense("the API server tells a line without an end")
            if whole:
                yield whole
            if waited:
                self._closing.wait(self._pace.gather)
            asked = time.monotonic()

    def _take(self, lines: list[bytes]) -> None:
        """Learn what these lines tell. Raises `_Broken`; what came before in them is learnt."""
        try:
            for line in lines:
                self._apply(_event(line, self._node))
                self._progress()
        finally:
            self._publish()

    def _apply(self, event: Event) -> None:
        if event.kind == "ERROR":
            if event.code == GONE:
                raise _Expired("the API server no longer has the changes since then")
            raise _Nonsense(f"the API server breaks a watch off with an error (code {event.code})")
        self._miss(event.unreadable)
        if event.pod is not None and event.kind == "DELETED":
            self._index.remove(event.pod, self._clock())
        elif event.pod is not None:
            self._miss(not self._index.put(event.pod, self._clock()))
        self._version = event.version or self._version

    def _publish(self) -> None:
        self._index.purge(self._clock())
        self._index.publish()

    def _miss(self, count: int) -> None:
        """So many pods are not known that should be."""
        if count and not self._unreadable:
            _log.warning("pods: the API server tells of one that cannot be read, or of more than there is room for")
        self._unreadable += count

    def _well(self) -> None:
        self._trouble = None
        if self._told:
            _log.info("pods: this node's pods are followed again")
            self._told.clear()

    def _progress(self) -> None:
        self._well()
        self._failures = self._nonsense = 0
        self._consistent = False

    def _failed(self, error: JobResolutionError) -> float:
        """Note a failure; returns how long to wait, in seconds.

        The first one after progress is no trouble: connections end, tokens and versions age, and the next goes on.
        """
        refusal = error if isinstance(error, ApiRefusal) else None
        first, self._failures = self._failures == 0, self._failures + 1
        self._wary = isinstance(error, _Broken)
        self._nonsense += isinstance(error, _Nonsense) or (refusal is not None and refusal.status == BAD_REQUEST)
        if isinstance(error, _Expired) or (refusal and refusal.status == GONE) or self._nonsense >= MOST_NONSENSE:
            self._version, self._consistent, self._nonsense = "", not first, 0
        forbidden = refusal is not None and refusal.status == FORBIDDEN
        if not self._closing.is_set() and (forbidden or not first or not self.synced):
            self._trouble = error
            if error.reason not in self._told and len(self._told) < MOST_TOLD:
                self._told.add(error.reason)
                _log.warning("pods: %s", error)
        pause = min(self._pace.longest_pause, self._pace.first_pause * 2.0 ** min(self._failures - 1, 16))
        pause = (self._pace.forbidden_pause if forbidden else pause) * random.uniform(0.5, 1.0)  # noqa: S311 - a moment
        return max(pause, refusal.pause if refusal else 0.0)


def _event(line: bytes, node: str) -> Event:
    try:
        return decode_event(line, node)
    except JobResolutionError as error:
        raise _Nonsense(error.reason) from None
