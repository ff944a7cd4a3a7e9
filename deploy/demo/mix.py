"""Who ran on the synthetic cluster: jobs from ten minutes to five days, bursts, idle boards, and what nobody owns.

Everything comes from one seed. Jobs wait for free boards, as in a queue; what no job holds is idle.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from deploy.demo.cluster import IDLE, UNATTRIBUTED, Device, Job, Node, Scenario, Training, Use, Window

__all__ = ["scenario"]

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
UNKNOWN_EVERY = 5
"""Of so many gaps between the jobs of one board, in one somebody unknown is on it."""
_GPU_IDLE, _CPU_IDLE, _DRAM_IDLE = 62.0, 85.0, 14.0
"""Watts of a device that nobody uses."""
WORK = (8, 19)
"""The hours of a day in which people start jobs."""
_TEAMS = (("", "mia"), ("nlp", "noor"), ("vision", "vera"))
_MODELS = (("resnet50", "imagenet", 256), ("vit-b16", "imagenet", 512), ("bert-base", "wikipedia", 128))


def scenario(start: float, days: float = 30, *, boards: int = 8, seed: int = 2026) -> Scenario:
    """Two nodes with `boards` GPUs each for `days` from Unix time `start` on, a multiple of five minutes."""
    seconds = days * DAY
    nodes = (_node("node-a", "DE", boards, 3.0, seconds), _node("node-b", "SE", boards, 17.0, seconds))
    queue = _Queue(random.Random(seed), nodes, seconds)  # noqa: S311 - reproducible, not secret
    queue.fill()
    uses = [use for job in queue.jobs for use in _uses(job, nodes, queue.random)]
    uses += [use for node in nodes for use in _nobodys(node, uses, seconds)]
    cut = [part for use in uses for part in _powered(use, nodes)]
    return Scenario(start, seconds, nodes, tuple(queue.jobs), tuple(sorted(cut, key=lambda use: use.start)))


def _node(name: str, region: str, boards: int, offset: float, seconds: float) -> Node:
    """Node a restarts its exporter and reboots; node b gets a new address."""
    devices = (
        *(Device(f"gpu{n}", "gpu", "NVIDIA", "NVIDIA A100-SXM4-80GB", 400.0) for n in range(boards)),
        *(Device(f"cpu{n}", "cpu", "AMD", "AMD EPYC 7543", 225.0) for n in range(2)),
        Device("dram0", "dram", "", "", 80.0),
    )
    node = Node(name, region, devices, offset)
    if name == "node-b":
        return replace(node, renamed_at=0.7 * seconds)
    restart, reboot = 0.3 * seconds, 0.55 * seconds
    return replace(node, restarts=((restart, restart + 3 * MINUTE),), reboots=((reboot, reboot + 12 * MINUTE),))


@dataclass(slots=True)
class _Queue:
    """First come, first served: a job starts where enough boards are free."""

    random: random.Random
    nodes: tuple[Node, ...]
    seconds: float
    jobs: list[Job] = field(default_factory=list)
    _free: dict[tuple[str, str], float] = field(default_factory=dict)
    """When each board is free again."""

    def fill(self) -> None:
        """Until the end of the history."""
        both = tuple(node.name for node in self.nodes)
        wide = max(1, len(self._boards(both[0])) // 2)
        start = 0.05 * self.seconds
        length = min(5 * DAY, 0.6 * self.seconds)
        llm = Training("gpt-1b3", "pile", 512, 30 * MINUTE)
        self._add("llm-pretrain", ("nlp", "noor"), (start, length), (both, wide), llm)
        self._add("notebook-mia", ("", "mia"), (0.1 * self.seconds, length / 2), (both[:1], 1))
        self._repeated("nightly-eval", 2 * HOUR, DAY, 45 * MINUTE)
        self._repeated("weekly-report", 5 * HOUR, 7 * DAY, 30 * MINUTE)
        self._crowd()

    def _repeated(self, name: str, first: float, every: float, length: float) -> None:
        """A job that returns; after less than a day its counters go on, later they begin at 0."""
        for start in range(int(first), int(self.seconds - length), int(every)):
            self._add(name, ("vision", "vera"), (float(start), length), ((self.nodes[1].name,), 0))

    def _crowd(self) -> None:
        """Bursts of jobs: many in working hours, few at night, the longest a day."""
        arrival, number = 20 * MINUTE, 0
        while arrival < self.seconds - 2 * HOUR:
            number += 1
            length = self.random.choice((10, 15, 25, 40, 70, 90, 150, 240, 480, 1440)) * MINUTE
            length = min(length, self.seconds / 6, self.seconds - arrival - HOUR)
            node = self.random.choice(self.nodes).name
            boards = self.random.choice((0, 1, 1, 2, 2, 4)) if length > 12 * MINUTE else 1
            training = self._training(length) if boards and length > HOUR else None
            kind = training.model if training else "etl" if not boards else "eval"
            self._add(f"{kind}-{number}", self.random.choice(_TEAMS), (arrival, length), ((node,), boards), training)
            busy = WORK[0] <= arrival / HOUR % 24 < WORK[1]
            arrival += self.random.expovariate(1 / ((45 if busy else 150) * MINUTE))

    def _training(self, length: float) -> Training:
        return Training(*self.random.choice(_MODELS), max(5 * MINUTE, length / 20))

    def _add(
        self,
        name: str,
        team: tuple[str, str],
        at: Window,
        on: tuple[Sequence[str], int],
        training: Training | None = None,
    ) -> None:
        """As soon as the boards are free, if that is soon. `at`: start and length; `on`: nodes, and boards of each."""
        (start, length), (nodes, boards) = at, on
        boards = min(boards, *(len(self._boards(node)) for node in nodes))
        begin = max((start, *(self._free_at(node, boards) for node in nodes)))
        begin, end = self._clear(begin), self._clear(begin + length)
        if end > self.seconds - 30 * MINUTE or begin > start + 4 * HOUR:
            return
        held = tuple((node, self._take(node, boards, end)) for node in nodes)
        self.jobs.append(Job(name, *team, 4000 + len(self.jobs), begin, end, held, training))

    def _boards(self, node: str) -> list[tuple[str, str]]:
        """All boards of a node, the one that is free first at first."""
        devices = next(each for each in self.nodes if each.name == node).devices
        keys = [(node, device.name) for device in devices if device.kind == "gpu"]
        return sorted(keys, key=lambda key: self._free.get(key, 0.0))

    def _free_at(self, node: str, boards: int) -> float:
        return self._free.get(self._boards(node)[boards - 1], 0.0) if boards else 0.0

    def _take(self, node: str, boards: int, end: float) -> tuple[str, ...]:
        taken = self._boards(node)[:boards]
        self._free.update(dict.fromkeys(taken, end + 2 * MINUTE))
        return tuple(sorted(board for _, board in taken))

    def _clear(self, t: float) -> float:
        """Nothing starts or ends while a node is away: who drained it waited."""
        for node in self.nodes:
            for begin, end in (*node.restarts, *node.reboots):
                if begin - 10 * MINUTE <= t < end + 10 * MINUTE:
                    return end + 11 * MINUTE
        return t


def _uses(job: Job, nodes: Sequence[Node], source: random.Random) -> Iterator[Use]:
    """What a job draws: its boards wholly, and a part of its nodes' CPUs and memory."""
    period = source.choice((300.0, 840.0, 1500.0))
    duty = source.uniform(0.5, 0.9)
    for node, boards in job.boards:
        busy = 66.0 if job.name.startswith("notebook") else source.uniform(210.0, 385.0)
        for board in boards:
            yield Use(job.name, job.namespace, node, board, job.start, job.end, busy, 0.3 * busy, period, duty)
        for device in next(each for each in nodes if each.name == node).devices:
            if device.kind != "gpu":
                watts = (10.0 if device.kind == "cpu" else 2.0) * (1 + len(boards) / 2)
                yield Use(
                    job.name, job.namespace, node, device.name, job.start, job.end, watts, watts / 2, period, duty
                )


def _nobodys(node: Node, uses: Sequence[Use], seconds: float) -> Iterator[Use]:
    """The idle part of each device, and work without an owner."""
    for device in node.devices:
        if device.kind != "gpu":
            idle = _CPU_IDLE if device.kind == "cpu" else _DRAM_IDLE
            yield Use(IDLE, "", node.name, device.name, 0.0, seconds, idle, idle * 0.9, HOUR)
            yield Use(UNATTRIBUTED, "", node.name, device.name, 0.0, seconds, idle * 0.3, idle * 0.02, DAY, 0.35)
            continue
        held = [(use.start, use.end) for use in uses if (use.node, use.device) == (node.name, device.name)]
        for number, (start, end) in enumerate(_gaps(held, seconds)):
            owner = UNATTRIBUTED if device.name == "gpu0" and number % UNKNOWN_EVERY == 1 else IDLE
            watts = 180.0 if owner == UNATTRIBUTED else _GPU_IDLE
            yield Use(owner, "", node.name, device.name, start, end, watts, watts * 0.95, HOUR)


def _gaps(held: list[Window], seconds: float) -> Iterator[Window]:
    at = 0.0
    for start, end in sorted(held):
        if start > at:
            yield at, start
        at = end
    if at < seconds:
        yield at, seconds


def _powered(use: Use, nodes: Sequence[Node]) -> Iterator[Use]:
    """A use without the times at which its node was off."""
    reboots = next(node for node in nodes if node.name == use.node).reboots
    at = use.start
    for begin, end in reboots:
        if at < begin < use.end:
            yield replace(use, start=at, end=begin)
            at = end
    if at < use.end:
        yield replace(use, start=at)
