"""Rubbish on a real serial line and hostile commands by a real broker: the next good one is answered."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import cv2
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.daemon import BLACK_PASSES, PATIENCE_S, TOPIC, Daemon, Overrides, picture
from tests.mosquitto import Mosquitto
from tests.plc import Plc
from tests.security.raw import resident_mb
from tests.test_line_daemon import CAMERA, LINE, answers, books
from tests.waiting import until

GROWTH_MB = 40
BATCH = 50
HOSTILE = (
    b"\xff" * 50,
    b"{" * 3000,
    b"[" * 4096,
    b'{"number":NaN}',
    b'{"number":1e400}',
    b'{"number":' + b"9" * 4000 + b"}",
    b'{"number":-1}',
    b'{"number":true}',
    b"null",
    b'"x"',
    b'{"board_serial":"\\u0000"}',
    b'{"board_serial":"\\ud800"}',
    b'{"number":1,"number":"x"}',
    b"x" * 200_000,
    b'{"x":' + b"[" * 2000,
    b"\0",
    b'{"board_serial":"' + b"a" * 129 + b'"}',
    b'{"name":"../../x"}',
    b'{"name":"\\ud800"}',
    b'{"name":1}',
)
NAMES = ("trigger", "recipe", "challenge", "TRIGGER", "trigger/x", "state")
ANSWERS = ("answers/x", "answers/" + "y" * 1000, "$SYS/x", "$share/a/b", "/", "answers/\u2028", f"{TOPIC}/state")


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    folder = tmp_path / "boards"
    folder.mkdir()
    for number in range(6):
        cv2.imwrite(str(folder / f"{number}.png"), picture(number, red=BLACK_PASSES))
    return folder


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as one:
        yield one


def noise(rng: random.Random, at: int) -> bytes:
    """About 4 kB, of another kind every 100 kB."""
    kinds = (
        lambda: rng.randbytes(4096),
        lambda: b"x" * 4096,
        lambda: b"\r" * 4096,
        lambda: b"SN%d\r" % rng.randrange(10**9) * 300,
        lambda: b"T\xff\r" * 1000,
    )
    return kinds[at // 100_000 % len(kinds)]()


def dose(short: int, long: int) -> pytest.MarkDecorator:
    marks = [pytest.mark.long, pytest.mark.timeout(1800)]
    return pytest.mark.parametrize(
        "dose", [pytest.param(short, id="short"), pytest.param(long, id="long", marks=marks)]
    )


@dose(1_000_000, 10_000_000)
def test_megabytes_of_noise_on_the_line_and_the_next_trigger_is_answered(
    tmp_path: Path, broker: Mosquitto, boards: Path, dose: int
) -> None:
    rng = random.Random(1)  # noqa: S311  # to be had again
    with Plc(tmp_path) as plc:
        changes: Overrides = {
            **LINE,
            "source": {**CAMERA, "device": str(boards)},
            "serial": {"port": str(plc.port)},
            "scanner": {"kind": "line", "pattern": "SN[0-9]+"},
        }
        with Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as station:
            station.start()
            plc.wait_for("READY")
            before_mb, sent = resident_mb(station.process.pid), 0
            while sent < dose:
                piece = noise(rng, sent)
                plc.say(piece)
                sent += len(piece)
            plc.say(b"\rT424242\r")
            until(lambda: any(one[1:] == "424242" for one in answers(plc)), within_s=PATIENCE_S, what="the answer")
            assert resident_mb(station.process.pid) < before_mb + GROWTH_MB
            assert len(station.text()) < 1_000_000, "noise must not fill the log"
            assert station.stop() == 0
            kept = books(station)
            assert kept["seen"] == kept["answered"] == kept["recorded"] == len(answers(plc))
        assert plc.texts()[-1] == "SAFE"


@dose(300, 5_000)
def test_hostile_commands_cost_neither_the_connection_nor_the_next_good_one(
    tmp_path: Path, broker: Mosquitto, boards: Path, dose: int
) -> None:
    rng = random.Random(2)  # noqa: S311  # to be had again
    changes: Overrides = {
        "trigger": {"kind": "mqtt", "answer_ms": 30_000},
        "source": {**CAMERA, "device": str(boards)},
        "mqtt": {"port": broker.port, "commands": ["recipe", "challenge"]},
    }
    got: list[str] = []
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect = lambda known, *_: known.subscribe("answers/#", 1)
    client.on_message = lambda _client, _data, message: got.append(message.topic)

    def ask(name: str, payload: bytes, answer_to: str) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types here
        properties.ResponseTopic = answer_to
        client.publish(f"{TOPIC}/command/{name}", payload, qos=1, properties=properties).wait_for_publish(30)
        until(lambda: answer_to in got, within_s=PATIENCE_S, what=f"the answer on {answer_to}")

    with Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as station:
        station.start()
        until(lambda: station.metric("station_mqtt_connected") == 1, within_s=PATIENCE_S, what="the connection")
        before_mb = resident_mb(station.process.pid)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        try:
            for number in range(dose):
                if number % BATCH == 0:  # more than that would wait, and be refused for that alone
                    ask("recipe", b"{}", f"answers/{number}")
                payload = rng.choice(HOSTILE) if rng.random() < 0.7 else rng.randbytes(rng.randrange(1, 5000))
                properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types here
                if rng.random() < 0.5:
                    properties.ResponseTopic = rng.choice(ANSWERS)
                    properties.CorrelationData = rng.randbytes(rng.choice([0, 1, 1000, 60_000]))
                topic = f"{TOPIC}/command/{rng.choice(NAMES)}"
                client.publish(topic, payload, qos=rng.choice([0, 1, 2]), properties=properties).wait_for_publish(30)
            ask("trigger", b'{"number": 77}', "answers/good")
        finally:
            client.disconnect()
            client.loop_stop()
        assert len(station.log("broker connected")) == 1, "no message made the broker cut the connection"
        assert len(station.log("command refused")) > dose // 4
        assert not station.log("loop failed")
        assert resident_mb(station.process.pid) < before_mb + GROWTH_MB
        assert station.stop() == 0
        kept = books(station)
        assert kept["seen"] == kept["answered"] == kept["recorded"]
