"""The link to the broker: one supervised loop, and a fresh client for every connection."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from station.errors import LinkError
from station.health import Health
from station.mqtt_client import WRONG_PROTOCOL, close_client, network_reason, new_client
from station.mqtt_options import LinkOptions
from station.mqtt_protocol import (
    REFUSED_HINT,
    STOLEN_PAUSE_S,
    End,
    How,
    Patience,
    Protocol,
    ProtocolChoice,
    fate_of,
    publishable,
)
from station.types import Ack, Fate, Stop

log = structlog.get_logger(__name__)

OnCommand = Callable[[str, bytes, Callable[[bytes], None]], None]

TURN_S = 0.5  # the longest wait for the socket; a publish, an answer or the other end's bytes end it at once
OFFLINE_S = 2.0  # how long a clean stop waits for the acknowledgement of "offline"
SESSION_TAKEN_OVER = 0x8E
TOKENS_PER_CONNECTION = 1 << 16  # a packet id is 16 bits
FRAME_BYTES = 16  # fixed header, topic length, packet id, empty properties: at most


@dataclass(frozen=True, slots=True)
class _Own:
    """A message of the link's own, a state or a response, that waits for the broker's answer."""

    topic: str
    sent_s: float


@dataclass(slots=True)
class _Connection:
    """
    One connection that is up, or coming up. All by packet id, which paho counts anew for each client.

    paho's callbacks write the first group and run inside paho's locks: they take notes, and decide nothing. The second
    group is under the link's lock, which is held while paho takes a message: an answer is looked at only after its
    message has been entered here, however fast it was.
    """

    client: paho.Client
    number: int
    protocol: Protocol
    accepted: bool = False
    refusal: tuple[int, str] | None = None
    disconnect: tuple[int, str] | None = None
    receive_maximum: int = 65535
    maximum_packet: int | None = None
    answers: deque[tuple[int, int, str]] = field(default_factory=deque)  # packet id, reason code, its words

    sent_s: dict[int, float] = field(default_factory=dict)  # since when an event waits for its answer
    own: dict[int, _Own] = field(default_factory=dict)  # nobody has a token of these

    def token(self, packet_id: int) -> int:
        return self.number * TOKENS_PER_CONNECTION + packet_id


class MqttLink:
    """
    Implements ``types.Link``. ``run`` is the loop that a Worker supervises; ``send`` is for the publish thread.

    Every connection has a fresh client: paho can re-send nothing by itself, the outbox does. *state* makes the retained
    state document of (``online`` or ``offline``, why). *on_change* is called when there is an ack or a new connection,
    *on_command* with (name, payload, where its response goes) for what comes on ``command/+``; both must be quick.
    """

    def __init__(
        self,
        options: LinkOptions,
        *,
        state: Callable[[str, str | None], bytes],
        health: Health,
        on_change: Callable[[], None] = lambda: None,
        on_command: OnCommand = lambda _name, _payload, _respond: None,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.acks: SimpleQueue[Ack] = SimpleQueue()
        self.connections = 0
        self._options = options
        self._state = state
        self._health = health
        self._on_change = on_change
        self._on_command = on_command
        self._monotonic = monotonic
        self._choice = ProtocolChoice(options.protocol)
        self._patience = Patience(chance)
        self._lock = threading.Lock()  # never taken in one of paho's callbacks: they run inside paho's own locks
        self._up: _Connection | None = None
        self._number = 0
        self._voids = 0

    @property
    def connected(self) -> bool:
        return self._up is not None

    @property
    def commands(self) -> tuple[str, ...]:
        """Which commands are listened to."""
        return self._options.commands

    @property
    def protocol_in_use(self) -> Protocol | None:
        up = self._up
        return up.protocol if up else None

    def ready(self) -> bool:
        up = self._up
        return up is not None and len(up.sent_s) < min(self._options.window, up.receive_maximum - len(up.own))

    def send(self, topic: str, payload: bytes) -> int:
        size = len(topic.encode()) + len(payload) + FRAME_BYTES
        with self._lock:
            up = self._up
            if up is not None and (up.maximum_packet is None or size <= up.maximum_packet):
                packet_id = up.client.publish(topic, payload, qos=1).mid
                up.sent_s[packet_id] = self._monotonic()
                return up.token(packet_id)
        self._voids += 1
        token = -self._voids  # of what was never sent: below zero, where no packet id leads
        if up is None:  # it went down since ready(): the same as lost on the way
            self._ack([Ack(token, Fate.LOST, "no connection")])
        else:
            reason = f"{size} bytes are more than the broker's maximum packet size, {up.maximum_packet}"
            self._ack([Ack(token, Fate.REFUSED, reason)])
        return token

    def tell(self, topic: str, payload: bytes) -> None:
        with self._lock:
            if self._up is not None:
                self._up.client.publish(topic, payload, qos=0)

    def respond(self, topic: str, payload: bytes, correlation: bytes | None) -> None:
        """Publishes a response, or drops it while there is no connection: whoever gets no answer asks again."""
        with self._lock:
            up = self._up
            if up is None:
                log.warning("response not sent", topic=topic, reason="no connection")
                return
            properties = None
            if correlation is not None:
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types here
                properties.CorrelationData = correlation
            sent = up.client.publish(topic, payload, qos=1, properties=properties)
            up.own[sent.mid] = _Own(topic, self._monotonic())

    def run(self, stop: Stop) -> None:
        """Connects, stays connected, and connects again, until *stop*; then says offline and waits for its ack."""
        while not stop.is_set():
            self._number += 1
            protocol = self._choice.next(self._monotonic())
            end = self._connect_and_stay(protocol, stop)
            if end.how is not How.STOPPED:
                self._wait(stop, self._after(end))

    # One connection, in the link's own thread.

    def _connect_and_stay(self, protocol: Protocol, stop: Stop) -> End:
        try:
            connection = _Connection(self._client(protocol), self._number, protocol)
        except LinkError as error:
            return End(How.REFUSED, str(error))
        accepted_s: float | None = None
        try:
            self._take_notes(connection)
            connection.client.connect(self._options.host, self._options.port, keepalive=self._options.keepalive_s)
            end = self._await_connack(connection, stop)
            if end is None:
                accepted_s = self._monotonic()
                self._came_up(connection)
                end = self._stay(connection, stop, since_s=accepted_s)
                if end.how in {How.STOPPED, How.RETRY_5}:
                    self._say_offline(connection, "stopped" if end.how is How.STOPPED else "reconnecting")
        except (OSError, ValueError) as error:
            if connection.accepted:
                raise  # no trouble in reaching it: a defect, for the supervisor
            return End(How.NOT_REACHED, network_reason(error))
        finally:
            self._went_down(connection)
        return End(end.how, end.reason, None if accepted_s is None else self._monotonic() - accepted_s)

    def _client(self, protocol: Protocol) -> paho.Client:
        options = self._options
        client = new_client(options, client_id=options.client_id, protocol=protocol)
        client.enable_logger()
        # Without this a publish would write to the socket in its own thread, beside the loop's writes, and might block.
        client.on_socket_register_write = lambda *_: None
        client.max_inflight_messages_set(0)  # ready() is the limit, and it knows the broker's
        client.will_set(f"{options.topic}/state", self._state("offline", "connection lost"), qos=1, retain=True)
        return client

    def _take_notes(self, connection: _Connection) -> None:
        def on_connect(_client: paho.Client, _data: object, _flags: object, code: ReasonCode, given: Any) -> None:
            if code.is_failure:
                connection.refusal = (code.value, str(code))
                return
            connection.receive_maximum = getattr(given, "ReceiveMaximum", 65535)
            connection.maximum_packet = getattr(given, "MaximumPacketSize", None)
            connection.accepted = True

        def on_disconnect(_client: paho.Client, _data: object, flags: Any, code: ReasonCode, _given: object) -> None:
            if flags.is_disconnect_packet_from_server:
                connection.disconnect = (code.value, str(code))

        def on_publish(_client: paho.Client, _data: object, mid: int, code: ReasonCode, _given: object) -> None:
            connection.answers.append((mid, code.value, str(code)))

        def on_message(_client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
            self._on_message(message)

        connection.client.on_connect = on_connect
        connection.client.on_disconnect = on_disconnect
        connection.client.on_publish = on_publish
        connection.client.on_message = on_message

    def _on_message(self, message: paho.MQTTMessage) -> None:
        """Within paho's locks: hands it on, and decides only whether it is one."""
        try:
            name = message.topic.rpartition("/")[2]
        except UnicodeDecodeError:
            return
        if message.retain:  # it was meant for somebody earlier, and would come again at each connection
            log.warning("retained command ignored", command=name)
            return
        topic = getattr(message.properties, "ResponseTopic", None)
        correlation = getattr(message.properties, "CorrelationData", None)
        own = f"{self._options.topic}/"
        if topic is None or topic.startswith(own) or not publishable(topic):  # our own are not for others to fill
            topic = f"{own}response"

        def respond(payload: bytes) -> None:
            self.respond(topic, payload, correlation)

        self._on_command(name, bytes(message.payload), respond)

    def _await_connack(self, connection: _Connection, stop: Stop) -> End | None:
        deadline_s = self._monotonic() + self._options.connect_timeout_s
        while not connection.accepted:
            self._health.beat("mqtt")
            problem = connection.client.loop(0.1)
            if connection.refusal is not None:
                code, words = connection.refusal
                reason = f"the broker refuses the connection: {words}"
                if code == WRONG_PROTOCOL:
                    return End(How.WRONG_PROTOCOL, reason)
                return End(How.REFUSED, f"{reason}: {REFUSED_HINT}")
            if problem is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                hint = " (does it want a client certificate?)" if self._options.tls is not None else ""
                return End(How.CLOSED_EARLY, f"the broker closed the connection without an answer{hint}")
            if stop.is_set():
                return End(How.STOPPED, "")
            if self._monotonic() >= deadline_s:
                return End(How.NOT_REACHED, "the broker took the connection but does not answer")
        return None

    def _came_up(self, connection: _Connection) -> None:
        self._choice.accepted()
        if self._options.commands:
            topics = [f"{self._options.topic}/command/{one}" for one in self._options.commands]
            if connection.protocol == "5":
                # Clearing a retained command is an empty message, told from a command only as it was published.
                as_published = SubscribeOptions(qos=1, retainAsPublished=True)
                connection.client.subscribe([(one, as_published) for one in topics])
            else:
                connection.client.subscribe([(one, 1) for one in topics])
        self._publish_state(connection, "online", None)
        with self._lock:
            self._up = connection
        self.connections += 1
        for fault in ("broker_away", "broker_refuses"):
            self._health.end(fault)
        log.info("broker connected", host=self._options.host, port=self._options.port, protocol=connection.protocol)
        self._on_change()

    def _stay(self, connection: _Connection, stop: Stop, *, since_s: float) -> End:
        while not stop.is_set():
            self._health.beat("mqtt")
            problem = connection.client.loop(TURN_S)
            self._take_in(connection)
            if connection.disconnect is not None:
                code, words = connection.disconnect
                how = How.STOLEN if code == SESSION_TAKEN_OVER else How.DISMISSED
                return End(how, f"the broker disconnected us: {words}")
            if problem is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                words = "" if problem is MQTTErrorCode.MQTT_ERR_CONN_LOST else f": {paho.error_string(problem)}"
                return End(How.LOST, f"the connection was lost{words}")
            now_s = self._monotonic()
            with self._lock:
                own_s = [one.sent_s for one in connection.own.values()]
                oldest_s = min([*connection.sent_s.values(), *own_s], default=now_s)
            if now_s - oldest_s > self._options.ack_timeout_s:
                return End(How.SILENT, f"the broker acknowledged nothing for {self._options.ack_timeout_s:g} s")
            if now_s - since_s >= STOLEN_PAUSE_S:
                self._health.end("mqtt_client_id_stolen")
            if connection.protocol == "3.1.1" and self._choice.due(now_s) and not connection.sent_s:
                return End(How.RETRY_5, "")
        return End(How.STOPPED, "")

    def _take_in(self, connection: _Connection) -> None:
        """Gives each answer to whom it belongs. What was told at QoS 0 is answered by paho, and belongs to nobody."""
        found: list[Ack] = []
        with self._lock:
            while connection.answers:
                packet_id, code, words = connection.answers.popleft()
                fate = fate_of(code)
                reason = "" if fate is Fate.ACCEPTED else f"0x{code:02x} {words}"
                if connection.sent_s.pop(packet_id, None) is not None:
                    found.append(Ack(connection.token(packet_id), fate, reason))
                elif (own := connection.own.pop(packet_id, None)) is not None and reason:
                    log.warning("message refused", topic=own.topic, reason=reason)
        if found:
            self._ack(found)

    def _publish_state(self, connection: _Connection, state: str, why: str | None) -> None:
        topic = f"{self._options.topic}/state"
        with self._lock:
            sent = connection.client.publish(topic, self._state(state, why), qos=1, retain=True)
            connection.own[sent.mid] = _Own(topic, self._monotonic())

    def _say_offline(self, connection: _Connection, why: str) -> None:
        """On a clean end the will is not sent: say it, wait for the ack, and only then disconnect."""
        with self._lock:
            self._up = None
        self._publish_state(connection, "offline", why)
        deadline_s = self._monotonic() + OFFLINE_S
        while connection.own and self._monotonic() < deadline_s:
            self._health.beat("mqtt")
            if connection.client.loop(0.1) is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                return
            self._take_in(connection)
        connection.client.disconnect()
        connection.client.loop(0.1)

    def _went_down(self, connection: _Connection) -> None:
        """From here on no answer can come: what was under way is lost, and the outbox still owes it."""
        with self._lock:
            self._up = None
        self._take_in(connection)  # what came just before the end
        close_client(connection.client)
        lost = [Ack(connection.token(packet_id), Fate.LOST, "connection lost") for packet_id in connection.sent_s]
        connection.sent_s.clear()
        if lost:
            self._ack(lost)

    # Between connections.

    def _after(self, end: End) -> float:
        """Draws the conclusions from how a connection ended; returns how long to stay away, in seconds."""
        self._choice.ended(end.how, now_s=self._monotonic())
        stolen = self._patience.stolen(end)
        where = f"{self._options.host}:{self._options.port}"
        if end.how is How.REFUSED:  # one fault, and not that it is away as well
            self._health.end("broker_away")
            self._health.begin("broker_refuses", f"{where}: {end.reason}; events wait on disk")
        elif end.how is not How.RETRY_5:
            self._health.end("broker_refuses")
            self._health.begin("broker_away", f"{where}: {end.reason}; events wait on disk")
        if stolen:
            self._health.begin(
                "mqtt_client_id_stolen",
                f"another client connects as {self._options.client_id}: give each station its own [station] name "
                "or [mqtt] client_id",
            )
        if end.how is not How.RETRY_5:
            log.debug("broker not connected", where=where, how=end.how.value, reason=end.reason)
        return self._patience.pause_s(end, stolen=stolen)

    def _wait(self, stop: Stop, pause_s: float) -> None:
        while pause_s > 0 and not stop.wait(min(pause_s, 1.0)):
            self._health.beat("mqtt")
            pause_s -= 1.0

    def _ack(self, acks: list[Ack]) -> None:
        for ack in acks:
            self.acks.put(ack)
        self._on_change()
