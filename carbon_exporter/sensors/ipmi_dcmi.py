"""DCMI's Get Power Reading as messages: what to ask a baseboard management controller, and what its answer means.

Layout: Data Center Manageability Interface specification 1.5, 6.6.1, and completion codes: IPMI specification 2.0,
table 5-2.
"""

from __future__ import annotations

import struct

from carbon_exporter.errors import SensorReadError, SensorUnavailable
from carbon_exporter.units import Watts

__all__ = ["COMMAND", "NETWORK_FUNCTION", "REQUEST", "parse_power"]

NETWORK_FUNCTION = 0x2C
"""Group extension."""
COMMAND = 0x02
GROUP = 0xDC
REQUEST = bytes((GROUP, 0x01, 0x00, 0x00))
"""Group, mode 1 (system power statistics), and two reserved bytes."""

ANSWER = struct.Struct("<BBHHHHIIB")
"""Completion code, group, watts now, least, most and mean, time stamp, period of these in ms, state."""
ACTIVE = 0x40
"""In the state: the meter measures."""
NO_READING = frozenset({0, 0xFFFF})
"""Watts that controllers give when they have none."""

UNSUPPORTED = {
    0xC1: "does not know the command",
    0xC2: "does not know the command for this unit",
    0xC7: "refuses the length of the command",
    0xC9: "refuses a parameter of the command",
    0xCC: "refuses a field of the command",
    0xD6: "has the command disabled",
}
FAILED = {
    0xC0: "is busy",
    0xC3: "had a time-out of its own",
    0xC4: "is out of space",
    0xCE: "could not make an answer",
    0xD2: "could not make an answer now",
    0xD4: "refuses the command for want of privilege",
    0xD5: "cannot do it in its present state",
    0xFF: "failed for no reason that it tells",
}


def parse_power(answer: bytes) -> Watts:
    """Watts of the whole machine now, by the data of an answer from its completion code on.

    Raises:
        SensorUnavailable: the controller has no such command.
        SensorReadError: it has, and gives no reading now.
    """
    code = answer[0] if answer else 0xCE
    if code in UNSUPPORTED:
        raise SensorUnavailable(f"the management controller {UNSUPPORTED[code]} (DCMI power reading, code {code:#04x})")
    if code != 0:
        what = FAILED.get(code, "failed")
        raise SensorReadError(f"the management controller {what} (code {code:#04x})")
    if len(answer) < ANSWER.size or answer[1] != GROUP:
        raise SensorReadError(f"the management controller's answer of {len(answer)} bytes is no DCMI power reading")
    _, _, watts, *_, state = ANSWER.unpack_from(answer)
    if not state & ACTIVE:
        raise SensorReadError("the management controller's power measurement is not active")
    if watts in NO_READING:
        raise SensorReadError(f"the management controller says {watts} W, which is no reading")
    return Watts(float(watts))
