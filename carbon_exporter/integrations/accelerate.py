"""Hugging Face Accelerate: a tracker that measures every process.

from carbon_exporter.integrations.accelerate import CarbonTracker

carbon = CarbonTracker(epochs=90, budget="2 kWh")
accelerator = Accelerator(log_with=[carbon, "tensorboard"])
accelerator.init_trackers("project", config={"learning_rate": 1e-3})
for epoch in carbon.epochs(range(90)):
    ...
    accelerator.log({"loss": loss})
accelerator.end_training()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from carbon_exporter.integrations import processes
from carbon_exporter.integrations.missing import missing
from carbon_exporter.integrations.training import HasRun, Training

try:
    from accelerate.tracking import GeneralTracker
except ImportError as error:
    raise missing(__name__, "accelerate", error) from error

if TYPE_CHECKING:
    from carbon_exporter.sdk.run import CarbonRun

__all__ = ["CarbonTracker"]

_T = TypeVar("_T")


class CarbonTracker(GeneralTracker, HasRun):  # type: ignore[misc] # Accelerate has no types
    """A run from `init_trackers` to `end_training`, with each process as a rank of it.

    What Accelerate does not see it is told: the loop over epochs stands in `epochs`. Accelerate tells trackers of the
    first process alone; the others begin with their first epoch, or where the script calls `start`, and end with the
    last one. Values are those of the first.

    Args:
        name: Of the run; all processes get the one of the first.
        options: Those of `CarbonRun`. What `init_trackers` has as `config` comes too late for labels, and is in the
            summary.

    Raises:
        ConfigError: an option that cannot be.
    """

    name = "carbon"
    requires_logging_directory = False
    main_process_only = False

    def __init__(self, name: str = "", **options: Any) -> None:
        """Measures nothing before `init_trackers`."""
        super().__init__()
        self._training = Training(name, options)

    @property
    def tracker(self) -> CarbonRun | None:
        """The same, as `accelerator.get_tracker("carbon", unwrap=True)` gives it."""
        return self._training.run

    def start(self) -> None:
        """Begin, if that has not been done: Accelerate calls it in the first process."""
        self._training.open("", {})

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """What else is known of the run: Accelerate calls it."""
        self._training.know(values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:  # noqa: ARG002 - its signature
        """Keep the newest numbers: Accelerate calls it."""
        self._training.record(values)

    def finish(self) -> None:
        """End: Accelerate calls it."""
        self._training.end()

    def epochs(self, items: Iterable[_T]) -> Iterator[_T]:
        """Each of `items`, with an epoch around what is done with it. All processes have to come here.

        Raises:
            BudgetExceeded: between two epochs, in all processes at once, if the run was told to stop.
        """
        self._training.join()
        try:
            yield from self._training.epochs(items)
        finally:
            if processes.rank() > 0:
                self._training.end()
