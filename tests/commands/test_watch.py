"""``station watch``: what it shows of a board, what it says of those that it missed, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.publish
import pytest

from station.commands.watch import Numbers, line_of
from tests.daemon import PATIENCE_S, TOPIC, Daemon
from tests.mosquitto import Mosquitto
from tests.waiting import until


def event(seq: object, ledger: object = "a", **more: object) -> bytes:
    document = {"seq": seq, "ledger": ledger, "file": None, "board_serial": None, "trigger": None, "reason": "short"}
    return json.dumps({**document, **more}).encode()


@pytest.mark.parametrize(
    ("came", "missed"),
    [
        ([("a", 10), ("a", 11)], None),
        ([("a", 10), ("a", 17)], "seq 11 to 16"),
        ([("a", 10), ("a", 12)], "seq 11"),
        ([("a", 10), ("a", 7)], None),
        ([("a", 10), ("a", 10)], None),
        ([("a", 10), ("a", 7), ("a", 11)], None),
        ([("a", 10), ("a", 17), ("a", 12)], None),
        ([("a", 10), ("a", 17), ("a", 12), ("a", 18)], None),
        ([("a", 10), ("b", 5)], None),
        ([("a", 10), ("b", 5), ("b", 7)], "seq 6"),
        ([("a", 10), ("b", 5), ("a", 12)], "seq 11"),
        ([("a", 10), ("a", None), ("a", "x"), (7, 99), (["a"], 99)], None),
    ],
)
def test_a_gap_in_the_numbers_of_a_ledger_is_what_was_missed(came: list[tuple[str, int]], missed: str | None) -> None:
    numbers = Numbers()
    said = [numbers.missed(event(seq, ledger)) for ledger, seq in came][-1]
    assert said == (None if missed is None else f"{missed} did not come here: station ledger list")


def test_a_gap_is_laid_to_the_connection_only_where_that_was_lost() -> None:
    numbers = Numbers()
    numbers.missed(event(10))
    numbers.lost()
    assert numbers.missed(event(17)) == "seq 11 to 16 came while this was not connected: station ledger list"
    assert numbers.missed(event(19)) == "seq 18 did not come here: station ledger list"


def heartbeat(last_seq: object, owed: object = 0, **more: object) -> bytes:
    document = {"last_seq": last_seq, "owed": {"events": owed}, "backlog": 0, "faults": [], **more}
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("heartbeats", "missed"),
    [
        ([(29, 0), (29, 0)], "seq 23 to 29"),
        ([(23, 0), (23, 0)], "seq 23"),
        ([(29, 0), (29, 0), (29, 0)], None),
        ([(22, 0), (22, 0)], None),
        ([(5, 0), (5, 0)], None),
        ([(29, 0)], None),
        ([(28, 0), (29, 0)], None),
        ([(29, 7), (29, 0)], None),
        ([(29, 7), (29, 7)], None),
        ([("x", 0), ("x", 0)], None),
    ],
)
def test_after_a_loss_two_heartbeats_tell_a_gap(heartbeats: list[tuple[object, int]], missed: str | None) -> None:
    numbers = Numbers()
    numbers.missed(event(22))
    numbers.lost()
    said = [numbers.missed_before(heartbeat(*one)) for one in heartbeats][-1]
    assert said == (None if missed is None else f"{missed} came while this was not connected: station ledger list")


def test_what_a_heartbeat_told_is_not_told_again_and_without_a_loss_it_tells_nothing() -> None:
    numbers = Numbers()
    numbers.missed(event(22))
    assert [numbers.missed_before(heartbeat(29)) for _ in range(3)] == [None, None, None]
    numbers.lost()
    assert [numbers.missed_before(heartbeat(29)) for _ in range(2)][-1] is not None
    assert numbers.missed(event(30)) is None
    assert numbers.missed(event(32)) == "seq 31 did not come here: station ledger list"


def test_what_comes_after_a_loss_is_not_told_by_a_heartbeat_too() -> None:
    numbers = Numbers()
    numbers.missed(event(22))
    numbers.lost()
    assert numbers.missed_before(heartbeat(29)) is None
    assert [numbers.missed(event(seq)) for seq in range(23, 30)] == [None] * 7
    assert numbers.missed_before(heartbeat(29)) is None


@pytest.mark.parametrize("payload", [b"", b"\xff", b"7", b"[]", b"{}"])
def test_what_is_no_event_is_no_gap(payload: bytes) -> None:
    assert Numbers().missed(payload) is None
    assert Numbers().missed_before(payload) is None


@pytest.mark.parametrize(
    ("names", "board"),
    [
        ({"trigger": {"kind": "serial", "number": 17, "at": "x"}}, "trigger 17"),
        ({"trigger": {"kind": "serial", "number": 0, "at": "x"}, "board_serial": "SN-1"}, "SN-1 trigger 0"),
        ({"trigger": {"kind": "http", "number": None, "at": "x"}, "board_serial": "SN-1"}, "SN-1"),
        ({"file": "1.png"}, "1.png"),
        ({}, ""),
    ],
)
def test_a_board_is_shown_by_what_it_is_known_as(names: dict[str, object], board: str) -> None:
    assert str(line_of("inspection/fail", event(4, **names))).endswith(f"seq 4  {board}  short")


@contextmanager
def watching(station: Daemon, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """``station watch``, and where its stdout and stderr go."""
    said, told = station.folder / "said", station.folder / "told"
    with said.open("wb") as out, told.open("wb") as err:
        command = station.command("watch", *more)
        watch = subprocess.Popen(command, cwd=station.folder, env=station.environment(), stdout=out, stderr=err)
    try:
        until(lambda: "listening to" in told.read_text(), within_s=PATIENCE_S, what="the connection")
        yield watch, said, told
    finally:
        watch.kill()
        watch.wait(PATIENCE_S)


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("next_comes", [True, False])
def test_what_came_while_the_broker_was_away_is_said(tmp_path: Path, as_json: bool, next_comes: bool) -> None:
    more = ["--json"] if as_json else []
    with (
        Mosquitto(tmp_path / "broker") as broker,
        Daemon(tmp_path, broker_port=broker.port) as station,
        watching(station, *more) as (watch, said, told),
    ):

        def publish(seq: int) -> None:
            topic = f"{TOPIC}/inspection/fail"
            paho.mqtt.publish.single(topic, event(seq), qos=1, port=broker.port)

        def beat(last_seq: int) -> None:
            paho.mqtt.publish.single(f"{TOPIC}/heartbeat", heartbeat(last_seq), port=broker.port)

        until(lambda: "SUBSCRIBE" in broker.log(), what="the subscription")
        publish(10)
        until(said.read_text, within_s=PATIENCE_S, what="the first event")
        broker.stop()
        until(lambda: "was lost" in told.read_text(), within_s=PATIENCE_S, what="the loss")
        broker.start()
        until(lambda: broker.log().count("Received SUBSCRIBE") == 2, within_s=PATIENCE_S, what="it once more")
        if next_comes:
            publish(17)
        else:  # the station was back before us, and has no more boards
            beat(16)
            beat(16)
        notice = "seq 11 to 16 came while this was not connected: station ledger list"
        where = told if as_json else said
        until(lambda: notice in where.read_text().splitlines(), within_s=PATIENCE_S, what="the gap")
        if as_json and next_comes:
            until(lambda: len(said.read_text().splitlines()) == 2, within_s=PATIENCE_S, what="the event")
            events = [json.loads(json.loads(line)["payload"]) for line in said.read_text().splitlines()]
            assert [one["seq"] for one in events] == [10, 17]
        before = told.read_text()
        watch.send_signal(signal.SIGINT)
        assert watch.wait(PATIENCE_S) == 0
        assert told.read_text() == before, "who ends it is told nothing of a lost connection"
