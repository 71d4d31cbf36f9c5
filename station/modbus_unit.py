"""The handshake with a PLC over Modbus: what its registers say, and what follows when it writes them. No I/O."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from station.errors import GateError
from station.health import Health
from station.modbus_map import (
    ALL_CONTROL,
    CODES,
    MIRROR,
    VERSION,
    WRITABLE,
    Control,
    Faults,
    Refused,
    Status,
    Table,
    bits_of,
    board_serial_of,
)
from station.types import Answer, Beat, Stop, Verdict

log = structlog.get_logger(__name__)

TURN_S = 0.25
SILENT_S = 5.0  # a PLC polls many times a second; one that has not for so long is not there
FAULT = "modbus_silent"

ACKNOWLEDGED = "acknowledged"


@dataclass(frozen=True, slots=True)
class Times:
    """
    *valid_s*: how long a result stands (0: until it is acknowledged, or the next trigger). *ack_s*: how long the PLC
    may take to acknowledge it (0: it need not).
    """

    heartbeat_s: float = 0.5
    ack_s: float = 0.0
    valid_s: float = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    verdict: Verdict
    number: int
    until_s: float


@dataclass(slots=True, eq=False)
class _Board:
    """*followed*: the PLC has asked again since, and could take this one's PASS for that of the later board."""

    number: int | None
    board_serial: str | None
    at_s: float
    followed: bool = False


class ModbusUnit:
    """
    Implements ``types.Gate``, and asks for boards: *arrived* gets (number, board serial, ``time.monotonic``) at each
    rising edge of TRIGGER, in the thread that writes; it returns None when there will be no answer.

    ``run`` is the loop that a Worker supervises: it counts the heartbeat while *alive* says that the station really
    works (None), else why it does not. While it does not, and while ``run`` does not run, there is no PASS.
    ``read`` and ``write`` may be called from any thread; each sees, or makes, one consistent state.
    """

    def __init__(
        self,
        times: Times,
        *,
        alive: Callable[[], str | None],
        arrived: Callable[[int | None, str | None, float], object],
        beat: Beat,
        health: Health,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._times = times
        self._alive = alive
        self._arrived = arrived
        self._beat = beat
        self._health = health
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._written = [0] * WRITABLE
        self._safe: str | None = "the station is starting"  # why there is no PASS; None: there may be
        self._ended: str | None = None  # why there will be none any more
        self._latched = Faults(0)
        self._busy = False
        self._trigger_ack = False
        self._open: deque[_Board] = deque()  # asked for here and without an answer yet, which come in the same order
        self._result: _Result | None = None
        self._gone = ""  # why the last result stands no longer
        self._heartbeat = self._results = self._triggers = 0
        self._seen_s = monotonic()

    def show(self, answer: Answer) -> None:
        why = self._alive() if answer.verdict is Verdict.PASS else None  # as fresh as can be
        with self._changed:
            if why is not None:
                self._go_safe(why)
            ours = answer.trigger is not None and answer.trigger.kind == "modbus"
            board = self._open.popleft() if ours and self._open else None
            self._replace("the next result came")
            withheld = self._withheld(answer, board)
            valid_s, now_s = self._times.valid_s, self._monotonic()
            result = _Result(
                answer.verdict if withheld is None else Verdict.UNKNOWN,
                _number_of(answer),
                now_s + valid_s if valid_s else float("inf"),
            )
            self._result = result
            self._results = (self._results + 1) % 65536
            if withheld is not None:
                raise GateError(f"no PASS was shown: {withheld}")
            if self._times.ack_s:
                self._wait_for_ack(result, min(now_s + self._times.ack_s, answer.until_s))
            elif now_s - self._seen_s > SILENT_S:
                raise GateError(f"nobody reads the result: {_silent()}")

    def busy(self, busy: bool) -> None:
        with self._changed:
            self._busy = busy

    def safe(self, why: str) -> None:
        with self._changed:
            self._ended = why
            self._go_safe(why)

    def run(self, stop: Stop) -> None:
        """Counts the heartbeat, ends results in time and follows how the station is, until *stop*; then it is safe."""
        next_s = self._monotonic()
        try:
            while not stop.is_set():
                self._beat("gate")
                why = self._alive()  # before the lock: what is asked may take a moment
                with self._changed:
                    now_s = self._monotonic()
                    self._expire(now_s)
                    if (why := self._ended or why) is not None:
                        self._go_safe(why)
                    else:
                        self._safe = None
                        if now_s >= next_s:
                            next_s = now_s + self._times.heartbeat_s
                            self._heartbeat = self._heartbeat % 65535 + 1  # 0 is: it never worked
                    silent = now_s - self._seen_s > SILENT_S
                if silent:
                    self._health.begin(FAULT, _silent())
                else:
                    self._health.end(FAULT)
                stop.wait(max(0.01, min(TURN_S, next_s - now_s)) if why is None else TURN_S)
        finally:
            with self._changed:
                self._go_safe("the station was stopped")

    def read(self, table: Table, address: int, count: int) -> list[int] | Refused:
        """*count* registers, or bits (0, 1), from *address* on."""
        with self._changed:
            now_s = self._seen_s = self._monotonic()
            self._expire(now_s)
            control, status = self._written[0], self._status()
            match table:
                case Table.COILS:
                    known, first = bits_of(control, ALL_CONTROL.bit_length()), 0
                case Table.DISCRETE_INPUTS:
                    known, first = bits_of(status[0] | status[1] << 16, 32), 0
                case Table.INPUT_REGISTERS:
                    known, first = status, 0
                case Table.HOLDING_REGISTERS:
                    known, first = (status, MIRROR) if address >= MIRROR else (self._written, 0)
            at = address - first
            return list(known[at : at + count]) if at + count <= len(known) else Refused.ADDRESS

    def write(self, table: Table, address: int, values: Sequence[int], *, at_s: float) -> Refused | None:
        """
        Stores what the PLC wrote, which came at *at_s* (``time.monotonic``), all of it or nothing, and does what rose.
        Returns when a board that was asked for is on disk.
        """
        with self._changed:
            self._seen_s = self._monotonic()
            before = self._written[0]
            if table is Table.COILS:
                if address + len(values) > ALL_CONTROL.bit_length():
                    return Refused.ADDRESS
                mask = ((1 << len(values)) - 1) << address
                bits = sum(bool(one) << address + place for place, one in enumerate(values))
                address, values = 0, [before & ~mask | bits]
            if table not in {Table.COILS, Table.HOLDING_REGISTERS} or address + len(values) > WRITABLE:
                return Refused.ADDRESS
            control = values[0] if address == 0 else before
            if control & ~int(ALL_CONTROL):  # an IntFlag's own inverse knows no other bits
                return Refused.VALUE
            if before & ~control & Control.TRIGGER:
                self._forget_board()  # a repeated write may have left it there: it is nobody's any more
                self._trigger_ack = False
            self._written[address : address + len(values)] = values
            rose = control & ~before
            if rose & Control.RESULT_ACK:
                self._end(ACKNOWLEDGED)
            if rose & Control.CLEAR:
                self._latched = Faults(0)
            board = self._asked(at_s) if rose & Control.TRIGGER else None
        if board is not None:
            self._ask(board)
        return None

    def _asked(self, at_s: float) -> _Board | None:
        """TRIGGER rose: what stands is of the board before, and what was written is of this one, once."""
        self._replace("the next board was triggered")
        board = _Board(
            (self._written[1] << 16 | self._written[2]) or None, board_serial_of(self._written[3:WRITABLE]), at_s
        )
        self._forget_board()
        for earlier in self._open:
            earlier.followed |= not earlier.number or earlier.number == board.number
        if self._ended is not None:
            self._latched |= Faults.MISSED
            log.warning("modbus trigger not taken", number=board.number, reason=self._ended)
            return None
        self._open.append(board)
        return board

    def _ask(self, board: _Board) -> None:
        """Without the lock: this commits to the disk, and the answer may come at once."""
        taken = self._arrived(board.number, board.board_serial, board.at_s) is not None
        with self._changed:
            if taken:
                self._triggers = (self._triggers + 1) % 65536
                self._trigger_ack = bool(self._written[0] & Control.TRIGGER)
            else:
                self._open.remove(board)  # no answer took it: there is none
                self._latched |= Faults.MISSED

    def _forget_board(self) -> None:
        self._written[1:WRITABLE] = [0] * (WRITABLE - 1)

    def _withheld(self, answer: Answer, board: _Board | None) -> str | None:
        """Why this PASS, of *board* if it was asked for here, may not be shown; None: it may, or it is none."""
        if answer.verdict is not Verdict.PASS:
            return None
        if self._safe is not None:
            return f"the gate is in its safe state ({self._safe})"
        if board is not None and board.followed:
            return "the next board was triggered before this one was answered, and no number tells them apart"
        return None

    def _wait_for_ack(self, result: _Result, deadline_s: float) -> None:
        while self._result is result:
            now_s = self._monotonic()
            self._expire(now_s)
            if now_s >= deadline_s:
                self._replace(f"no acknowledgement within {self._times.ack_s * 1e3:g} ms ([modbus] ack_ms)")
            elif self._result is result:
                self._changed.wait(min(deadline_s, result.until_s) - now_s)
        if self._gone != ACKNOWLEDGED:
            raise GateError(f"the PLC did not acknowledge the result, which was taken back: {self._gone}")

    def _replace(self, why: str) -> None:
        """The result that stands, if any, goes without having been acknowledged."""
        if self._result is not None:
            self._latched |= Faults.OVERRUN
            self._end(why)

    def _expire(self, now_s: float) -> None:
        if self._result is not None and now_s >= self._result.until_s:
            self._end(f"its time was over ({self._times.valid_s * 1e3:g} ms, [modbus] valid_ms)")

    def _end(self, why: str) -> None:
        if self._result is not None:
            self._result, self._gone = None, why
            self._changed.notify_all()

    def _go_safe(self, why: str) -> None:
        """A PASS is taken back; a REJECT may stand, since it is what safe means."""
        if self._result is not None and self._result.verdict is Verdict.PASS:
            self._end(f"the gate went safe ({why})")
        if self._safe is None:
            log.warning("gate is safe", reason=why)
        self._safe = why

    def _status(self) -> list[int]:
        """The input registers."""
        result, status, faults = self._result, Status(0), self._latched
        if self._safe is not None:
            faults |= Faults.NOT_WORKING
        elif not (self._busy or self._open or self._trigger_ack or self._written[0] & Control.TRIGGER):
            status |= Status.READY
        if self._ended is not None:
            faults |= Faults.STOPPED
        if self._trigger_ack:
            status |= Status.TRIGGER_ACK
        if self._busy or self._open:
            status |= Status.BUSY
        code = number = 0
        if result is not None:
            code, number = CODES[result.verdict], result.number
            status |= Status.RESULT_VALID | (Status.PASS if result.verdict is Verdict.PASS else Status.REJECT)
        counters = [self._results, self._triggers, VERSION]
        return [int(status), int(faults), self._heartbeat, code, number >> 16, number & 0xFFFF, *counters]


def _number_of(answer: Answer) -> int:
    """0 where it has none, or one that does not fit: no PLC takes that for its board's."""
    number = None if answer.trigger is None else answer.trigger.number
    return number if number is not None and 0 <= number < 1 << 32 else 0


def _silent() -> str:
    return (
        f"no PLC has spoken to the station over Modbus for more than {SILENT_S:g} s: does it run, is it connected, "
        "and are [modbus] host, port (or device) and unit what it is set to?"
    )
