"""The register map of docs/modbus.md: what lies where, and what its bits mean. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, IntFlag

import structlog

from station.types import Verdict

log = structlog.get_logger(__name__)

VERSION = 1  # of the register map in docs/modbus.md: it changes when a register changes its meaning
SERIAL_WORDS = 16
WRITABLE = 3 + SERIAL_WORDS  # holding registers: control, number (two), board serial
MIRROR = 100  # holding registers from here on repeat the input registers, for a master that reads no others
CODES = {Verdict.PASS: 1, Verdict.FAIL: 2, Verdict.UNKNOWN: 3}


class Table(Enum):
    """The four kinds of addresses that Modbus knows."""

    COILS = "coils"
    DISCRETE_INPUTS = "discrete inputs"
    HOLDING_REGISTERS = "holding registers"
    INPUT_REGISTERS = "input registers"


class Refused(Enum):
    """Why a request is not carried out; the values are Modbus's exception codes."""

    ADDRESS = 2
    VALUE = 3


class Control(IntFlag):
    """Holding register 0, and the coils: what the PLC says. Each counts when it rises."""

    TRIGGER = 1
    RESULT_ACK = 2
    CLEAR = 4


class Status(IntFlag):
    """Input register 0, and the discrete inputs from 0 on. PASS and REJECT are never on together."""

    READY = 1
    TRIGGER_ACK = 2
    BUSY = 4
    RESULT_VALID = 8
    PASS = 16
    REJECT = 32


class Faults(IntFlag):
    """Input register 1, and the discrete inputs from 16 on. MISSED and OVERRUN stay until CLEAR rises."""

    NOT_WORKING = 1
    STOPPED = 2
    MISSED = 4
    OVERRUN = 8


ALL_CONTROL = Control.TRIGGER | Control.RESULT_ACK | Control.CLEAR


def board_serial_of(words: Sequence[int]) -> str | None:
    """ASCII, two characters a register, the first in the high byte, up to the first NUL. None: there is none."""
    raw = b"".join(word.to_bytes(2, "big") for word in words).split(b"\0")[0].strip()
    if not all(0x20 <= one <= 0x7E for one in raw):
        log.warning("modbus board serial not readable", bytes=raw.hex())
        return None
    return raw.decode("ascii") or None


def bits_of(value: int, count: int) -> list[int]:
    return [value >> place & 1 for place in range(count)]
