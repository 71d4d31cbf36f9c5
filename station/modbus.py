"""The station as a Modbus server, over TCP or a serial line (RTU), and the only pymodbus import."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import time
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol, cast

import structlog
from pymodbus.constants import ExcCodes
from pymodbus.datastore import ModbusServerContext
from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ExceptionResponse, ModbusPDU

from station.errors import GateError, PortError
from station.modbus_map import Refused, Table
from station.types import Beat, Port, Stop

log = structlog.get_logger(__name__)
# A master that sends rubbish would fill the log: it gets its exception code, and we count on its own diagnosis.
logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)

WRITE_SINGLE_COIL = 5
TABLES = {
    **dict.fromkeys((1, WRITE_SINGLE_COIL, 15), Table.COILS),
    2: Table.DISCRETE_INPUTS,
    **dict.fromkeys((3, 6, 16, 22, 23), Table.HOLDING_REGISTERS),
    4: Table.INPUT_REGISTERS,
}  # by function code; there are no others here
TURN_S = 0.25
STALLED_S = 1.0  # without a turn for longer, as with a serial port
MAX_CLIENTS = 8
MAX_ADU_BYTES = 260  # Modbus Messaging on TCP/IP Implementation Guide, 4.1: MBAP header and at most 253 bytes
MAX_UNREAD_BYTES = 65536  # of responses that a client does not fetch
SILENCE_S = 0.1  # between two frames on a serial line there are 3.5 characters; USB adapters make more of it
NOBODY = b"\0"  # the unit of no station: put before what is kept of too long a buffer, so that no frame begins there


class Registers(Protocol):
    """What is served. Called from any thread; must be quick."""

    def read(self, table: Table, address: int, count: int) -> list[int] | Refused: ...

    def write(self, table: Table, address: int, values: Sequence[int], *, at_s: float) -> Refused | None: ...


class _Datastore:
    """What pymodbus's requests work on, in place of its own: the names are theirs."""

    def __init__(self, registers: Registers, at_s: float) -> None:
        self._registers = registers
        self._at_s = at_s

    async def async_getValues(  # noqa: N802  # theirs
        self, _unit: int, function: int, address: int, count: int
    ) -> list[int] | list[bool] | ExcCodes:
        found = self._registers.read(TABLES[function], address, count)
        if isinstance(found, Refused):
            return ExcCodes(found.value)
        return [bool(one) for one in found] if function in {1, 2, 5, 15} else found

    async def async_setValues(  # noqa: N802  # theirs
        self, _unit: int, function: int, address: int, values: Sequence[int]
    ) -> ExcCodes | None:
        refused = self._registers.write(TABLES[function], address, list(values), at_s=self._at_s)
        return None if refused is None else ExcCodes(refused.value)


class _Server:
    """Answers one request after the other, however it came."""

    def __init__(self, registers: Registers) -> None:
        self._registers = registers
        self._decoder = DecodePDU(True)

    def answer(self, request: bytes, *, unit: int, transaction: int, at_s: float) -> ModbusPDU:
        """The response to *request*: function code and data."""
        function = request[0]
        if function not in TABLES:
            response: ModbusPDU = ExceptionResponse(function, ExcCodes.ILLEGAL_FUNCTION)
        elif (decoded := self._decoder.decode(request)) is None or _neither_on_nor_off(request):
            response = ExceptionResponse(function, ExcCodes.ILLEGAL_VALUE)
        else:
            datastore = cast(ModbusServerContext, _Datastore(self._registers, at_s))
            response = _done(decoded.datastore_update(datastore, unit))
        response.dev_id, response.transaction_id = unit, transaction
        return response

    @property
    def decoder(self) -> DecodePDU:
        return self._decoder


class ModbusTcp:
    """
    Serves *registers* on a TCP port; ``run`` is the loop that a Worker supervises, and *name* its name there.

    Modbus has no login: whoever reaches the port can trigger and acknowledge. At most MAX_CLIENTS are connected; one
    more takes the place of the one that has been silent the longest. After a standstill of STALLED_S (the process was
    halted) all are put out: nobody knows how old what they sent meanwhile is.
    """

    def __init__(
        self, registers: Registers, *, host: str, port: int, unit: int, beat: Beat, name: str = "modbus"
    ) -> None:
        self._host = host
        self._port = port
        self._beat = beat
        self._name = name
        self._server = _Server(registers)
        self._units = {unit, 0, 255}  # the last two are what a master says that needs none (the same guide, 4.4.2.2)
        self._clients: dict[_Client, float] = {}  # and when each last spoke
        self._turned_s = 0.0
        self.bound: tuple[str, int] | None = None

    def run(self, stop: Stop) -> None:
        """Serves until *stop*; then every connection is closed. Raises PortError when the port cannot be had."""
        asyncio.run(self._serve(stop))

    async def _serve(self, stop: Stop) -> None:
        failures: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: failures.append(context))
        try:
            server = await loop.create_server(lambda: _Client(self), self._host, self._port)
        except OSError as error:
            raise PortError(_why_not(self._host, self._port, error)) from None
        try:
            address = server.sockets[0].getsockname()
            self.bound = (address[0], address[1])
            if not ipaddress.ip_address(address[0]).is_loopback:
                log.warning("modbus open to the network", host=address[0], reason="Modbus has no login")
            log.info("modbus open", host=address[0], port=address[1])
            self._turned_s = time.monotonic()
            while not stop.is_set():
                self._beat(self._name)
                await asyncio.to_thread(stop.wait, TURN_S)
                self._put_out_the_stale(time.monotonic())
                if failures:
                    raise RuntimeError(failures[0]["message"]) from failures[0].get("exception")
        finally:
            self.bound = None
            server.close()
            for client in list(self._clients):
                client.close()
            await server.wait_closed()

    def joined(self, client: _Client) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            silent = min(self._clients, key=lambda one: self._clients[one])
            log.warning("modbus client put out", reason=f"{MAX_CLIENTS} are connected, and this one was silent longest")
            self.left(silent)
            silent.close()
        self._clients[client] = time.monotonic()

    def _put_out_the_stale(self, now_s: float) -> bool:
        """Whether it stood still."""
        stalled_s, self._turned_s = now_s - self._turned_s, now_s
        if stalled_s <= STALLED_S:
            return False
        if self._clients:
            log.warning("modbus clients put out", reason=f"nothing was read for {stalled_s:.1f} s")
        for client in list(self._clients):
            client.close()
        return True

    def left(self, client: _Client) -> None:
        self._clients.pop(client, None)

    def answers(self, client: _Client, buffer: bytearray) -> bytes | None:
        """The responses to the whole requests in *buffer*, which go from it; None: this is no Modbus, or too old."""
        at_s = time.monotonic()
        if self._put_out_the_stale(at_s):
            return None
        self._clients[client] = at_s
        framer = FramerSocket(self._server.decoder)
        found = b""
        while len(buffer) >= framer.MIN_SIZE:
            length = 6 + int.from_bytes(buffer[4:6], "big")
            if any(buffer[2:4]) or not framer.MIN_SIZE <= length <= MAX_ADU_BYTES:
                return None
            if len(buffer) < length:
                break
            _, unit, transaction, request = framer.decode(bytes(buffer[:length]))
            del buffer[:length]
            if unit in self._units:
                response = self._server.answer(request, unit=unit, transaction=transaction, at_s=at_s)
            else:
                response = ExceptionResponse(request[0], ExcCodes.GATEWAY_NO_RESPONSE, unit, transaction)
            found += framer.buildFrame(response)
        self._turned_s = time.monotonic()  # one that asks a great deal at once is no standstill
        return found


class _Client(asyncio.Protocol):  # the one way to be told by asyncio without a task for each connection
    """One connection."""

    def __init__(self, server: ModbusTcp) -> None:
        self._server = server
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.joined(self)
        log.info("modbus client joined", peer=str(transport.get_extra_info("peername")))

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._buffer += data
        answers = self._server.answers(self, self._buffer)
        if answers is None:
            if not self._transport.is_closing():
                log.warning("modbus client put out", reason="what it sends is no Modbus TCP")
                self.close()
            return
        self._transport.write(answers)
        if self._transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            log.warning("modbus client put out", reason="it asks and does not read the answers")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.left(self)
        log.info("modbus client left", reason=None if exc is None else str(exc))

    def close(self) -> None:
        """At once: what it has not read of an answer, it shall not read later."""
        if self._transport is not None:
            self._transport.abort()


class ModbusRtu:
    """
    Serves *registers* as unit *unit* on a serial *port* that hands on bytes as they come: its ``terminator`` is empty.

    It has no loop of its own: the port reads, reopens and reports. What is for other units, or for all of them, is
    left alone; half a frame is forgotten when the line falls silent.

    Where other units share the line it is seldom silent for SILENCE_S, and their answers cannot be told from requests.
    A request for us is then recognised at the end of the buffer: valid checksum, nothing after it. If another unit's
    frame contains bytes that look like one, the rest of that frame follows, unless we read the port at exactly that
    point.
    """

    def __init__(self, registers: Registers, port: Port, *, unit: int) -> None:
        self._port = port
        self._unit = unit
        self._server = _Server(registers)
        self._buffer = b""
        self._last_s = float("-inf")
        port.listen(self._on_bytes, self._on_open)

    def _on_open(self) -> None:
        self._buffer = b""

    def _on_bytes(self, data: bytes, at_s: float) -> bool:
        if at_s - self._last_s > SILENCE_S:
            self._buffer = b""
        self._last_s = at_s
        before, self._buffer = len(self._buffer), self._buffer + data
        first = self._length(self._buffer)
        if len(self._buffer) < first:
            return True  # the rest is on its way
        request = self._request(first)
        if request is None:
            if len(self._buffer) > MAX_ADU_BYTES:
                self._buffer = NOBODY + self._buffer[-MAX_ADU_BYTES:]
            return not before < first  # it is whole by now and its checksum is wrong: noise, once
        self._buffer = b""
        response = self._server.answer(request[1:-2], unit=self._unit, transaction=0, at_s=at_s)
        try:
            self._port.write(FramerRTU(self._server.decoder).buildFrame(response))
        except GateError as error:  # the master asks again; the port's own loop says what is wrong
            log.debug("modbus response not sent", reason=str(error))
        return True

    def _length(self, frame: bytes) -> int:
        """How long the request is that *frame* begins with; 0: it is not for us, or too short to tell."""
        if len(frame) < FramerRTU.MIN_SIZE or frame[0] != self._unit or frame[1] & 0x80:  # a request is no exception
            return 0
        kind = self._server.decoder.lookupPduClass(frame)
        return 0 if kind is None else kind.calculateRtuFrameSize(frame)

    def _request(self, first: int) -> bytes | None:
        """The whole request for us at the end of the buffer, else that of *first* bytes at its beginning (0: none)."""
        came = self._buffer
        starts = [at for at in range(len(came)) if self._length(came[at:]) == len(came) - at]
        found = [came[at:] for at in starts] + [came[:first]]
        return next((one for one in found if one and _is_whole(one)), None)


def probe(host: str, port: int) -> None:
    """Takes the TCP port and leaves it again: can it be had? Raises PortError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as error:
        raise PortError(_why_not(host, port, error)) from None


def _is_whole(frame: bytes) -> bool:
    return FramerRTU.check_CRC(frame[:-2], int.from_bytes(frame[-2:], "big"))


def _done(response: Coroutine[Any, Any, ModbusPDU]) -> ModbusPDU:
    """Runs what pymodbus wrote for an event loop: our datastore never waits for one."""
    try:
        response.send(None)
    except StopIteration as finished:
        return cast(ModbusPDU, finished.value)
    raise RuntimeError("pymodbus waits for something that is not ours")


def _neither_on_nor_off(request: bytes) -> bool:
    """For pymodbus all but 0 is ON, and noise in a single coil's value would be a trigger."""
    return request[0] == WRITE_SINGLE_COIL and request[3:] not in {b"\xff\x00", b"\x00\x00"}


def _why_not(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            what = (
                "is in use by another program, or another station: end it (ss -ltnp shows it), or choose another port"
            )
        case errno.EACCES:
            what = "is not allowed: ports below 1024 are root's. Choose another, such as 5020, here and in the PLC"
        case errno.EADDRNOTAVAIL:
            what = f"cannot be opened: {host} is no address of this computer (ip address shows them)"
        case _:
            what = f"cannot be opened: {error.strerror or error}"
    return f"[modbus] host {host}, tcp_port {port} {what}"
