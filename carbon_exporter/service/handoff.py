"""The hand-off: the node's scripts at their socket, and the pipeline, joined.

The socket's thread takes in what scripts say; here, on the sampling thread, they are named, their spans go into the
book, and they are answered. `attend` is called when somebody rings, `collect` and `report` before and after each tick.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from carbon_exporter.carbon.grid import Grid
from carbon_exporter.config import Settings
from carbon_exporter.jobs.base import Job, clean_name
from carbon_exporter.jobs.procfs import parse_cpu_times, parse_memory
from carbon_exporter.publish import handoff_wire as wire
from carbon_exporter.publish.handoff import HandoffServer
from carbon_exporter.publish.handoff_doors import default_socket
from carbon_exporter.publish.handoff_peer import Credentials, Peer
from carbon_exporter.sensors import model
from carbon_exporter.sensors.base import Host
from carbon_exporter.service.callers import Caller, CallerNamer, CallerReader, is_own_namespace, parent_of, started
from carbon_exporter.service.feed import Feed, device_rows
from carbon_exporter.service.peer_boards import boards_of
from carbon_exporter.service.pipeline import Pipeline
from carbon_exporter.service.sessions import Owner, Session

__all__ = ["Handoff"]

_log = logging.getLogger(__name__)
_SAVE_SECONDS = 0.2
"""How soon what an ended script has told is in the state file: it cannot tell it again."""
_LONGEST_RANK = 16
_FINEST_SECONDS = 0.1
"""A longer sdk.period is wished for: then slices are as long."""
_NO_BOARDS = wire.Boards(known=False, shares=())
_REMEDY = (
    "let the exporter see the host's processes (hostPID: true in Kubernetes, --pid=host in Docker), or give this job a "
    "socket of its own below the exporter's sdk.job-sockets and name it with CARBON_SDK_SOCKET"
)


class _Desk:
    """What the socket's thread asks."""

    def __init__(self, reader: CallerReader, feed: Feed, wake: Callable[[], None]) -> None:
        self._reader, self._feed, self._wake = reader, feed, wake

    def look(self, who: Credentials) -> Caller:
        """See `CallerReader`."""
        return self._reader.look(who.pid)

    def ring(self) -> None:
        """See `Desk`."""
        self._wake()

    def watch(self, on: bool) -> None:
        """See `Feed`."""
        self._feed.watch(on)

    def news(self) -> Sequence[bytes]:
        """See `Feed`."""
        return self._feed.lines()


class Handoff:
    """All scripts of a node. For the sampling thread."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        host: Host,
        pipeline: Pipeline,
        wake: Callable[[], None],
    ) -> None:
        """Nothing listens before `start`; `wake`, from any thread, lets the sampling thread call `attend`."""
        self._host, self._pipeline = host, pipeline
        self._period, self._size = settings.sdk_period, _size(host)
        coarse = settings.sdk_period > _FINEST_SECONDS
        self._feed = Feed(pipeline.crew, host.clock, lambda: model.probe(host, frozenset()), coarse=coarse)
        reader = CallerReader(host, pipeline.namer.variables)
        self._namer = CallerNamer(host, pipeline.namer, pipeline.observer)
        self._trusts_pids = is_own_namespace(host.procfs)
        path = _path(settings, environ)
        self._server = HandoffServer(
            path, _Desk(reader, self._feed, wake), rooms=settings.sdk_job_sockets, period=settings.sdk_period
        )
        self._grid: Grid | None = None
        self._boards: dict[Peer, wire.Boards] = {}
        self._unsafe: dict[Peer, int] = {}
        """The newest message of each peer that no state file holds yet."""
        self._save_at = float("inf")

    @property
    def peers(self) -> int | None:
        """Scripts that are connected; None where nobody listens for them."""
        return sum(peer.welcomed for peer in self._server.peers) if self._server.listens else None

    @property
    def refused(self) -> Mapping[str, int]:
        """Who was turned away, by reason."""
        return dict(self._server.refused) if self._server.listens else {}

    @property
    def due(self) -> float:
        """When `attend` is to be called though nobody rings, in monotonic seconds."""
        return self._save_at

    def start(self) -> None:
        """Begin to listen; to be called after the first tick."""
        self._server.start()

    def stop(self) -> None:
        """Hang up."""
        self._server.stop()

    def attend(self) -> None:
        """Name those who have said hello, take the last words of those who have left, and keep them safe."""
        now = self._host.clock()
        for peer in self._server.take():
            self._attend(peer, now)
        if now >= self._save_at:
            self._save_at = float("inf")
            if self._pipeline.save():
                self._acknowledge()

    def collect(self) -> None:
        """Before a tick: take what all have told."""
        self.attend()
        now, book = self._host.clock(), self._pipeline.spans
        for peer in self._server.peers:
            with _guarded():
                self._take(peer, now)
                if isinstance(peer.session, Session):
                    peer.session.at = now
                    book.see(peer.session.job, now)
        connected = {id(peer.session) for peer in self._server.peers}
        book.forget_sessions(lambda one: id(one) in connected or self._may_return(one, now))
        self._namer.note_look()

    def report(self, grid: Grid) -> None:
        """After a tick whose state was written: tell scripts what is news to them."""
        with _guarded():
            self._report(grid)

    def _report(self, grid: Grid) -> None:
        pipeline = self._pipeline
        self._feed.know(device_rows(pipeline.crew.devices, pipeline.qualities))
        self._feed.offer(pipeline.slices)
        if pipeline.is_safe:
            self._acknowledge()
        peers = [peer for peer in self._server.peers if peer.welcomed]
        if grid != self._grid:
            self._grid = grid
            for peer in peers:
                self._server.say(peer, wire.encode(_grid(grid)))
        if peers:
            self._tell_boards(peers)
        self._boards = {peer: told for peer, told in self._boards.items() if not peer.gone}

    def _attend(self, peer: Peer, now: float) -> None:
        with _guarded():
            if peer.session is None and peer.hello is not None:
                self._introduce(peer, peer.hello, now)
            if peer.gone and peer.has_told:
                self._take(peer, now, final=True)
                self._save_at = min(self._save_at, now + _SAVE_SECONDS)

    def _introduce(self, peer: Peer, hello: wire.Hello, now: float) -> None:
        """Find out whose it is, and welcome it or turn it away."""
        caller: Caller = peer.caller
        job, final, free = peer.door.job, True, False
        if job is None and (peer.credentials.pid == 0 or not self._trusts_pids):
            why = "the exporter cannot tell whose process this is: it is in another pid namespace"
            self._server.refuse(peer, "namespace", why, _REMEDY)
            return
        if job is None:
            job, final, free = self._job_of(caller, hello, now)
        door = str(peer.door.path) if peer.door.job else ""
        pid = caller.pid if self._trusts_pids else 0
        owner = Owner(peer.credentials.uid, pid, caller.started if pid else 0, door)
        rank = clean_name(hello.rank)[:_LONGEST_RANK]
        session = self._pipeline.spans.sessions.open(hello.session, owner, job, rank, now)
        if session is None:
            self._server.refuse(peer, "session", "this session is another process's", "choose one at random")
            return
        for other in self._server.peers:
            if other is not peer and other.session is session:
                self._take(other, now)
                other.session = False
                self._server.refuse(other, "session", "this session has connected again", "keep one connection")
        session.final, session.free, peer.session = final, free, session
        self._welcome(peer, job)

    def _welcome(self, peer: Peer, job: Job) -> None:
        pipeline = self._pipeline
        cpus, memory = self._size
        welcome = wire.Welcome(
            wire.VERSION,
            job.name,
            job.namespace,
            cpus,
            memory,
            pipeline.settings.idle,
            self._period,
            self._feed.devices,
        )
        self._boards[peer] = self._boards_of([peer])[peer]
        lines = (welcome, _grid(pipeline.grid), self._boards[peer])
        self._server.welcome(peer, *(wire.encode(line) for line in lines))

    def _job_of(self, caller: Caller, hello: wire.Hello, now: float) -> tuple[Job, bool, bool]:
        """Whose spans these are, whether that is the last word, and whether spans may be said to be others'."""
        found = self._namer.name(caller, now)
        own = clean_name(hello.job)
        return (Job(own) if own and not found.sure else found.job, found.final, found.free)

    def _take(self, peer: Peer, now: float, *, final: bool = False) -> None:
        """Put what it has told into the book; it waits while a directory may soon know its job's name."""
        session, hello = peer.session, peer.hello
        if not isinstance(session, Session) or hello is None or not peer.has_told:
            return
        if not session.final:
            session.job, session.final, session.free = self._job_of(peer.caller, hello, now)
            if not (session.final or final):
                return
        told, pipeline = peer.take(), self._pipeline
        wall = self._host.wall()
        rows, runs = told.rows.values(), told.runs.values()
        pipeline.spans.tell(session, rows, pipeline.grid, shows=pipeline.shows, now=now, wall=wall, runs=runs)
        if told.number >= 0 and not peer.gone:
            self._unsafe[peer] = max(told.number, self._unsafe.get(peer, -1))

    def _acknowledge(self) -> None:
        """The state file holds all that was taken."""
        unsafe, self._unsafe = self._unsafe, {}
        for peer, number in unsafe.items():
            self._server.say(peer, wire.encode(wire.Seen(number, self._sums(peer))))

    def _sums(self, peer: Peer) -> tuple[wire.RunSum, ...]:
        """What all ranks of its runs have used here."""
        session = peer.session
        if not isinstance(session, Session):
            return ()
        own = {clean_name(run) for run, job in session.runs if not job}
        return self._pipeline.spans.runs.sums(session.job, own)

    def _may_return(self, session: Session, now: float) -> bool:
        """Whether its process may connect again: as long as it lives; where we cannot see that, for a while."""
        if session.owner.pid:
            return started(self._host.procfs, session.owner.pid) == session.owner.started
        return now - session.at <= self._pipeline.settings.jobs_retain

    def _tell_boards(self, peers: Sequence[Peer]) -> None:
        for peer, boards in self._boards_of(peers).items():
            if self._boards.get(peer) != boards:
                self._boards[peer] = boards
                self._server.say(peer, wire.encode(boards))

    def _boards_of(self, peers: Sequence[Peer]) -> dict[Peer, wire.Boards]:
        """What each of them is to be told; who its process is must be known for that."""
        here = {*(peer for peer in self._server.peers if peer.welcomed), *peers}
        pids = {peer.caller.pid for peer in here if self._lives(peer.caller)}
        found = boards_of(pids, self._pipeline.occupancies, partial(parent_of, self._host.procfs))
        return {peer: found.get(peer.caller.pid, _NO_BOARDS) for peer in peers}

    def _lives(self, caller: Caller) -> bool:
        """Whether its number is still its own: a socket may outlive the process that opened it."""
        known = self._trusts_pids and caller.pid > 0
        return known and started(self._host.procfs, caller.pid) == caller.started


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Nothing that a script does may keep the exporter from its next sample; the log has the traceback."""
    try:
        yield
    except Exception:  # noqa: BLE001 - see above
        _log.exception("a script could not be heard")


def _path(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """Where to listen; nowhere by default while a recording is played, which is not this machine's energy."""
    if settings.sdk_socket != "auto":
        return settings.sdk_socket
    if settings.replay is not None:
        return None
    path = default_socket(environ)
    if path is None:
        _log.info("scripts: no place for a socket is writable; name one with --sdk.socket=PATH")
    return path


def _grid(grid: Grid) -> wire.Grid:
    i = grid.intensity
    return wire.Grid(grid.region, i.grams_per_kwh, grid.pue, i.provider, i.quality, i.source)


def _size(host: Host) -> tuple[int, float]:
    """CPUs and bytes of memory; what /proc does not tell is as Python sees it."""
    try:
        cpus = parse_cpu_times((host.procfs / "stat").read_bytes()).cpus
        return cpus, parse_memory((host.procfs / "meminfo").read_bytes()).total
    except (OSError, ValueError):
        return os.cpu_count() or 1, 0.0
