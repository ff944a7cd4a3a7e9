"""A family of processes on paper: it forks, works, waits and ends as real ones do, and all of it is known."""

from __future__ import annotations

from dataclasses import dataclass, field

from carbon_exporter.sdk.process_tree import Seen

__all__ = ["ROOT", "Family", "Member"]

ROOT = 1000
INIT = 1


@dataclass
class Member:
    """One process."""

    pid: int
    parent: int
    started: float
    own: float = 0.0
    waited: float = 0.0
    ended: bool = False
    measures_itself: bool = False
    theirs: bool = False
    """Whether it is counted by itself, or by a forebear below the root."""


@dataclass
class Family:
    """All members by pid; the clock goes by one at each event."""

    members: dict[int, Member] = field(default_factory=lambda: {ROOT: Member(ROOT, INIT, 0)})
    announced: dict[int, float] = field(default_factory=dict)
    ours: float = 0.0
    """CPU seconds of descendants that were not theirs: the truth."""
    now: int = 0

    def living(self) -> list[Member]:
        return [member for member in self.members.values() if not member.ended]

    def fork(self, parent: Member) -> Member:
        self.now += 1
        pid = ROOT + self.now
        self.members[pid] = child = Member(pid, parent.pid, self.now, theirs=parent.theirs)
        return child

    def work(self, member: Member, seconds: float) -> None:
        member.own += seconds
        if member.pid != ROOT and not member.theirs:
            self.ours += seconds

    def announce(self, member: Member) -> None:
        """From now on it and its living descendants are not the root's."""
        if member.pid == ROOT or member.measures_itself:
            return
        member.measures_itself = True
        self.announced[member.pid] = member.own + member.waited
        for one in self.below(member):
            one.theirs = True

    def below(self, member: Member) -> list[Member]:
        found = [member]
        for one in found:
            found += [child for child in self.members.values() if child.parent == one.pid]
        return found

    def end(self, member: Member) -> None:
        """It ends; its children go to init, which waits for those who have ended already."""
        if member.pid == ROOT:
            return
        member.ended = True
        for child in [one for one in self.members.values() if one.parent == member.pid]:
            child.parent = INIT
            if child.ended:
                self.forget(child)
        if member.parent == INIT:
            self.forget(member)

    def wait(self, member: Member) -> None:
        """Its parent waits for one that has ended."""
        if member.ended:
            parent = self.members[member.parent]
            parent.waited += member.own + member.waited
            self.forget(member)

    def forget(self, member: Member) -> None:
        del self.members[member.pid]
        self.announced.pop(member.pid, None)

    def seen(self, known: set[int]) -> list[Seen]:
        """What a look finds: descendants of the root, those that were known, and zombies; parents first."""
        below = {one.pid for one in self.below(self.members[ROOT])}
        return [
            Seen(one.pid, one.parent, one.started, one.own, one.waited, one.ended)
            for one in self.members.values()
            if one.pid in below or one.pid in known
        ]
