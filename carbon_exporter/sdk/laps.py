"""A lap: one passage through a span, with what was said of it and what is known of its energy."""

from __future__ import annotations

from carbon_exporter.sdk.lanes import Lane

TYPE_CHECKING = False  # as type checkers know it; a training script pays for every import
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from threading import Event

    from carbon_exporter.sdk.lanes import Moment
    from carbon_exporter.sdk.reckoning import Figures, Fold
    from carbon_exporter.sdk.tracing import Trail
    from carbon_exporter.sdk.tracker import Tracker

__all__ = ["MOST_VALUES", "Lap"]

MOST_VALUES = 8
"""Names that may be recorded in a lap."""


class Lap(Lane):
    """What its own thread writes stands in the first group; the sampler's thread writes the second."""

    __slots__ = (
        "attributes",
        "devices",
        "event",
        "figures",
        "fold",
        "grams",
        "job",
        "kept",
        "name",
        "posted",
        "posted_seconds",
        "posted_values",
        "sampled",
        "tracker",
        "trail",
        "values",
    )

    def __init__(
        self,
        name: str,
        thread: int,
        clock: int | None,
        *,
        job: str | None = None,
        devices: Sequence[str | int] | None = None,
        attributes: Mapping[str, object] | None = None,
    ) -> None:
        """`devices` are the boards that it is known to use; None: as the process."""
        super().__init__(thread, clock)
        self.name, self.job, self.devices, self.attributes = name, job, devices, attributes
        self.tracker: Tracker
        """Whose it is; one of another process is left alone."""
        self.values: dict[str, float] = {}
        self.trail: Trail | None = None
        """Its OpenTelemetry span."""
        self.event: Event | None = None
        """Set once it is settled, for who waits."""
        self.sampled = False
        """Whether it holds the sampler, until it is settled."""

        self.figures: Figures | None = None
        """What it cost, settled."""
        self.fold: Fold | None = None
        """The sum of its parts before `since` that are not in `parts` any more."""
        self.kept: frozenset[str] | None = None
        """The boards that count, by name, where `devices` says so."""
        self.posted: dict[str, float] = {}
        """Joules by kind that the account has of it, and likewise the rest."""
        self.grams = 0.0
        self.posted_seconds = 0.0
        self.posted_values: dict[str, float] = {}

    @property
    def plain(self) -> tuple[Moment, Moment] | None:
        """Its two edges, if it has ended and had all to itself, and nothing was folded: the usual case."""
        parts = self.parts
        if self.ended is None or self.fold is not None or len(parts) != 1:
            return None
        for start, end, cpu, rest in parts:  # once, or never if it is settled meanwhile
            return (start, end) if cpu == rest == 1.0 else None
        return None

    def record(self, values: Mapping[str, float]) -> None:
        """Keep the newest value of each name. What is no finite number, or one name too many, raises `ValueError`."""
        refused = []
        for name, given in values.items():
            try:
                value = float(given)  # a tensor of one element, too
            except (TypeError, ValueError, RuntimeError):
                value = float("nan")
            if value - value == 0.0 and (name in self.values or len(self.values) < MOST_VALUES):
                self.values[name] = value
            else:
                refused.append(name)
        if refused:
            raise ValueError(f"not recorded: {', '.join(refused)}; {MOST_VALUES} names at most, finite numbers only")
