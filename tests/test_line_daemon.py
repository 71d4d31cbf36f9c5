"""The station on a moving line: a real process, a PLC on a real pty, a camera that pictures stand in for."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import cv2
import httpx
import jsonschema
import pytest
from pymodbus.client import ModbusTcpClient

from station.assets import SCHEMA_FILE
from station.foresight import AHEAD
from station.gates.relay import LCUS
from tests.daemon import (
    BLACK_PASSES,
    PATIENCE_S,
    RED_FAILS,
    TOPIC,
    Daemon,
    Subscriber,
    drop,
    encoded,
    lasting_broker,
    picture,
)
from tests.mjpeg_server import MjpegServer
from tests.modbus_plc import ModbusPlc
from tests.mosquitto import Mosquitto, free_port
from tests.plc import Plc
from tests.test_mqtt_commands import Commander
from tests.waiting import until

Changes = dict[str, dict[str, object]]
# A camera's program that a busy machine leaves no time is no hung camera.
CAMERA: dict[str, object] = {
    "kind": "camera",
    "path": None,
    "scan_s": None,
    "fps": 50,
    "latency_ms": 0,
    "stalled_s": PATIENCE_S,
}
LINE: dict[str, dict[str, object]] = {
    "trigger": {"kind": "serial", "answer_ms": 5000},
    "gate": {"kind": "serial", "heartbeat_s": 0.2},
}

# The station with a detector that never comes back from its first board.
HUNG = """
import threading
import station.foresight as foresight
from station.cli import main
foresight.detected = lambda *_, **__: threading.Event().wait()
main()
"""


def wait(condition: Any, what: str) -> None:
    until(condition, within_s=PATIENCE_S, what=what)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with lasting_broker(tmp_path / "broker") as one:
        yield one


@pytest.fixture
def subscriber(broker: Mosquitto) -> Iterator[Subscriber]:
    with Subscriber(broker.port) as one:
        yield one


@pytest.fixture
def plc(tmp_path: Path) -> Iterator[Plc]:
    with Plc(tmp_path) as one:
        yield one


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    """Pictures that stand in for a camera: good boards and bad ones in turn.

    Seven, a prime: whoever asks at every second or sixth picture still meets all of them.
    """
    folder = tmp_path / "boards"
    folder.mkdir()
    for number in range(7):
        cv2.imwrite(str(folder / f"{number}.png"), picture(number, red=BLACK_PASSES) if number % 2 else picture(number))
    return folder


@pytest.fixture
def station(tmp_path: Path, broker: Mosquitto, plc: Plc, boards: Path) -> Iterator[Daemon]:
    changes: Changes = {**LINE, "source": {**CAMERA, "device": str(boards)}, "serial": {"port": str(plc.port)}}
    with Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as one:
        yield one


def books(station: Daemon) -> dict[str, int]:
    """What the journal and the ledger say, read as a stranger would."""
    with closing(sqlite3.connect(station.data_dir / "triggers.db")) as db:
        seen, answered, recorded = db.execute(
            "SELECT count(*), sum(answer IS NOT NULL AND answer != 'unanswered'), sum(recorded) FROM triggers"
        ).fetchone()
    with closing(sqlite3.connect(station.data_dir / "ledger.db")) as db:
        boards, once = db.execute("SELECT count(*), count(DISTINCT event_id) FROM inspections").fetchone()
    return {"seen": seen, "answered": answered or 0, "recorded": recorded or 0, "boards": boards, "once": once}


def answers(plc: Plc) -> list[str]:
    return [text for text in plc.texts() if text[:1] in {"P", "F", "U"}]


def test_each_trigger_gets_its_own_answer_and_its_event_tells_the_same(
    station: Daemon, plc: Plc, subscriber: Subscriber
) -> None:
    station.start()
    plc.wait_for("READY")
    for number in range(1, 21):
        plc.say(b"T%d\r" % number)
        wait(lambda number=number: len(answers(plc)) == number, f"answer {number}")
    wait(lambda: len(subscriber.events()) == 20, "20 events")
    schema = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    for event in subscriber.events():
        schema.validate(event)
        letter = {"pass": "P", "fail": "F", "unknown": "U"}[event["verdict"]]
        assert f"{letter}{event['trigger']['number']}" in answers(plc)
        assert (event["gate"], event["source"]) == ("shown", "camera")
    assert [int(text[1:]) for text in answers(plc)] == list(range(1, 21)), "in the order of the triggers"
    assert {text[0] for text in answers(plc)} == {"P", "F"}, "both kinds of boards were seen"
    balanced = {"seen": 20, "answered": 20, "recorded": 20, "boards": 20, "once": 20}
    wait(lambda: books(station) == balanced, f"the books to balance: {books(station)}")
    all_ = {"seen": 20, "answered": 20, "unanswered": 0, "recorded": 20}
    wait(lambda: any(one.document["today"]["triggers"] == all_ for one in subscriber.below("heartbeat")), "a heartbeat")
    said = station.call("ledger", "status").stdout
    assert "20 seen, 20 answered" in said
    assert station.stop() == 0
    assert plc.texts()[-1] == "SAFE"


def test_a_burst_of_triggers_is_answered_in_order_and_those_beyond_the_queue_unknown(
    station: Daemon, plc: Plc, subscriber: Subscriber
) -> None:
    station.configure({"trigger": {"queue": 2}, "source": {"fps": 2}})
    station.start()
    plc.wait_for("READY")
    plc.say(b"".join(b"T%d\r" % number for number in range(1, 9)))
    wait(lambda: len(answers(plc)) == 8, "8 answers")
    assert [int(text[1:]) for text in answers(plc)] == list(range(1, 9))
    assert [text[0] == "U" for text in answers(plc)] == [False] * 3 + [True] * 5
    wait(lambda: len(subscriber.events()) == 8, "8 events")
    assert sum("missed" in event["reason"] for event in subscriber.events()) == 5
    assert station.metric('station_triggers_missed_total{reason="queue"}') == 5


class Belt(MjpegServer):
    """A camera over a belt: *bad*, what lies there now."""

    bad = False

    def _picture(self, number: int) -> bytes:
        return encoded(picture(number, red=RED_FAILS if self.bad else BLACK_PASSES), ".jpg")

    def goes_on(self) -> None:
        """Whatever is on its way or in a buffer has been seen."""
        since = self.sent
        wait(lambda: self.sent > since + 20, "20 pictures")


def test_a_board_that_waits_is_judged_by_the_picture_of_its_own_moment(
    station: Daemon, plc: Plc, subscriber: Subscriber
) -> None:
    """The line was still at the board before it; when its turn came, a good board lay there, and the bad one passed."""
    belt = Belt()
    with belt:
        camera = {name: value for name, value in CAMERA.items() if name != "fps"}
        station.configure(
            {
                "source": {**camera, "device": belt.url},
                "trigger": {"kind": "serial", "answer_ms": 60000},
                "gate": {"kind": "serial", "heartbeat_s": 0.2, "ack_text": "A{number}", "ack_ms": 59000},
            }
        )
        station.start()
        plc.wait_for("READY")
        belt.goes_on()
        plc.say(b"T1\r")
        plc.wait_for("P1")  # and the station waits for A1
        belt.bad = True
        belt.goes_on()
        plc.say(b"T2\r")
        wait(lambda: books(station)["seen"] == 2, "the trigger to be taken")
        belt.goes_on()
        belt.bad = False
        belt.goes_on()
        plc.say(b"A1\r")
        wait(lambda: len(answers(plc)) == 2, "the second answer")
        plc.say(b"A2\r")
        assert answers(plc) == ["P1", "F2"]
        wait(lambda: [event["gate"] for event in subscriber.events()] == ["shown"] * 2, "both events")
        assert station.stop() == 0


@pytest.fixture
def terminal() -> Iterator[None]:
    """What is started has the signals of a terminal, also where the tests themselves run in the background."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGHUP, signal.SIGQUIT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def relay_closed(tmp_path: Path, plc: Plc, boards: Path, terminal: None) -> Iterator[Daemon]:
    """A station, started as from that *terminal*, whose relay has just closed for a minute."""
    changes: Changes = {
        "source": {**CAMERA, "device": str(boards)},
        "trigger": {"kind": "http", "answer_ms": 30000},
        "gate": {"kind": "relay", "port": str(plc.port), "pulse_ms": 60000},
        "mqtt": {"enabled": False},
    }
    with Daemon(tmp_path / "relay", changes=changes) as one:
        one.start()
        url = f"http://127.0.0.1:{one.http_port}/command/trigger"
        wait(lambda: httpx.post(url, json={}, timeout=PATIENCE_S).json().get("verdict") == "pass", "a PASS")
        wait(lambda: plc.raw.endswith(LCUS.on), "the relay to close")
        yield one


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_whatever_ends_the_station_opens_the_relay_first(
    relay_closed: Daemon, plc: Plc, number: signal.Signals
) -> None:
    relay_closed.signal(number)
    assert relay_closed.wait() == 0
    wait(lambda: plc.raw.endswith(LCUS.off), "the relay to open")


def test_a_second_ctrl_c_opens_the_relay_too(relay_closed: Daemon, plc: Plc) -> None:
    for _ in range(2):
        relay_closed.signal(signal.SIGINT)
    assert relay_closed.wait() == 0
    wait(lambda: plc.raw.endswith(LCUS.off), "the relay to open")


def test_a_detector_that_hangs_with_boards_behind_it_does_not_keep_a_stop_from_the_gate(
    tmp_path: Path, plc: Plc
) -> None:
    changes: Changes = {
        "gate": {"kind": "serial", "heartbeat_s": 0.2},
        "serial": {"port": str(plc.port)},
        "mqtt": {"enabled": False},
    }
    with Daemon(tmp_path / "hung", changes=changes, program=("-c", HUNG)) as one:
        for number in range(AHEAD + 1):
            drop(one.inbox, f"{number}.png", encoded(picture(number)))
        one.start()
        plc.wait_for("BUSY")
        wait(lambda: len(one.files("processing")) == AHEAD + 1, "the boards behind the first")
        assert one.stop() == 0
        assert plc.texts()[-1] == "SAFE"
        assert len(one.files("processing")) == AHEAD + 1, "the next start meets them again"


def test_what_the_gate_does_not_take_no_reply_calls_a_pass(tmp_path: Path, boards: Path) -> None:
    """Over HTTP it said PASS while the serial gate, whose port was away, was in its safe state."""
    for red in boards.glob("[0246].png"):  # only boards that pass: which of two kinds a trigger meets is chance
        red.unlink()
    changes: Changes = {
        "source": {**CAMERA, "device": str(boards)},
        "trigger": {"kind": "http", "answer_ms": 30000},
        "gate": {"kind": "serial"},
        "serial": {"port": str(tmp_path / "away")},
        "mqtt": {"enabled": False},
    }
    with Daemon(tmp_path / "deaf", changes=changes) as one:
        one.start(wait=False)  # it is never ready
        url = f"http://127.0.0.1:{one.http_port}"

        def seen() -> bool:
            with suppress(httpx.HTTPError):
                return "camera" not in httpx.get(f"{url}/readyz").text
            return False

        wait(seen, "its pictures")
        for _ in range(3):
            said = httpx.post(f"{url}/command/trigger", json={}, timeout=PATIENCE_S).json()
            assert said["verdict"] == "unknown"
            assert said["reason"].startswith("the gate did not take the PASS")


def test_noise_and_garbage_trigger_nothing_and_stop_nothing(station: Daemon, plc: Plc) -> None:
    station.start()
    plc.wait_for("READY")
    plc.say(b"\xff\x00garbage" * 200 + b"\rT\r")
    plc.say(b"x" * 5000)
    plc.say(b"\rt1\r\r\n\rT7\r")
    wait(lambda: len(answers(plc)) == 2, "the two triggers among the noise")
    assert answers(plc)[1][1:] == "7"
    assert books(station)["seen"] == 2


def test_a_camera_that_went_away_is_answered_unknown_at_once_and_the_gate_is_safe(
    station: Daemon, plc: Plc, boards: Path, subscriber: Subscriber
) -> None:
    station.start()
    plc.wait_for("READY")
    for one in boards.iterdir():
        one.unlink()
    wait(lambda: subscriber.faults("camera_failing", "began"), "the fault")
    plc.wait_for("SAFE")
    wait(lambda: station.status("/readyz") == 503, "not ready")
    plc.say(b"T1\r")
    plc.wait_for("U1")
    wait(lambda: len(subscriber.events()) == 1, "its event")
    assert subscriber.events()[0]["reason"].startswith("no picture: ")
    before = len(plc.heard)
    time.sleep(0.5)  # for what must not come: no condition tells of it
    assert [text for text in plc.texts()[before:] if text in {"H0", "H1", "READY"}] == []


@pytest.mark.parametrize("late_ms", [1, 40])
def test_a_trigger_that_cannot_be_answered_in_time_is_unknown_and_recorded_as_that(
    station: Daemon, plc: Plc, subscriber: Subscriber, late_ms: int
) -> None:
    station.configure({"trigger": {"answer_ms": late_ms}, "source": {"fps": 2}})
    station.start()
    plc.wait_for("READY")
    for number in range(1, 6):
        plc.say(b"T%d\r" % number)
        wait(lambda number=number: len(answers(plc)) == number, f"answer {number}")
    wait(lambda: len(subscriber.events()) == 5, "5 events")
    for event in subscriber.events():
        letter = {"pass": "P", "fail": "F", "unknown": "U"}[event["verdict"]]
        assert f"{letter}{event['trigger']['number']}" in answers(plc)
    balanced = {"seen": 5, "answered": 5, "recorded": 5, "boards": 5, "once": 5}
    wait(lambda: books(station) == balanced, "the books to balance")


@pytest.mark.parametrize("seed", range(3))
def test_a_station_killed_in_the_middle_leaves_no_trigger_without_its_board(
    station: Daemon, plc: Plc, subscriber: Subscriber, seed: int
) -> None:
    """It is killed while triggers come; those that it did not answer are UNKNOWN on record, and passed nowhere."""
    number = 0
    for _ in range(3):
        before = plc.texts().count("READY")
        station.start()
        wait(lambda before=before: plc.texts().count("READY") > before, "ready")
        first = number
        for _ in range(6):
            number += 1
            plc.say(b"T%d\r" % number)
        wait(lambda first=first: len([one for one in answers(plc) if int(one[1:]) > first]) > seed, "some answers")
        station.kill()
        plc.say(b"\r")
    station.start()
    wait(lambda: books(station)["recorded"] == books(station)["seen"], "all recorded")
    after = books(station)
    assert after["boards"] == after["once"] == after["seen"] <= number
    wait(lambda: len({event["event_id"] for event in subscriber.events()}) == after["seen"], "an event for each")
    by_number = {event["trigger"]["number"]: event for event in subscriber.events()}
    told = answers(plc)
    assert len({one[1:] for one in told}) == len(told), "no board was answered twice"
    for one in told:
        assert by_number[int(one[1:])]["verdict"][0].upper() == one[0] or by_number[int(one[1:])]["gate"] == "unknown"
    for event in by_number.values():
        if event["verdict"] == "pass" and event["gate"] == "shown":
            assert f"P{event['trigger']['number']}" in told


def test_a_port_that_was_unplugged_is_reported_and_the_line_goes_on_when_it_is_back(
    station: Daemon, plc: Plc, subscriber: Subscriber
) -> None:
    station.start()
    plc.wait_for("READY")
    plc.unplug()
    wait(lambda: subscriber.faults("serial_failing", "began"), "the fault")
    plc.heard.clear()
    plc.plug()
    plc.wait_for("READY")
    assert plc.texts()[0] == "SAFE"
    wait(lambda: subscriber.faults("serial_failing", "ended"), "the end of the fault")
    plc.say(b"T1\r")
    wait(lambda: len(answers(plc)) == 1, "an answer")


def test_a_trigger_over_http_is_answered_in_its_response(tmp_path: Path, broker: Mosquitto, boards: Path) -> None:
    changes: Changes = {"trigger": {"kind": "http", "answer_ms": 5000}, "source": {**CAMERA, "device": str(boards)}}
    with Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as station:
        station.start()
        url = f"http://127.0.0.1:{station.http_port}/command/trigger"
        found: list[dict[str, Any]] = []

        def ask(number: int) -> None:
            sent = {"number": number, "board_serial": f"SN{number}"}
            found.append(httpx.post(url, json=sent, timeout=60, trust_env=False).json())

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(one["number"] for one in found) == [0, 1, 2, 3]
        assert {one["verdict"] for one in found} <= {"pass", "fail"}
        wait(lambda: books(station)["answered"] == 4, "the books")  # written after the reply, which is not kept back
        assert station.stop() == 0


def test_a_plc_over_modbus_triggers_and_reads_its_answer(tmp_path: Path, broker: Mosquitto, boards: Path) -> None:
    port = free_port()
    changes: Changes = {
        "trigger": {"kind": "modbus", "answer_ms": 5000},
        "gate": {"kind": "modbus"},
        "modbus": {"kind": "tcp", "tcp_port": port, "heartbeat_s": 0.1},
        "source": {**CAMERA, "device": str(boards)},
    }
    with (
        Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as station,
        Subscriber(broker.port) as subscriber,
    ):
        station.start()
        client = ModbusTcpClient("127.0.0.1", port=port, timeout=20, retries=0)
        assert client.connect()  # type: ignore[no-untyped-call]  # pymodbus has no types here
        with closing(client):
            plc = ModbusPlc(client)
            passed = {number: plc.may_pass(number) for number in range(70001, 70021)}
            wait(lambda: len(subscriber.events()) == 20, "20 events")
            for event in subscriber.events():
                assert passed[event["trigger"]["number"]] == (event["verdict"] == "pass")
                assert (event["trigger"]["kind"], event["gate"]) == ("modbus", "shown")
            assert set(passed.values()) == {True, False}
            assert station.stop() == 0
        wait(lambda: subscriber.below("state")[-1].document["state"] == "offline", "offline")


def test_a_trigger_over_mqtt_is_answered_on_the_response_topic(tmp_path: Path, broker: Mosquitto, boards: Path) -> None:
    changes: Changes = {"trigger": {"kind": "mqtt", "answer_ms": 5000}, "source": {**CAMERA, "device": str(boards)}}
    with Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as station:
        station.start()
        wait(lambda: station.metric("station_mqtt_connected") == 1, "the broker")
        with Commander(broker.port, topic=TOPIC) as commander:
            commander.command("trigger", b'{"number": 5}', answer_to="answers/plc")
            wait(lambda: commander.got, "the answer")
            topic, payload, correlation = commander.got[0]
            assert (topic, correlation) == ("answers/plc", b"my-17")
            assert json.loads(payload)["number"] == 5
            assert json.loads(payload)["verdict"] in {"pass", "fail"}, payload
            commander.command("trigger", b'{"number": "x"}', answer_to="answers/plc")
            wait(lambda: len(commander.got) == 2, "the refusal")
            assert "whole number" in json.loads(commander.got[1][1])["error"]


def test_a_free_camera_inspects_what_it_sees_and_counts_what_it_skips(
    tmp_path: Path, broker: Mosquitto, boards: Path, subscriber: Subscriber
) -> None:
    changes: Changes = {"source": {**CAMERA, "device": str(boards)}}
    with Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as station:
        station.start()
        wait(lambda: len(subscriber.events()) >= 10, "ten boards")
        wait(lambda: {event["verdict"] for event in subscriber.events()} == {"pass", "fail"}, "boards of both kinds")
        assert station.stop() == 0


def test_two_stations_on_one_data_folder_are_refused(station: Daemon, tmp_path: Path, boards: Path) -> None:
    station.start()
    changes: Changes = {"station": {"data_dir": str(station.data_dir)}, "source": {**CAMERA, "device": str(boards)}}
    with Daemon(tmp_path / "second", changes=changes) as second:
        second.start(wait=False)
        assert second.wait() == 2
        assert "another station that runs uses it" in second.text()


def test_recipes_are_chosen_between_boards_and_a_challenge_withholds_every_pass(
    tmp_path: Path, broker: Mosquitto, subscriber: Subscriber
) -> None:
    folder = tmp_path / "boards"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), picture(1, red=120))  # the tiny network is sure of it by 0.47
    changes: Changes = {
        "source": {**CAMERA, "device": str(folder)},
        "trigger": {"kind": "http", "answer_ms": 30000},
        "http": {"commands": ["recipe", "challenge"]},
        "recipes.strict": {"threshold": 0.2, "serial_pattern": "^S-"},
        "recipes.proven": {"serial_pattern": "^P-"},
        "recipes.proven.challenge": {"serials": ["P-BAD"], "expect": ["open"]},
    }
    with Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as station:

        def command(what: str, **document: object) -> dict[str, Any]:
            url = f"http://127.0.0.1:{station.http_port}/command/{what}"
            answer: dict[str, Any] = httpx.post(url, json=document, timeout=60, trust_env=False).json()
            return answer

        def verdict(serial: str | None = None) -> str:
            return str(command("trigger", **({"board_serial": serial} if serial else {}))["verdict"])

        station.start()
        assert [verdict(), verdict("S-1"), verdict("P-1")] == ["pass", "fail", "unknown"]
        assert command("recipe", name="strict")["before"] == "default"
        assert command("recipe", name="lax")["ok"] is False
        assert verdict() == "fail"
        station.kill()
        station.start()
        assert verdict() == "fail", "the choice outlives a crash"
        command("recipe", name="default")
        answer = command("trigger", board_serial="P-BAD")
        assert (answer["verdict"], answer["reason"]) == ("unknown", "challenge failed: open not found")
        cv2.imwrite(str(folder / "0.png"), picture(1))
        wait(lambda: verdict("S-2") == "fail" and verdict("P-1") == "fail", "the bad board before the camera")
        answer = command("trigger", board_serial="P-BAD")
        assert answer["verdict"] == "fail"
        assert answer["reason"].startswith("challenge passed: open 0.")
        cv2.imwrite(str(folder / "0.png"), picture(1, red=BLACK_PASSES))
        wait(lambda: verdict("P-2") == "pass", "boards to pass again")
        station.kill()
        station.start()
        assert verdict("P-3") == "pass", "the ledger has the proof"
        assert command("challenge")["announced"] is True
    names = {event["recipe"]["name"] for event in subscriber.events()}
    assert names == {"default", "strict", "proven"}


def test_a_recipe_commanded_while_boards_wait_is_for_those_that_come_after_it(
    station: Daemon, plc: Plc, subscriber: Subscriber
) -> None:
    station.configure(
        {
            "source": {"fps": 2},
            "http": {"commands": ["recipe"]},
            "recipe": {"name": "a"},
            "recipes.b": {"threshold": 0.9},
        }
    )
    station.start()
    plc.wait_for("READY")
    url = f"http://127.0.0.1:{station.http_port}/command/recipe"
    for number in range(1, 5):
        plc.say(b"T%d\r" % number)
        wait(lambda number=number: books(station)["seen"] == number, f"trigger {number}")  # it waits for its picture
        httpx.post(url, json={"name": "b" if number % 2 else "a"}, timeout=60, trust_env=False).raise_for_status()
        wait(lambda number=number: len(subscriber.events()) == number, f"event {number}")
    assert [event["recipe"]["name"] for event in subscriber.events()] == ["a", "b", "a", "b"]


def test_a_stop_in_a_stream_of_triggers_leaves_none_that_it_took_without_its_answer(station: Daemon, plc: Plc) -> None:
    station.configure({"trigger": {"answer_ms": 1000, "queue": 5}})
    for _ in range(3):
        before = len(plc.texts())
        station.start()
        wait(lambda before=before: "READY" in plc.texts()[before:], "READY")
        over = threading.Event()

        def stream(over: threading.Event = over) -> None:
            number = 0
            while not over.wait(0.01):
                number += 1
                plc.say(b"T%d\r" % number)

        asking = threading.Thread(target=stream)
        asking.start()
        try:
            wait(lambda: books(station)["seen"] > books(station)["recorded"] > 0, "boards under way")
            assert station.stop() == 0
        finally:
            over.set()
            asking.join()
        kept = books(station)
        assert kept["seen"] == kept["answered"], "none was taken after the last answer"
        said = plc.texts()[before:]
        assert said[-1] == "SAFE"
        assert "READY" not in said[len(said) - said[::-1].index("BUSY") :], "it is not ready for what it will not take"


def test_a_scanner_on_the_triggers_own_line_takes_no_trigger_for_a_code_though_its_pattern_takes_all(
    station: Daemon, plc: Plc, subscriber: Subscriber
) -> None:
    station.configure({"scanner": {"kind": "line"}})
    station.start()
    plc.wait_for("READY")
    plc.say(b"SN-1\rT1\r")
    wait(subscriber.events, "the board")
    assert [one[1:] for one in answers(plc)] == ["1"]
    assert subscriber.events()[0]["board_serial"] == "SN-1"


def test_a_scanners_code_belongs_to_a_trigger_of_any_kind(
    tmp_path: Path, subscriber: Subscriber, broker: Mosquitto
) -> None:
    """It was opened for serial triggers alone, and nothing said so."""
    folder = tmp_path / "boards"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), picture(1))
    with Plc(tmp_path) as scanner:
        changes: Changes = {
            "source": {**CAMERA, "device": str(folder)},
            "trigger": {"kind": "http", "answer_ms": 30000},
            "scanner": {"kind": "serial", "port": str(scanner.port), "required": True, "window_ms": 60_000},
        }
        with Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as station:
            station.start()
            url = f"http://127.0.0.1:{station.http_port}/command/trigger"

            def with_code() -> bool:
                scanner.say(b"SN-7\r")
                httpx.post(url, json={"number": 1}, timeout=60, trust_env=False)
                return any(one["board_serial"] == "SN-7" for one in subscriber.events())

            wait(with_code, "a board with its code")
            httpx.post(url, json={"number": 2}, timeout=60, trust_env=False)
            httpx.post(url, json={"number": 3}, timeout=60, trust_env=False)
            wait(lambda: subscriber.faults("serial_missing", "began"), "a board without one")
