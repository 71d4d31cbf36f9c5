"""deploy/mosquitto as a real mosquitto runs it: who has a password, and what each may do with it."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from tests.daemon import Daemon, Overrides, drop, encoded, picture
from tests.deploy.servers import DEPLOY, program, replaced, run, started, throw_away_certificate, trusting
from tests.mosquitto import free_port
from tests.waiting import until

TOPIC = "factory/line1/aoi-1"
PASSWORDS = {"aoi-1": "of the station", "watcher": "of the watcher", "plc": "of the plc"}
NOT_AUTHORIZED = ReasonCode(PacketTypes.PUBACK, "Not authorized")


@dataclass(frozen=True, slots=True)
class Broker:
    port: int
    tls_port: int
    cert: Path
    log: Path


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp("broker")
    cert, _ = throw_away_certificate(folder)
    passwords = folder / "passwords"
    for number, (user, password) in enumerate(PASSWORDS.items()):
        made = run(program("mosquitto_passwd"), "-b", *(["-c"] if not number else []), passwords, user, password)
        assert made.returncode == 0, made.stderr
    (folder / "acl").write_text((DEPLOY / "mosquitto" / "acl").read_text())
    for one in ("passwords", "acl"):
        (folder / one).chmod(0o600)
    port, tls_port = free_port(), free_port()
    (folder / "data").mkdir()
    text = replaced(
        (DEPLOY / "mosquitto" / "mosquitto.conf").read_text(),
        {
            "listener 1883": f"listener {port} 127.0.0.1",
            "listener 8883": f"listener {tls_port} 127.0.0.1",
            "/mosquitto/config/": f"{folder}/",
            "/mosquitto/data/": f"{folder}/data/",
        },
    )
    if os.geteuid() == 0:
        text += "\nuser root\n"  # else it drops to a user who cannot read the test's folder
    (folder / "mosquitto.conf").write_text(text)
    log = folder / "mosquitto.log"
    with started([program("mosquitto"), "-c", str(folder / "mosquitto.conf")], port=tls_port, log=log):
        yield Broker(port, tls_port, cert, log)


@dataclass(slots=True)
class Client:
    """An MQTT 5 client, which hears why it was refused."""

    broker: Broker
    user: str | None
    password: str | None = None
    tls: bool = False
    refused: list[ReasonCode] = field(default_factory=list)
    taken: list[ReasonCode] = field(default_factory=list)
    granted: list[ReasonCode] = field(default_factory=list)
    got: list[tuple[str, bytes]] = field(default_factory=list)
    _joined: threading.Event = field(default_factory=threading.Event)
    _client: paho.Client | None = None

    def __enter__(self) -> Client:
        client = self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=f"test-{uuid.uuid4()}", protocol=paho.MQTTv5
        )
        if self.user is not None:
            client.username_pw_set(self.user, self.password or PASSWORDS.get(self.user))
        if self.tls:
            client.tls_set_context(trusting(self.broker.cert))
        client.on_connect = lambda _client, _data, _flags, reason, _properties: (
            self.refused.append(reason) if reason.is_failure else self._joined.set()
        )
        client.on_publish = lambda _client, _data, _number, reason, _properties: self.taken.append(reason)
        client.on_subscribe = lambda _client, _data, _number, reasons, _properties: self.granted.extend(reasons)
        client.on_message = lambda _client, _data, message: self.got.append((message.topic, bytes(message.payload)))
        client.connect("127.0.0.1", self.broker.tls_port if self.tls else self.broker.port)
        client.loop_start()
        until(lambda: self._joined.is_set() or self.refused, what="the broker's answer")
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()

    @property
    def client(self) -> paho.Client:
        assert self._client is not None
        return self._client

    def publish(self, topic: str, payload: bytes = b"{}") -> ReasonCode:
        """The broker's answer to a message at QoS 1."""
        before = len(self.taken)
        self.client.publish(topic, payload, qos=1)
        until(lambda: len(self.taken) > before, what=f"the answer to {topic}")
        return self.taken[-1]

    def hears(self, topic: str) -> Client:
        before = len(self.granted)
        self.client.subscribe(topic, qos=1)
        until(lambda: len(self.granted) > before, what=f"the subscription to {topic}")
        return self


@pytest.mark.parametrize(("user", "password"), [(None, None), ("aoi-1", "guessed"), ("nobody", "x")])
def test_nobody_gets_in_without_his_password(broker: Broker, user: str | None, password: str | None) -> None:
    with Client(broker, user, password) as stranger:
        assert stranger.refused


@pytest.mark.parametrize(
    "below",
    ["inspection/pass", "inspection/fail", "inspection/unknown", "state", "heartbeat", "fault", "review", "response"],
)
def test_the_station_publishes_below_its_own_topic_and_the_watcher_hears_it(broker: Broker, below: str) -> None:
    with Client(broker, "watcher") as watcher, Client(broker, "aoi-1") as station:
        watcher.hears("factory/#")
        assert not station.publish(f"{TOPIC}/{below}", below.encode()).is_failure
        until(lambda: (f"{TOPIC}/{below}", below.encode()) in watcher.got, what=f"the watcher to hear {below}")


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("aoi-1", "factory/line1/aoi-2/inspection/pass"),
        ("aoi-1", f"{TOPIC}/command/trigger"),
        ("aoi-1", f"{TOPIC}/inspection"),
        ("watcher", f"{TOPIC}/inspection/pass"),
        ("watcher", f"{TOPIC}/command/trigger"),
        ("watcher", f"{TOPIC}/state"),
        ("plc", f"{TOPIC}/inspection/pass"),
        ("plc", "factory/line1/aoi-2/command/trigger"),
    ],
)
def test_nobody_publishes_what_is_not_his(broker: Broker, user: str, topic: str) -> None:
    with Client(broker, "watcher") as listener, Client(broker, "aoi-1") as station:
        listener.hears("factory/#")
        with Client(broker, user) as one:
            assert one.publish(topic, b"forged") == NOT_AUTHORIZED
        assert not station.publish(f"{TOPIC}/fault", b"after").is_failure
        until(lambda: (f"{TOPIC}/fault", b"after") in listener.got, what="what was sent after it")
        assert not [payload for _, payload in listener.got if payload == b"forged"]


def test_the_plc_commands_the_station_and_the_watcher_cannot(broker: Broker) -> None:
    with Client(broker, "aoi-1") as station, Client(broker, "plc") as plc, Client(broker, "watcher") as watcher:
        station.hears(f"{TOPIC}/command/+")
        assert watcher.publish(f"{TOPIC}/command/trigger", b"forged") == NOT_AUTHORIZED
        assert not plc.publish(f"{TOPIC}/command/trigger", b"real").is_failure
        until(lambda: station.got, what="the command")
        assert station.got == [(f"{TOPIC}/command/trigger", b"real")]


def test_another_stations_events_are_not_to_be_read_by_a_station(broker: Broker) -> None:
    with Client(broker, "aoi-1") as station, Client(broker, "plc") as plc:
        station.hears("factory/#")
        assert not plc.publish(f"{TOPIC}/command/recipe", b"1").is_failure
        until(lambda: station.got, what="the command")
        assert {topic for topic, _ in station.got} == {f"{TOPIC}/command/recipe"}


def test_the_outside_speaks_tls(broker: Broker) -> None:
    with Client(broker, "watcher", tls=True) as watcher, Client(broker, "aoi-1", tls=True) as station:
        watcher.hears("factory/#")
        assert not station.publish(f"{TOPIC}/heartbeat", b"over tls").is_failure
        until(lambda: (f"{TOPIC}/heartbeat", b"over tls") in watcher.got, what="the message")


def test_a_real_station_delivers_through_it(broker: Broker, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORDS["aoi-1"])
    changes: Overrides = {
        "station": {"topic": TOPIC},
        "mqtt": {"port": broker.port, "username": "aoi-1", "password_file": str(password)},
    }
    with Client(broker, "watcher") as watcher, Daemon(tmp_path / "station", changes=changes) as station:
        watcher.hears("factory/#")
        station.start()
        drop(station.inbox, "board.png", encoded(picture(1)))
        until(lambda: any(topic == f"{TOPIC}/inspection/fail" for topic, _ in watcher.got), what="the event")
        assert station.stop() == 0
        until(
            lambda: any(topic.endswith("/state") and b"stopped" in said for topic, said in watcher.got), what="offline"
        )
        assert not [line for line in station.log() if line["event"] in {"event refused", "fault began"}]
