"""Power of the whole machine by its management controller: IPMI DCMI through Linux's device `/dev/ipmi0`.

The device is asked by ioctl, no other program is started. The controller renews its reading about once a second and
has other work to do: it is asked every two seconds, and never twice within one.
Layout of the structures: include/uapi/linux/ipmi.h of Linux.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from carbon_exporter.errors import SensorError, SensorPermission, SensorReadError, SensorUnavailable
from carbon_exporter.sensors.base import Device, Host, Kind, Quality, Sample, Sensor
from carbon_exporter.sensors.integrator import PowerIntegrator
from carbon_exporter.sensors.ipmi_dcmi import COMMAND, NETWORK_FUNCTION, REQUEST, parse_power
from carbon_exporter.units import Watts

__all__ = ["ABSENT_REMEDY", "OPEN_REMEDY", "Ipmi", "ask", "probe"]

PLACES = ("ipmi0", "ipmi/0", "ipmidev/0")
PATIENCE_SECONDS = 5.0
"""A busy controller takes a second or two for an answer."""
SAMPLING_SECONDS = 2.0
SHORTEST_PAUSE_SECONDS = 1.0
LONGEST_STEP_SECONDS = 15.0
"""What the machine drew while the controller did not answer for longer than this is not known."""
MOST_OTHER_MESSAGES = 16
MESSAGE_ID = 1

ABSENT_REMEDY = "on a server with a management controller load the drivers: sudo modprobe -a ipmi_si ipmi_devintf"
OPEN_REMEDY = (
    'run as root, or let a group open it by a udev rule, KERNEL=="ipmi*", GROUP="ipmi", MODE="0660" in '
    "/etc/udev/rules.d/70-ipmi.rules; who may open it may also switch the machine off; "
    "a container needs the device as well: --device /dev/ipmi0"
)


class _Address(ctypes.Structure):
    """`struct ipmi_system_interface_addr`."""

    _fields_: ClassVar = [("addr_type", ctypes.c_int), ("channel", ctypes.c_short), ("lun", ctypes.c_ubyte)]


class _Message(ctypes.Structure):
    """`struct ipmi_msg`."""

    _fields_: ClassVar = [
        ("netfn", ctypes.c_ubyte),
        ("cmd", ctypes.c_ubyte),
        ("data_len", ctypes.c_ushort),
        ("data", ctypes.c_void_p),
    ]


class _Request(ctypes.Structure):
    """`struct ipmi_req`."""

    _fields_: ClassVar = [
        ("addr", ctypes.c_void_p),
        ("addr_len", ctypes.c_uint),
        ("msgid", ctypes.c_long),
        ("msg", _Message),
    ]


class _Answer(ctypes.Structure):
    """`struct ipmi_recv`."""

    _fields_: ClassVar = [
        ("recv_type", ctypes.c_int),
        ("addr", ctypes.c_void_p),
        ("addr_len", ctypes.c_uint),
        ("msgid", ctypes.c_long),
        ("msg", _Message),
    ]


SYSTEM_INTERFACE = 0x0C
THE_CONTROLLER = 0x0F
"""Type of the address, and its channel."""
A_RESPONSE = 1
MOST_ADDRESS_BYTES = 40
MOST_ANSWER_BYTES = 272

_READ, _WRITE = 2, 1


def _ioctl_number(direction: int, number: int, size: int) -> int:
    """_IOC of asm-generic/ioctl.h, as x86, Arm and RISC-V number their calls."""
    return direction << 30 | size << 16 | ord("i") << 8 | number


SEND = _ioctl_number(_READ, 13, ctypes.sizeof(_Request))
RECEIVE_TRUNCATED = _ioctl_number(_READ | _WRITE, 11, ctypes.sizeof(_Answer))


def probe(host: Host, covered: frozenset[Kind]) -> Ipmi:  # noqa: ARG001 - a whole machine covers no part of it
    """The machine's controller, if it gives a power reading now.

    Raises `SensorUnavailable` if it does not, `SensorPermission` if this process may not ask it.
    """
    path = next((place for place in (host.devfs / name for name in PLACES) if _is_there(place)), None)
    if path is None:
        raise SensorUnavailable(f"{host.devfs / PLACES[0]} does not exist", remedy=ABSENT_REMEDY)
    try:
        ask(path)
    except SensorReadError as error:
        if error.remedy:
            raise SensorPermission(error.reason, remedy=error.remedy) from error
        raise SensorUnavailable(error.reason) from error
    return Ipmi(host, path)


class Ipmi(Sensor):
    """The sensor. The device is opened anew for each question, so that no late answer of an earlier one is taken."""

    name = "ipmi"
    quality = Quality.INTEGRATED
    sampling_period = SAMPLING_SECONDS

    def __init__(self, host: Host, path: Path) -> None:
        """`path` is the device."""
        self._host = host
        self._path = path
        self._integrator = PowerIntegrator(LONGEST_STEP_SECONDS)
        self._asked_at: float | None = None
        self._trouble: SensorReadError | None = None
        self._device = Device(
            "ipmi",
            "node",
            "ipmi",
            method=f"DCMI power reading of the management controller through {path}",
            bound="whole watts, renewed about once a second and often smoothed; no tolerance is known",
            period=1.0,
        )

    @property
    def devices(self) -> tuple[Device, ...]:
        """The whole machine."""
        return (self._device,)

    def read(self) -> Sample:
        """What was sampled since the last call, and a failure if the controller does not answer now."""
        self._refresh()
        readings = self._integrator.take(self._device)
        if self._trouble is None:
            return Sample(readings)
        return Sample(tuple(reading for reading in readings if reading.power is not None), (self._trouble,))

    def sample(self) -> None:
        """Ask the controller, unless it was asked within the last second."""
        self._refresh()

    def _refresh(self) -> None:
        now = self._host.clock()
        if self._asked_at is not None and now - self._asked_at < SHORTEST_PAUSE_SECONDS:
            return
        self._asked_at = now
        try:
            watts = ask(self._path)
        except SensorError as error:
            self._trouble = SensorReadError(error.reason, device=self._device.name, remedy=error.remedy)
        else:
            self._trouble = None
            self._integrator.add(self._host.clock(), watts)


def ask(path: Path, patience: float = PATIENCE_SECONDS) -> Watts:
    """Power of the machine now, by the controller behind the device `path`, within `patience` seconds.

    Raises `SensorReadError`, with a remedy where this process may not open the device, and `SensorUnavailable` if the
    controller has no such command.
    """
    with _opened(path) as device:
        try:
            _send(device)
            return parse_power(_receive(device, path, time.monotonic() + patience))
        except OSError as error:
            raise SensorReadError(f"{path} does not take an IPMI message: {error.strerror}") from error


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        device = os.open(path, os.O_RDWR)
    except OSError as error:
        refused = error.errno in {errno.EACCES, errno.EPERM}
        what = "may not be opened" if refused else "cannot be opened"
        raise SensorReadError(f"{path} {what}: {error.strerror}", remedy=OPEN_REMEDY if refused else "") from error
    try:
        yield device
    finally:
        os.close(device)


def _send(device: int) -> None:
    """Hand the request to the kernel. Raises `OSError`."""
    data = ctypes.create_string_buffer(REQUEST, len(REQUEST))
    address = _Address(SYSTEM_INTERFACE, THE_CONTROLLER, 0)
    request = _Request(ctypes.addressof(address), ctypes.sizeof(address), MESSAGE_ID)
    request.msg = _Message(NETWORK_FUNCTION, COMMAND, len(REQUEST), ctypes.addressof(data))
    fcntl.ioctl(device, SEND, request)


def _receive(device: int, path: Path, deadline: float) -> bytes:
    """The data of the answer; events and other messages are passed over. Raises `OSError`, `SensorReadError`."""
    data = ctypes.create_string_buffer(MOST_ANSWER_BYTES)
    address = ctypes.create_string_buffer(MOST_ADDRESS_BYTES)
    poll = select.poll()
    poll.register(device, select.POLLIN)
    for _ in range(MOST_OTHER_MESSAGES):
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            break
        answer = _Answer(0, ctypes.addressof(address), len(address))
        answer.msg = _Message(0, 0, len(data), ctypes.addressof(data))
        fcntl.ioctl(device, RECEIVE_TRUNCATED, answer)
        if answer.recv_type == A_RESPONSE and answer.msgid == MESSAGE_ID:
            return data.raw[: min(answer.msg.data_len, len(data))]
    raise SensorReadError(f"the management controller behind {path} has not answered in time")


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except PermissionError:
        return True
    except OSError:
        return False
    return True
