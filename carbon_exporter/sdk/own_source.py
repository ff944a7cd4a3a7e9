"""One sensor as a process uses it that measures by itself: full readings now and then, fine ones in between.

A full reading runs on the sensor's workers, so that a driver that hangs is not waited for. Fine readings of counters
run on the caller's thread: a second thread that wakes up ten times a second would cost more than the reading. While a
worker has not answered, its board is not touched. A board without a counter is sampled by its worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

from carbon_exporter.sensors.base import Device, Occupancy, Reading, Sensor
from carbon_exporter.sensors.crew import Crew
from carbon_exporter.sensors.fine import FineReader, Watch
from carbon_exporter.sensors.worker import SensorWorker

__all__ = ["Source"]

SLOW_SECONDS, MODEL_SECONDS, BOARDS_SECONDS = 1.0, 0.25, 5.0
"""Between two full readings: of sensors without fine ones, of the model at its best, and of boards read finely."""
BUSY_SECONDS = 0.1
"""Until the next look at a board whose worker has not answered."""
MOST_OF_A_CORE = 0.002
"""A full reading that takes long (/proc/stat of hundreds of CPUs) is made less often, up to once a second."""
FEW_READINGS = 5
"""By the shortest of so many it is told how long one takes: on a busy machine others hold a reading up now and then."""
_BOARDS = frozenset({"gpu", "accelerator"})


class Source:
    """For one thread."""

    def __init__(self, sensor: Sensor, clock: Callable[[], float]) -> None:
        """Starts the sensor's workers; it is due at once."""
        self.sensor = sensor
        self.crew = Crew([sensor])
        self.due = clock()
        """When it is to be read in full."""
        self.occupancies: Mapping[str, Occupancy] = {}
        self._clock = clock
        self._wanted: Collection[str] | None = None
        self._readers: dict[Sensor, FineReader] = {}
        self._workers: dict[Sensor, SensorWorker] = {}
        self._fine = Watch(on=True)
        """What is wanted of boards that are read finely."""
        self._at_once = False
        self._on = True
        self._took: deque[float] = deque([0.0], maxlen=FEW_READINGS)
        """Seconds of the last full readings; the first of them cost nothing, until it is known better."""
        self._samples = False
        """Whether workers sample boards for it."""

    def moment(self, now: float, patience: float) -> float:
        """When there is something to do. Boards whose moment is not to be kept may wait `patience` for others."""
        if self._at_once:
            return now
        moment = self.due
        news = self.crew.news if self._samples else None
        if news is not None:
            moment = min(moment, news)
        for board, reader in self._readers.items():
            if self._workers[board].busy:
                moment = min(moment, now + BUSY_SECONDS)
            else:
                moment = min(moment, reader.next if reader.precise else reader.next + patience)
        return moment

    @property
    def counters(self) -> int:
        """How many boards are read finely on this thread."""
        return len(self._readers)

    def want(self, boards: Collection[str] | None) -> None:
        """Read these boards finely, by name or uuid; None for all."""
        if not self._on or boards != self._wanted:
            self._on, self._wanted = True, boards
            self.crew.rest(False)
            self._muster()

    def ease(self, grain: float) -> None:
        """Read boards finely every `grain` seconds; if that is finer than before, at once for the first time."""
        self._at_once = grain < self._fine.grain
        self._fine.grain = grain

    def read(self, patience: float) -> list[Reading]:
        """A full reading; without the devices that are read finely, whose counters it shows at another moment."""
        sample = self.crew.gather(patience)
        self.occupancies = {one.device: one for one in sample.occupancies}
        self._muster()
        (member,) = self.crew.members
        self._took.append(member.seconds)
        self.due = self._clock() + self._period(min(self._took))
        fine = self.crew.fine_devices | {device.name for board in self._readers for device in board.devices}
        return [reading for reading in sample.readings if reading.device.name not in fine]

    def read_finely(self, now: float) -> None:
        """Note what boards have to tell that are due."""
        at_once, self._at_once = self._at_once, False
        for board, reader in self._readers.items():
            is_due = at_once or reader.next <= now
            if is_due and not self._workers[board].busy and not reader.read():
                self.due = min(self.due, now + SLOW_SECONDS)

    def take(self) -> list[Reading]:
        """What was noted of boards since the last call, and what workers have sampled of others. For any thread."""
        readings = self.crew.take_fine() if self._samples else []
        for reader in tuple(self._readers.values()):
            readings += reader.take()
        return readings

    def pause(self) -> None:
        """Nothing wakes up until somebody wants something."""
        self._on = False
        self.crew.watch(False)
        self.crew.rest(True)

    def close(self) -> None:
        """End its workers."""
        self._readers = {}
        self.crew.close()

    def wants(self, device: Device) -> bool:
        """Whether this device is to be measured at all."""
        wanted = self._wanted if device.kind in _BOARDS else None
        return device.kind != "node" and (wanted is None or device.name in wanted or device.uuid in wanted)

    def _muster(self) -> None:
        """A reader for each board with a counter that is here now; the others are sampled by their workers."""
        (member,) = self.crew.members
        self._workers = {worker.sensor: worker for worker in member.workers}
        mine = [one for one in self._workers if one.offers_fine and any(map(self.wants, one.devices))]
        counters = [one for one in mine if one.sampling_period is None]
        self._readers = {one: self._readers.get(one) or FineReader(one, self._fine, self._clock) for one in counters}
        sampled = {device.name for one in mine if one not in self._readers for device in one.devices}
        self._samples = bool(sampled)
        self.crew.watch(self._samples, sampled)

    def _period(self, seconds: float) -> float:
        if self._readers or any(member.offers_fine for member in self.sensor.members):
            return BOARDS_SECONDS
        if self.sensor.name == "model":
            return min(max(MODEL_SECONDS, seconds / MOST_OF_A_CORE), SLOW_SECONDS)
        return SLOW_SECONDS
