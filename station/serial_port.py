"""One serial port, opened again whenever it was lost, and the only pyserial import."""

from __future__ import annotations

import errno
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import serial
import structlog

from station.errors import GateError, PortError
from station.framing import Chunks, Counts, Lines
from station.log import is_said
from station.types import Beat, Stop

log = structlog.get_logger(__name__)

WAIT_S = 0.25  # the longest wait for a byte; one that comes ends it at once
WRITE_S = 0.5  # a write that flow control holds up for longer has failed
CHUNK_BYTES = 4096
SILENCE_S = 0.5  # within a line; a sender pauses for less, even at 50 baud, and half a line must not become another's
STALLED_S = 1.0  # without a look at the port for longer (a turn takes WAIT_S), nobody knows when its bytes came
TROUBLE = (serial.SerialException, OSError, termios.error)  # pyserial lets the last one through, which is no OSError


@dataclass(frozen=True, slots=True)
class SerialOptions:
    """
    Which port, and how it talks. *port*: best by its lasting name, ``/dev/serial/by-id/…``; ``socket://HOST:PORT`` is a
    network converter, which has no login. *terminator* ends each line, in both directions; empty: there are no lines,
    and who listens gets the bytes as they come.
    """

    port: str
    baud: int = 9600
    bits: Literal[7, 8] = 8
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1
    terminator: str = "\r"
    max_line_bytes: int = 256


@dataclass(slots=True)
class _Listener:
    on_line: Callable[[bytes, float], bool]
    on_open: Callable[[], None] = field(default=lambda: None)


class SerialPort:
    """
    Implements ``types.Port``; ``run`` is the loop that a Worker supervises, and *name* its name there.

    The port is ours alone (an exclusive lock), DTR and RTS stay low so that nothing at the other end is reset or
    switched by the opening, and what lay in it before is thrown away: an old trigger is nobody's trigger. The same goes
    for what came while it was not read for STALLED_S.
    """

    def __init__(
        self, options: SerialOptions, *, name: str, beat: Beat, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._options = options
        self._name = name
        self._beat = beat
        self._monotonic = monotonic
        self._listeners: list[_Listener] = []
        self._lines: Lines | Chunks = (
            Lines(options.terminator.encode(), max_bytes=options.max_line_bytes) if options.terminator else Chunks()
        )
        self._lock = threading.Lock()  # over the open port: a write never meets a close
        self._port: serial.SerialBase | None = None
        self._connected = False
        self._looked_s = self._heard_s = float("-inf")  # when it was last read, and when that last gave something

    @property
    def connected(self) -> bool:
        """Whether it is open, and every listener has heard so: nobody says READY before the gate has said otherwise."""
        return self._connected

    @property
    def counts(self) -> Counts:
        """What came so far; *noise* are lines that nobody took, and halves of lines."""
        return self._lines.counts

    def listen(self, on_line: Callable[[bytes, float], bool], on_open: Callable[[], None] = lambda: None) -> None:
        self._listeners.append(_Listener(on_line, on_open))

    def write(self, data: bytes) -> None:
        with self._lock:
            if self._port is None:
                raise GateError(f"the serial port {self._options.port} is away")
            try:
                written = self._port.write(data)
            except TROUBLE as error:
                raise GateError(f"the serial port {self._options.port} took no bytes: {_reason(error)}") from None
            if written is not None and written != len(data):
                raise GateError(f"the serial port {self._options.port} took {written} of {len(data)} bytes")

    def run(self, stop: Stop) -> None:
        """Opens the port and reads it until *stop*. Raises PortError when it cannot be opened, or is lost."""
        port = self._open()
        self._looked_s = self._monotonic()
        try:
            self._lines.clear()
            with self._lock:
                self._port = port
            log.info("serial port open", port=self._options.port, name=self._name)
            for listener in self._listeners:
                listener.on_open()
            self._connected = True
            while not stop.is_set():
                self._beat(self._name)
                self._read(port)
        except TROUBLE as error:
            raise PortError(f"the serial port {self._options.port} was lost: {_reason(error)}") from None
        finally:
            self._connected = False
            with self._lock:
                self._port = None
                close(port)

    def probe(self) -> None:
        """Opens the port and closes it again: can it be had? Raises PortError."""
        close(self._open())

    def _read(self, port: serial.SerialBase) -> None:
        data = port.read(1)  # waits in select
        if data:
            data += port.read(min(port.in_waiting, CHUNK_BYTES))
        now_s = self._monotonic()
        stalled_s, self._looked_s = now_s - self._looked_s, now_s
        if stalled_s > STALLED_S and (data or port.in_waiting):
            self._forget(port, stalled_s)
            return
        if not data:
            if now_s - self._heard_s > SILENCE_S:
                self._lines.silence()
            return
        self._heard_s = now_s
        for line in self._lines.feed(data):
            if not any(listener.on_line(line, now_s) for listener in self._listeners):
                self._lines.counts.noise += 1
                count = self._lines.counts.noise
                say = log.warning if is_said(count) else log.debug
                say(
                    "serial line not understood",
                    name=self._name,
                    line=line[:80].decode("ascii", "replace"),
                    lines=count,
                )

    def _forget(self, port: serial.SerialBase, stalled_s: float) -> None:
        """As after opening: the process stood still, or a listener took long. An old trigger is nobody's trigger."""
        port.reset_input_buffer()
        self._lines.clear()
        log.warning("serial port not read for long, what lay in it is dropped", name=self._name, seconds=stalled_s)
        for listener in self._listeners:
            listener.on_open()

    def _open(self) -> serial.SerialBase:
        options = self._options
        try:
            port = serial.serial_for_url(
                options.port,
                do_not_open=True,
                baudrate=options.baud,
                bytesize=options.bits,
                parity={"none": "N", "even": "E", "odd": "O"}[options.parity],
                stopbits=options.stop_bits,
                timeout=WAIT_S,
                write_timeout=WRITE_S,
                exclusive=True,
            )
            port.dtr = port.rts = False
            port.open()
        except ValueError as error:
            raise PortError(f"the serial port {options.port}: {error}") from None
        except TROUBLE as error:
            raise PortError(_why_not(options.port, error)) from None
        return port


def close(port: serial.SerialBase) -> None:
    """Closes at once: an open descriptor of a lost USB adapter makes the next one come back under another name."""
    try:
        port.close()
    except TROUBLE as error:
        log.debug("serial port close failed", reason=_reason(error))


def _why_not(name: str, error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number is None and isinstance(error, termios.error) and error.args:
        number = error.args[0]
    if number == errno.EINVAL:
        what = "does not take these settings: look at baud, bits, parity and stop_bits"
    elif number == errno.ENOENT:
        what = "is not there: is it plugged in? (ls -l /dev/serial/by-id)"
    elif number == errno.EACCES:
        what = "may not be used by this user: add it to the group dialout"
    elif number in {errno.EAGAIN, errno.EBUSY}:
        what = "is in use by another program: end it (fuser -v shows it)"
    elif number == errno.ECONNREFUSED:
        what = "refuses the connection: is the converter on, and its port right?"
    else:
        what = f"cannot be opened: {_reason(error)}"
    return f"the serial port {name} {what}"


def _reason(error: Exception) -> str:
    """pyserial's words, without what it wraps them in."""
    number = getattr(error, "errno", None)
    if number is None and isinstance(error, termios.error) and error.args:
        number = error.args[0]
    return errno.errorcode.get(number, str(error)) if isinstance(number, int) else str(error)
