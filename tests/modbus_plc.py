"""A PLC as the register map wants it: it lets a board pass by what it reads, and by nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from pymodbus.client import ModbusSerialClient, ModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from station.modbus_map import VERSION, Control, Faults, Status

HEARTBEAT_LIMIT_S = 20.0  # a real PLC takes a second or two; here the machine may be slow


@dataclass(frozen=True, slots=True)
class Block:
    """The input registers, of one request."""

    status: Status
    faults: Faults
    heartbeat: int
    code: int
    number: int
    results: int
    triggers: int
    version: int

    @classmethod
    def of(cls, words: list[int]) -> Block:
        status, faults, heartbeat, code, high, low, results, triggers, version = words
        return cls(Status(status), Faults(faults), heartbeat, code, high << 16 | low, results, triggers, version)

    def passes(self, number: int) -> bool:
        """Is this, by itself, a PASS for board *number*?"""
        wanted = Status.RESULT_VALID | Status.PASS
        return (
            self.status & (wanted | Status.REJECT) == wanted
            and self.code == 1
            and self.number == number
            and self.version == VERSION
            and not self.faults & (Faults.NOT_WORKING | Faults.STOPPED)
        )


class ModbusPlc:
    """The client's side of the handshake, over *client*, which is connected."""

    def __init__(self, client: ModbusTcpClient | ModbusSerialClient, *, unit: int = 1) -> None:
        self.client = client
        self._unit = unit
        self._heartbeat: int | None = None
        self._beaten_s = float("-inf")

    def block(self) -> Block:
        """Raises ModbusException."""
        block = Block.of(_registers(self.client.read_input_registers(0, count=9, device_id=self._unit)))
        if block.heartbeat != self._heartbeat:
            if self._heartbeat is not None:
                self._beaten_s = time.monotonic()
            self._heartbeat = block.heartbeat
        return block

    def write(self, address: int, words: list[int]) -> None:
        _registers(self.client.write_registers(address, words, device_id=self._unit))

    def wait(self, condition: Callable[[Block], object], *, within_s: float = 20.0) -> Block:
        """The first block for which *condition* holds. Raises ModbusException when there is none in time."""
        deadline_s = time.monotonic() + within_s
        while not condition(block := self.block()):
            if time.monotonic() > deadline_s:
                raise ModbusException(f"timeout, at last {block}")
            time.sleep(0.005)
        return block

    def may_pass(self, number: int, *, within_s: float = 20.0, at: Callable[[str], None] = lambda _step: None) -> bool:
        """The whole handshake for board *number*; *at* hears of each step. Any doubt is a reject."""
        try:
            self.write(0, [0, 0, 0])
            self.block()
            before = self.wait(lambda one: Status.READY in one.status and self._beaten_s > 0, within_s=within_s)
            at("ready")
            self.write(0, [Control.TRIGGER, number >> 16, number & 0xFFFF])
            self.wait(lambda one: Status.TRIGGER_ACK in one.status, within_s=within_s)
            at("triggered")
            self.write(0, [0])
            at("lowered")
            self.wait(lambda one: Status.RESULT_VALID in one.status, within_s=within_s)
            at("valid")
            block = self.block()
            passes = (
                block.passes(number)
                and block.results == (before.results + 1) % 65536
                and time.monotonic() - self._beaten_s < HEARTBEAT_LIMIT_S
            )
            self.write(0, [Control.RESULT_ACK])
            self.wait(lambda one: Status.RESULT_VALID not in one.status, within_s=within_s)
            self.write(0, [0])
        except ModbusException:
            return False
        return passes


def _registers(answer: ModbusPDU) -> list[int]:
    if answer.isError():
        raise ModbusException(f"exception code {answer.exception_code}")
    return list(answer.registers)
