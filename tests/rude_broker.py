"""A broker without manners: it speaks just enough MQTT 3.1.1 and 5 to refuse, to forget, to stall and to lie."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK, PINGREQ, PINGRESP, DISCONNECT = 0x10, 0x20, 0x30, 0x40, 0xC0, 0xD0, 0xE0


@dataclass(frozen=True, slots=True)
class Manners:
    """How it behaves. *puback* gets the number of an event (0, 1, ...) and says its reason code, or None: no answer."""

    levels: frozenset[int] = frozenset({4, 5})  # protocol levels: 4 is MQTT 3.1.1
    refuses_level_by: int | None = 0x84  # the CONNACK code for other levels; None: hangs up
    connack: int | None = 0  # reason code; None: takes the connection and says nothing
    greets_with: bytes | None = None  # instead of any CONNACK
    hangs_up: int = 0  # so many times at the CONNECT, without a word
    properties: bytes = b""  # of the CONNACK
    puback: Callable[[int], int | None] = lambda _number: 0
    times: int = 1  # how often it says the same PUBACK
    state_puback: int | None = 0
    after_connack: Callable[[Visit], None] = lambda _visit: None
    pongs: bool = True


@dataclass(frozen=True, slots=True)
class Connect:
    level: int
    flags: int
    keepalive_s: int

    @property
    def clean(self) -> bool:
        return bool(self.flags & 0x02)


@dataclass(frozen=True, slots=True)
class Publish:
    visit: int
    packet_id: int
    topic: str
    payload: bytes
    retain: bool
    dup: bool


def receive_maximum(count: int) -> bytes:
    return b"\x21" + struct.pack("!H", count)


def maximum_packet_size(size_bytes: int) -> bytes:
    return b"\x27" + struct.pack("!I", size_bytes)


def server_keep_alive(seconds: int) -> bytes:
    return b"\x13" + struct.pack("!H", seconds)


class Visit:
    """One connection, in a thread of its own, and what a test may do to it."""

    def __init__(self, broker: RudeBroker, sock: socket.socket, number: int) -> None:
        self.number = number
        self.level = 0
        self.deaf = threading.Event()  # set: reads nothing more, answers nothing, and sends no FIN
        self.over = threading.Event()
        self._broker = broker
        self._sock = sock
        self._thread = threading.Thread(target=self._serve, name=f"rude-{number}", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def say(self, kind: int, body: bytes = b"") -> None:
        assert len(body) < 128
        self.raw(bytes((kind, len(body))) + body)

    def raw(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # the other side may be gone: that is its good right
            self._sock.sendall(data)

    def acknowledge(self, packet_id: int, code: int = 0) -> None:
        reason = bytes((code,)) if self.level == 5 and code else b""
        self.say(PUBACK, struct.pack("!H", packet_id) + reason)

    def disconnect(self, code: int) -> None:
        """MQTT 5 says why before it closes."""
        self.say(DISCONNECT, bytes((code, 0)))
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self.deaf.clear()
        self.close()
        self._thread.join(30)

    def _serve(self) -> None:
        try:
            with self._sock:
                while not self._broker.closing.is_set():
                    packet = self._packet()
                    if packet is None or not self._answer(*packet):
                        break
                    while self.deaf.is_set() and not self._broker.closing.wait(0.01):
                        pass
        finally:
            self.over.set()

    def _packet(self) -> tuple[int, bytes] | None:
        first = self._exactly(1)
        length, shift = 0, 0
        while first:
            byte = self._exactly(1)
            if not byte:
                return None
            length |= (byte[0] & 0x7F) << shift
            shift += 7
            if byte[0] < 0x80:
                body = self._exactly(length)
                return (first[0], body) if len(body) == length else None
        return None

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self._sock.recv(count - len(data))
            except OSError:
                return b""
            if not more:
                return b""
            data += more
        return data

    def _answer(self, first: int, body: bytes) -> bool:
        manners = self._broker.manners
        match first & 0xF0:
            case 0x10:
                return self._welcome(body, manners)
            case 0x30:
                self._take(first, body, manners)
            case 0xC0:
                self._broker.pings.append(self.number)
                if manners.pongs:
                    self.say(PINGRESP)
            case 0xE0:
                self._broker.goodbyes.append(self.number)
                return False
            case _:
                pass
        return True

    def _welcome(self, body: bytes, manners: Manners) -> bool:
        self.level, flags, keepalive_s = struct.unpack("!BBH", body[6:10])
        self._broker.connects.append(Connect(self.level, flags, keepalive_s))
        if self.number < manners.hangs_up:
            return False
        if manners.greets_with is not None:
            self.raw(manners.greets_with)
            return True
        if manners.connack is None:
            return True
        code = manners.connack
        if self.level not in manners.levels:
            if manners.refuses_level_by is None:
                return False
            code = manners.refuses_level_by
        if self.level == 5 and code != 1:
            self.say(CONNACK, bytes((0, code, len(manners.properties))) + manners.properties)
        else:
            self.say(CONNACK, bytes((0, code)))
        if code == 0:
            manners.after_connack(self)
        return code == 0

    def _take(self, first: int, body: bytes, manners: Manners) -> None:
        at = 2 + struct.unpack("!H", body[:2])[0]
        topic = body[2:at].decode()
        packet_id = 0
        if first & 0x06:
            packet_id = struct.unpack("!H", body[at : at + 2])[0]
            at += 2
        if self.level == 5:
            at += 1 + body[at]  # its properties
        publish = Publish(self.number, packet_id, topic, body[at:], bool(first & 0x01), bool(first & 0x08))
        is_state = topic.endswith("/state")
        with self._broker.lock:
            ours = self._broker.states if is_state else self._broker.events if packet_id else self._broker.told
            number = len(ours)
            ours.append(publish)
        if packet_id:
            code = manners.state_puback if is_state else manners.puback(number)
            if code is not None:
                for _ in range(manners.times):
                    self.acknowledge(packet_id, code)


class RudeBroker:
    """Listens on a loopback port of its own. ``manners`` may be changed at any time; the lists tell what came."""

    def __init__(self, manners: Manners | None = None) -> None:
        self.manners = manners or Manners()
        self.connects: list[Connect] = []
        self.states: list[Publish] = []
        self.events: list[Publish] = []
        self.told: list[Publish] = []
        self.pings: list[int] = []  # the numbers of the visits
        self.goodbyes: list[int] = []  # ditto
        self.visits: list[Visit] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, name="rude", daemon=True)

    @property
    def visit(self) -> Visit:
        """The connection that was made last."""
        return self.visits[-1]

    def __enter__(self) -> RudeBroker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        self._listener.close()
        for visit in self.visits:
            visit.end()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            visit = Visit(self, sock, len(self.visits))
            self.visits.append(visit)  # first: a test that finds the link connected looks for the visit here
            visit.begin()
