"""What lies between station and broker: a proxy that knows MQTT, sees what was acknowledged, and may misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from tests.packets import CONNECT, PUBACK, PUBLISH, QOS_1, body_of, event_id_of, packets, published

QUOTA_EXCEEDED, NOT_AUTHORIZED = 0x97, 0x87


class Mood(Enum):
    KIND = "kind"
    STALLED = "stalled"  # takes connections, moves nothing; what came is delivered afterwards
    SWALLOWING = "swallowing"  # PUBACKs disappear
    FULL = "full"  # refuses each event as a broker without room does
    FORBIDDING = "forbidding"  # refuses each event as an access list does
    SLOW = "slow"
    REFUSING = "refusing"  # closes each new connection


@dataclass(frozen=True, slots=True)
class Passed:
    """
    A PUBACK that went through to the station, at *at_s*: from here on the event is the broker's affair.

    The broker said it at some time after *sent_s*, when it was sent the event: a link that stalls keeps it for long.
    """

    event_id: str
    sent_s: float
    at_s: float


@dataclass(slots=True)
class Proxy:
    """
    In a ``with``: listens on ``port`` and passes everything on to *broker_port*. The station's link to the world.

    ``struck`` counts what each mood really did. Times are ``time.monotonic``.
    """

    broker_port: int
    acked: list[Passed] = field(default_factory=list)
    struck: dict[Mood, int] = field(default_factory=lambda: defaultdict(int))
    mood: Mood = Mood.KIND
    port: int = 0
    _listener: socket.socket | None = None
    _ways: list[_Way] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Proxy:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> int:
        """Ends all connections, on both sides; returns how many there were."""
        with self._lock:
            ways, self._ways = self._ways, []
        for way in ways:
            way.close()
        return len(ways)

    def half_open(self) -> int:
        """The broker's end goes, and the station is never told: its connection is as silent as an unplugged cable."""
        with self._lock:
            ways = list(self._ways)
        for way in ways:
            way.lose_broker()
        return len(ways)

    def seen_acked(self) -> set[str]:
        return {one.event_id for one in list(self.acked)}

    def _accept(self) -> None:
        assert self._listener is not None
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.mood is Mood.REFUSING:
                self.struck[Mood.REFUSING] += 1
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.broker_port), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self._ways = [one for one in self._ways if not one.closed.is_set()]
                self._ways.append(_Way(self, near, far))


class _Way:
    """One connection: a thread for each direction."""

    def __init__(self, proxy: Proxy, near: socket.socket, far: socket.socket) -> None:
        self.closed = threading.Event()
        self._proxy = proxy
        self._near = near
        self._far = far
        self._version_5 = True
        self._sent: dict[int, tuple[str, float]] = {}  # event ids, and when they were sent, by packet id
        self._near_lock = threading.Lock()
        self._lost_broker = False
        for source, take in ((near, self._from_station), (far, self._from_broker)):
            threading.Thread(target=self._run, args=(source, take), name="proxy-way", daemon=True).start()

    def close(self) -> None:
        self.closed.set()
        for one in (self._near, self._far):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def lose_broker(self) -> None:
        self._lost_broker = True
        with contextlib.suppress(OSError):
            self._far.shutdown(socket.SHUT_RDWR)

    def _run(self, source: socket.socket, take: Callable[[int, bytes], None]) -> None:
        try:
            for first, packet in packets(source):
                self._wait_out()
                take(first, packet)
        except OSError:
            pass
        finally:
            if not (self._lost_broker and source is self._far):
                self.close()
            source.close()

    def _wait_out(self) -> None:
        mood = self._proxy.mood
        if mood is Mood.SLOW:
            self._proxy.struck[mood] += 1
            time.sleep(0.15)
        elif mood is Mood.STALLED:
            self._proxy.struck[mood] += 1
            while self._proxy.mood is Mood.STALLED and not self.closed.is_set():
                time.sleep(0.01)

    def _from_station(self, first: int, packet: bytes) -> None:
        kind = first & 0xF0
        body = body_of(packet)
        if kind == CONNECT:
            self._version_5 = body[6] == 5  # after the length and the letters of "MQTT"
        if kind == PUBLISH and first & 0x06 == QOS_1:
            packet_id, payload = published(body, properties=self._version_5)
            event_id = event_id_of(payload)
            if event_id is not None:
                if self._refused(packet_id):
                    return
                self._sent[packet_id] = event_id, time.monotonic()
        if not self._lost_broker:
            self._far.sendall(packet)

    def _refused(self, packet_id: int) -> bool:
        mood = self._proxy.mood
        code = {Mood.FULL: QUOTA_EXCEEDED, Mood.FORBIDDING: NOT_AUTHORIZED}.get(mood)
        if code is None or not self._version_5:
            return False
        self._proxy.struck[mood] += 1
        with self._near_lock:
            self._near.sendall(bytes((PUBACK, 3)) + packet_id.to_bytes(2, "big") + bytes((code,)))
        return True

    def _from_broker(self, first: int, packet: bytes) -> None:
        sent = None
        if first & 0xF0 == PUBACK:
            body = body_of(packet)
            packet_id = int.from_bytes(body[:2], "big")
            if self._proxy.mood is Mood.SWALLOWING and packet_id in self._sent:
                self._proxy.struck[Mood.SWALLOWING] += 1
                return
            accepted = len(body) < 3 or body[2] < 0x80
            sent = self._sent.pop(packet_id, None) if accepted else None
        with self._near_lock:
            self._near.sendall(packet)
        if sent is not None:
            self._proxy.acked.append(Passed(*sent, time.monotonic()))
