"""Commands over a real broker: who may give them, and where their answers go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.linking import Running
from tests.mosquitto import Mosquitto
from tests.waiting import until

TOPIC = "factory/test"


class Commander:
    """Gives commands, and remembers what comes to it: (topic, payload, correlation data)."""

    def __init__(self, port: int, protocol: Literal["5", "3.1.1"] = "5", *, topic: str = TOPIC) -> None:
        self.got: list[tuple[str, bytes, bytes | None]] = []
        self.subscribed = 0
        self._topic = topic
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5 if protocol == "5" else paho.MQTTv311
        )
        self._client.on_connect = lambda client, *_: client.subscribe([("answers/#", 1), (f"{topic}/response", 1)])
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Commander:
        self._client.loop_start()
        until(lambda: self.subscribed, what="the subscription")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def command(self, name: str, payload: bytes = b"{}", *, answer_to: str | None = None, retain: bool = False) -> None:
        properties = None
        if answer_to is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types here
            properties.ResponseTopic, properties.CorrelationData = answer_to, b"my-17"
        sent = self._client.publish(
            f"{self._topic}/command/{name}", payload, qos=1, retain=retain, properties=properties
        )
        sent.wait_for_publish(30)

    def _on_subscribe(self, *_: object) -> None:
        self.subscribed += 1

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.got.append((message.topic, bytes(message.payload), getattr(message.properties, "CorrelationData", None)))


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as started:
        yield started


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_command_is_heard_and_its_response_published(broker: Mosquitto, protocol: Literal["5", "3.1.1"]) -> None:
    with (
        Running(broker.port, protocol=protocol, commands=("trigger",)) as running,
        Commander(broker.port, protocol) as commander,
    ):
        until(running.link.ready)
        commander.command("trigger", b'{"number": 17}')
        until(lambda: running.commands)
        name, payload, respond = running.commands[0]
        assert (name, payload) == ("trigger", b'{"number": 17}')
        respond(b'{"ok": true}')
        until(lambda: commander.got)
    assert commander.got == [(f"{TOPIC}/response", b'{"ok": true}', None)]


def test_mqtt_5_says_where_the_response_shall_go_and_finds_it_by_its_correlation_data(broker: Mosquitto) -> None:
    with Running(broker.port, commands=("trigger",)) as running, Commander(broker.port) as commander:
        until(running.link.ready)
        commander.command("trigger", answer_to="answers/plc-1")
        until(lambda: running.commands)
        running.commands[0][2](b"done")
        until(lambda: commander.got)
    assert commander.got == [("answers/plc-1", b"done", b"my-17")]


@pytest.mark.parametrize(
    "forged",
    [f"{TOPIC}/state", f"{TOPIC}/inspection/pass", "$SYS/x", "$share/a/b", "a\u2028", "a" * 2000, "/".join("a" * 250)],
)
def test_a_response_never_goes_to_the_stations_own_topics_nor_where_the_broker_would_cut_the_connection(
    broker: Mosquitto, forged: str
) -> None:
    with Running(broker.port, commands=("trigger",)) as running, Commander(broker.port) as commander:
        until(running.link.ready)
        commander.command("trigger", answer_to=forged)
        until(lambda: running.commands)
        running.commands[0][2](b"{}")
        until(lambda: commander.got)
        commander.command("trigger", b"again")
        until(lambda: len(running.commands) == 2)
        assert running.link.connections == 1
    assert commander.got[0][0] == f"{TOPIC}/response"


def test_a_retained_command_was_for_somebody_earlier_and_is_not_carried_out(broker: Mosquitto) -> None:
    with Commander(broker.port) as commander:
        commander.command("trigger", b"old", retain=True)
        with Running(broker.port, commands=("trigger",)) as running:
            until(running.link.ready)
            commander.command("trigger", b"new")
            until(lambda: running.commands)
            assert [payload for _, payload, _ in running.commands] == [b"new"]
            commander.command("trigger", b"", retain=True)  # the old one is cleared
            commander.command("trigger", b"newest")
            until(lambda: len(running.commands) == 2)
            assert running.commands[-1][1] == b"newest"


def test_what_is_not_allowed_is_not_even_heard(broker: Mosquitto) -> None:
    with Running(broker.port, commands=("recipe",)) as running, Commander(broker.port) as commander:
        until(running.link.ready)
        for name in ("trigger", "recipe/x", "recipe"):
            commander.command(name)
        until(lambda: running.commands)
        assert [name for name, _, _ in running.commands] == ["recipe"]


def test_after_a_broker_restart_commands_are_heard_again(broker: Mosquitto) -> None:
    with Running(broker.port, commands=("trigger",)) as running:
        until(running.link.ready)
        broker.stop()
        until(lambda: not running.link.connected)
        broker.start()
        until(lambda: running.link.connections == 2)
        with Commander(broker.port) as commander:
            until(lambda: commander.command("trigger") or running.commands)  # type: ignore[func-returns-value]  # again
