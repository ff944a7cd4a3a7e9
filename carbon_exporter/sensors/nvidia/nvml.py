"""The door to NVML: the only file that knows `pynvml` and ctypes.

`pynvml` (nvidia-ml-py) loads the library and begins and ends sessions. All other calls go to the C functions, with
buffers that are kept: the binding asks for each list twice, once for its length. Numbers and layouts are from nvml.h.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from carbon_exporter.errors import SensorReadError, SensorUnavailable
from carbon_exporter.sensors.nvidia.wire import (
    ATTRIBUTES,
    FIELD_BYTES,
    PROCESS_BYTES,
    SAMPLE_BYTES,
    Attributes,
    FieldValue,
    ProcessEntry,
    UtilizationEntry,
    field_request,
    parse_attributes,
    parse_fields,
    parse_processes,
    parse_samples,
    text_of,
)

__all__ = ["LIBRARY", "Code", "Handle", "Library", "Nvml", "NvmlError"]

LIBRARY = "libnvidia-ml.so.1"
Handle = ctypes.c_void_p
"""Of a board, or of a partition; of no use after the session in which it was got."""

_Rates = ctypes.c_uint * 2
"""nvmlUtilization_t: of the GPU, of its memory."""
_Memory = ctypes.c_uint64 * 5
"""nvmlMemory_v2_t: version, total, reserved, free, used; nvmlMemory_t: total, free, used."""
_Temperature = ctypes.c_int * 3
"""nvmlTemperature_v1_t: version, sensor, degrees."""
_TEXT_BYTES = 96
_MEMORY_V2 = 0x02000028
_TEMPERATURE_V1 = 0x0100000C
_SM_UTIL = 2
_MOST_ENTRIES = 1 << 16
"""No board has so many processes; a driver that claims it answers nonsense."""


class Code:
    """The return codes that make a difference here."""

    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    INSUFFICIENT_SIZE = 7
    DRIVER_NOT_LOADED = 9
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    VERSION_MISMATCH = 18
    ARGUMENT_VERSION_MISMATCH = 25
    GPU_NOT_FOUND = 28
    UNKNOWN = 999

    REFUSALS = frozenset({NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND})
    """What does not change by asking again."""

    MEANING: ClassVar[dict[int, str]] = {
        UNINITIALIZED: "NVML is not initialised",
        INVALID_ARGUMENT: "the board's handle is not valid",
        NOT_SUPPORTED: "not supported",
        NO_PERMISSION: "not permitted",
        NOT_FOUND: "not found",
        DRIVER_NOT_LOADED: "NVIDIA's driver is not loaded",
        FUNCTION_NOT_FOUND: "this driver does not have it",
        GPU_IS_LOST: "the GPU is lost",
        RESET_REQUIRED: "the GPU must be reset",
        VERSION_MISMATCH: "NVML and the kernel module are of different versions",
        GPU_NOT_FOUND: "the GPU was not found",
        UNKNOWN: "unknown error",
    }


class NvmlError(SensorReadError):
    """A call that did not succeed, with NVML's code."""

    def __init__(self, code: int, call: str) -> None:
        """`call` is the C function's name."""
        super().__init__(f"{Code.MEANING.get(code, 'error')} (NVML {code} from {call})")
        self.code = code


class Library:
    """NVML as this process has loaded it."""

    worked: ClassVar[bool] = False
    """Whether a session ever began in this process: its library then fits the driver that was there."""

    def __init__(self) -> None:
        """Raises `SensorUnavailable` if there is no library, or no binding for it."""
        try:
            ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise SensorUnavailable(f"{LIBRARY} cannot be loaded: {error}") from error
        try:
            self._binding: Any = importlib.import_module("pynvml")
        except ImportError as error:
            remedy = "pip install nvidia-ml-py"
            raise SensorUnavailable("the Python package nvidia-ml-py is missing", remedy=remedy) from error

    def begin(self) -> None:
        """Initialise NVML once more; it counts. Raises `NvmlError`."""
        self._checked(self._binding.nvmlInit, "nvmlInit")
        Library.worked = True

    def end(self) -> None:
        """Undo one `begin`. Raises `NvmlError`."""
        self._checked(self._binding.nvmlShutdown, "nvmlShutdown")

    def call(self, name: str, *arguments: object) -> int:
        """Call a C function and return its code; `FUNCTION_NOT_FOUND` if the library lacks it."""
        try:
            function = getattr(self._binding.nvmlLib, name)
        except AttributeError:
            return Code.FUNCTION_NOT_FOUND
        return int(function(*arguments))

    def _checked(self, function: Callable[[], object], name: str) -> None:
        try:
            function()
        except self._binding.NVMLError as error:
            raise NvmlError(int(error.value), name) from error


class Nvml:
    """NVML's calls on one board, with buffers of their own: for one thread. All raise `NvmlError`."""

    def __init__(self, library: Library, room: int = 64) -> None:
        """Without any call. Lists have `room` for so many entries until there are more."""
        self._library = library
        self._room = room
        self.calls = 0
        """C calls so far."""
        self._outdated: set[str] = set()
        self._lister: dict[str, str] = {}
        """What lists a kind of processes with an older driver."""
        self._requests: dict[tuple[tuple[int, int], ...], tuple[bytes, ctypes.Array[ctypes.c_char]]] = {}
        self._lists: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self._count = ctypes.c_uint()

    # Finding boards

    def count(self) -> int:
        """How many boards the driver lists."""
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(self._count))
        return self._count.value

    def handle_at(self, index: int) -> Handle:
        """The board at an index, which is its place in the order of PCI addresses."""
        return self._handle("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index))

    def handle_of(self, uuid: str) -> Handle:
        """The board with a uuid."""
        return self._handle("nvmlDeviceGetHandleByUUID", ctypes.c_char_p(uuid.encode()))

    def index(self, board: Handle) -> int:
        """Where the driver lists the board now."""
        return self._number("nvmlDeviceGetIndex", board)

    def minor(self, board: Handle) -> int:
        """The number of its device file: `/dev/nvidia0`."""
        return self._number("nvmlDeviceGetMinorNumber", board)

    def uuid(self, board: Handle) -> str:
        """`GPU-…` of a board, `MIG-…` of a partition."""
        return self._text("nvmlDeviceGetUUID", board)

    def model(self, board: Handle) -> str:
        """Its name for people; a partition's ends in `MIG` and its profile."""
        return self._text("nvmlDeviceGetName", board)

    # Power and energy

    def fields(self, board: Handle, wanted: tuple[tuple[int, int], ...]) -> tuple[FieldValue, ...]:
        """Several (field, scope) in one call, each with a code of its own."""
        known = self._requests.get(wanted)
        if known is None:
            request = field_request(wanted)
            known = self._requests[wanted] = (request, ctypes.create_string_buffer(len(request)))
        request, buffer = known
        ctypes.memmove(buffer, request, len(request))
        self._call("nvmlDeviceGetFieldValues", board, len(request) // FIELD_BYTES, buffer)
        return parse_fields(buffer.raw)

    def total_energy(self, board: Handle) -> int:
        """Millijoules since the driver was loaded."""
        value = ctypes.c_uint64()
        self._call("nvmlDeviceGetTotalEnergyConsumption", board, ctypes.byref(value))
        return value.value

    def power(self, board: Handle) -> int:
        """Milliwatts: the mean of a second since Ampere (but GA100), of this instant before."""
        return self._number("nvmlDeviceGetPowerUsage", board)

    def enforced_limit(self, board: Handle) -> int:
        """Milliwatts."""
        return self._number("nvmlDeviceGetEnforcedPowerLimit", board)

    def largest_limit(self, board: Handle) -> int:
        """Milliwatts: the most that the limit can be set to."""
        least, most = ctypes.c_uint(), ctypes.c_uint()
        constraints = "nvmlDeviceGetPowerManagementLimitConstraints"
        self._call(constraints, board, ctypes.byref(least), ctypes.byref(most))
        return most.value

    # Vitals

    def utilization(self, board: Handle) -> int:
        """Per cent of the last period in which a kernel ran."""
        rates = _Rates()
        self._call("nvmlDeviceGetUtilizationRates", board, rates)
        return rates[0]

    def memory_used(self, board: Handle) -> int:
        """Bytes; without what the driver reserves, where it tells them apart."""
        memory = _Memory(_MEMORY_V2)
        if self._newer("nvmlDeviceGetMemoryInfo_v2", board, memory):
            return memory[4]
        self._call("nvmlDeviceGetMemoryInfo", board, memory)
        return memory[2]

    def temperature(self, board: Handle) -> int:
        """Degrees Celsius of the GPU."""
        reading = _Temperature(_TEMPERATURE_V1)
        if self._newer("nvmlDeviceGetTemperatureV", board, reading):
            return reading[2]
        self._call("nvmlDeviceGetTemperature", board, 0, ctypes.byref(reading))
        return reading[0]

    # Processes

    def processes(self, board: Handle, kind: str) -> tuple[ProcessEntry, ...]:
        """Who has a context of a kind on the board: `Compute`, `Graphics` or `MPSCompute`."""
        name = self._lister.get(kind) or f"nvmlDeviceGet{kind}RunningProcesses_v3"
        try:
            return parse_processes(self._list(name, PROCESS_BYTES, lambda into, count: (board, count, into)))
        except NvmlError as error:
            if error.code != Code.FUNCTION_NOT_FOUND or not name.endswith("_v3"):
                raise
            self._lister[kind] = f"nvmlDeviceGet{kind}RunningProcesses_v2"
            return self.processes(board, kind)

    def samples(self, board: Handle, since: int) -> tuple[UtilizationEntry, ...]:
        """Samples of the processes that computed, of after `since` (the driver's clock, in microseconds)."""
        last = ctypes.c_ulonglong(since)
        name = "nvmlDeviceGetProcessUtilization"
        try:
            return parse_samples(self._list(name, SAMPLE_BYTES, lambda into, count: (board, into, count, last)))
        except NvmlError as error:
            if error.code == Code.NOT_FOUND:
                return ()
            raise

    # Partitions

    def is_divided(self, board: Handle) -> bool:
        """Whether MIG is on."""
        now, pending = ctypes.c_uint(), ctypes.c_uint()
        self._call("nvmlDeviceGetMigMode", board, ctypes.byref(now), ctypes.byref(pending))
        return now.value == 1

    def most_partitions(self, board: Handle) -> int:
        """Into how many MIG devices the board can be divided: its number of compute slices."""
        return self._number("nvmlDeviceGetMaxMigDeviceCount", board)

    def partition(self, board: Handle, index: int) -> Handle | None:
        """A MIG device of the board; None where there is none of that index."""
        try:
            return self._handle("nvmlDeviceGetMigDeviceHandleByIndex", board, ctypes.c_uint(index))
        except NvmlError as error:
            if error.code in (Code.NOT_FOUND, Code.INVALID_ARGUMENT):
                return None
            raise

    def instance(self, partition: Handle) -> int:
        """The id of the GPU instance of a MIG device."""
        return self._number("nvmlDeviceGetGpuInstanceId", partition)

    def attributes(self, partition: Handle) -> Attributes:
        """How large a MIG device is."""
        buffer = ctypes.create_string_buffer(ATTRIBUTES.size)
        self._call("nvmlDeviceGetAttributes_v2", partition, buffer)
        return parse_attributes(buffer.raw)

    # GPU performance monitoring

    def has_gpm(self, board: Handle) -> bool:
        """Whether the board can tell how busy a GPU instance is."""
        support = (ctypes.c_uint * 2)(1, 0)
        self._call("nvmlGpmQueryDeviceSupport", board, support)
        return bool(support[1])

    def new_gpm_sample(self) -> Handle:
        """Memory for a sample; the process keeps it."""
        return self._handle("nvmlGpmSampleAlloc")

    def gpm_sample(self, board: Handle, instance: int, into: Handle) -> None:
        """Take a sample of a GPU instance."""
        self._call("nvmlGpmMigSampleGet", board, ctypes.c_uint(instance), into)

    def busy(self, earlier: Handle, later: Handle) -> float | None:
        """Per cent of the time between two samples in which its multiprocessors were busy; None if it was not told."""
        question = _GpmQuestion(1, 1, earlier.value, later.value)
        question.metrics[0].id = _SM_UTIL
        self._call("nvmlGpmMetricsGet", ctypes.byref(question))
        return None if question.metrics[0].code else question.metrics[0].value

    def _call(self, name: str, *arguments: object) -> None:
        self.calls += 1
        code = self._library.call(name, *arguments)
        if code:
            raise NvmlError(code, name)

    def _newer(self, name: str, *arguments: object) -> bool:
        """Call a function that an older driver may lack; False if it does, from then on without a call."""
        if name in self._outdated:
            return False
        try:
            self._call(name, *arguments)
        except NvmlError as error:
            if error.code not in (Code.FUNCTION_NOT_FOUND, Code.ARGUMENT_VERSION_MISMATCH):
                raise
            self._outdated.add(name)
            return False
        return True

    def _handle(self, name: str, *arguments: object) -> Handle:
        handle = Handle()
        self._call(name, *arguments, ctypes.byref(handle))
        return handle

    def _number(self, name: str, board: Handle) -> int:
        self._call(name, board, ctypes.byref(self._count))
        return self._count.value

    def _text(self, name: str, board: Handle) -> str:
        buffer = ctypes.create_string_buffer(_TEXT_BYTES)
        self._call(name, board, buffer, ctypes.c_uint(_TEXT_BYTES))
        return text_of(buffer.raw)

    def _list(self, name: str, size: int, order: Callable[[object, object], Sequence[object]]) -> bytes:
        """The entries of `size` bytes that a function gives; asked again with more room if there are too many."""
        buffer = self._lists.get(size)
        if buffer is None:
            buffer = self._lists[size] = ctypes.create_string_buffer(self._room * size)
        room = len(buffer) // size
        self._count.value = room
        try:
            self._call(name, *order(buffer, ctypes.byref(self._count)))
        except NvmlError as error:
            if error.code != Code.INSUFFICIENT_SIZE or not room < self._count.value < _MOST_ENTRIES:
                raise
            self._lists[size] = ctypes.create_string_buffer(2 * self._count.value * size)
            return self._list(name, size, order)
        return ctypes.string_at(buffer, min(self._count.value, room) * size)


class _GpmMetric(ctypes.Structure):
    _fields_: ClassVar[Any] = (
        ("id", ctypes.c_uint),
        ("code", ctypes.c_int),
        ("value", ctypes.c_double),
        ("names", ctypes.c_void_p * 3),
    )


class _GpmQuestion(ctypes.Structure):
    """nvmlGpmMetricsGet_t with room for what newer headers may append."""

    _fields_: ClassVar[Any] = (
        ("version", ctypes.c_uint),
        ("count", ctypes.c_uint),
        ("sample1", ctypes.c_void_p),
        ("sample2", ctypes.c_void_p),
        ("metrics", _GpmMetric * 512),
    )
