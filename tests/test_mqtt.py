"""The link against a broker without manners: whatever it does, each message has one fate, and none is lost unseen."""

from __future__ import annotations

import os
import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from structlog.testing import capture_logs

from station import mqtt
from station.health import Health
from station.mqtt import MqttLink
from station.mqtt_options import LinkOptions, Tls
from station.parts import broker_password
from station.publish import run_publish
from station.testing import FakeOutbox
from station.types import Fate, Message
from tests.linking import Running, state
from tests.rude_broker import (
    Manners,
    RudeBroker,
    maximum_packet_size,
    receive_maximum,
    server_keep_alive,
)
from tests.waiting import until

NO_ANSWER = Manners(puback=lambda _number: None)


# How much is under way.


def test_no_more_than_the_window_is_under_way() -> None:
    with RudeBroker(NO_ANSWER) as broker, Running(broker.port, window=20) as running:
        for _ in range(20):
            running.send()
        until(lambda: len(broker.events) == 20)
        assert not running.link.ready()
        broker.visit.acknowledge(broker.events[0].packet_id)
        assert running.answers(1)[0].fate is Fate.ACCEPTED
        assert running.link.ready()


def test_a_broker_that_takes_two_at_a_time_gets_two_at_a_time() -> None:
    with RudeBroker(replace(NO_ANSWER, properties=receive_maximum(2))) as broker, Running(broker.port) as running:
        running.send()
        running.send()
        assert not running.link.ready()
        until(lambda: len(broker.events) == 2)
        broker.visit.acknowledge(broker.events[0].packet_id)
        until(running.link.ready)


def test_our_own_state_message_counts_against_the_receive_maximum() -> None:
    with (
        RudeBroker(Manners(properties=receive_maximum(1), state_puback=None)) as broker,
        Running(broker.port) as running,
    ):
        until(lambda: running.link.connected and broker.states)
        assert not running.link.ready()
        broker.visit.acknowledge(broker.states[0].packet_id)
        until(running.link.ready)


def test_a_message_of_our_own_that_the_broker_refuses_is_logged_with_its_topic() -> None:
    refuses = Manners(state_puback=0x87, puback=lambda _number: 0x87)
    with RudeBroker(refuses) as broker, capture_logs() as logs, Running(broker.port) as running:
        until(running.link.ready)
        running.link.respond("answers/plc-1", b"{}", None)
        until(lambda: len([one for one in logs if "refused" in one["event"]]) == 2)
    refused = [one for one in logs if one["event"] == "message refused"]
    assert [one["topic"] for one in refused][:2] == ["factory/test/state", "answers/plc-1"]
    assert all("0x87" in one["reason"] for one in refused)


def test_a_lost_puback_of_our_state_does_not_close_the_window_for_ever() -> None:
    with (
        RudeBroker(Manners(properties=receive_maximum(1), state_puback=None)) as broker,
        Running(broker.port) as running,
    ):
        until(lambda: running.link.connected and broker.states)
        broker.manners = Manners(properties=receive_maximum(1))
        running.clock.leap(21)
        until(running.link.ready)
        assert len(broker.connects) == 2


def test_an_event_above_the_maximum_packet_size_is_refused_by_us_and_never_sent() -> None:
    manners = Manners(properties=maximum_packet_size(1000))
    with RudeBroker(manners) as broker, Running(broker.port) as running:
        large = running.send(b"x" * 1000)
        small = running.send(b"y")
        large_ack, small_ack = running.answers(2)
        assert (large_ack.token, large_ack.fate) == (large, Fate.REFUSED)
        assert "1000" in large_ack.reason
        assert (small_ack.token, small_ack.fate) == (small, Fate.ACCEPTED)
        assert [event.payload for event in broker.events] == [b"y"]


# Answers.


@pytest.mark.parametrize(
    ("code", "fate", "words"),
    [
        (0x00, Fate.ACCEPTED, ""),
        (0x10, Fate.ACCEPTED, ""),
        (0x80, Fate.BUSY, "0x80 Unspecified error"),
        (0x83, Fate.BUSY, "0x83 Implementation specific error"),
        (0x87, Fate.REFUSED, "0x87 Not authorized"),
        (0x90, Fate.REFUSED, "0x90 Topic name invalid"),
        (0x97, Fate.BUSY, "0x97 Quota exceeded"),
        (0x99, Fate.REFUSED, "0x99 Payload format invalid"),
    ],
)
def test_a_puback_is_believed_by_its_reason_code(code: int, fate: Fate, words: str) -> None:
    with RudeBroker(Manners(puback=lambda _number: code)) as broker, Running(broker.port) as running:
        token = running.send()
        ack = running.answers(1)[0]
        assert (ack.token, ack.fate, ack.reason) == (token, fate, words)


def test_a_puback_for_nothing_that_was_sent_is_nobodys() -> None:
    with RudeBroker() as broker, Running(broker.port) as running:
        until(running.link.ready)
        broker.visit.acknowledge(4711)
        token = running.send()
        assert [ack.token for ack in running.answers(1)] == [token]
        assert len(broker.connects) == 1


def test_a_puback_said_twice_is_one_ack() -> None:
    with RudeBroker(Manners(times=2)) as broker, Running(broker.port) as running:
        tokens = [running.send() for _ in range(50)]
        running.answers(50)
        running.end()
        assert sorted(ack.token for ack in running.answers(50)) == tokens


def test_an_answer_that_is_faster_than_the_sender_finds_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    publish, take_in = paho.Client.publish, MqttLink._take_in
    turns: list[None] = []

    def counted(self: MqttLink, connection: Any) -> None:
        take_in(self, connection)
        turns.append(None)

    def slow(self: paho.Client, topic: str, *args: Any, **options: Any) -> paho.MQTTMessageInfo:
        info = publish(self, topic, *args, **options)
        if not topic.endswith("/state"):  # it does not return before the link has seen the answer, where it could
            now = len(turns)
            until(lambda: running.link._lock.locked() or len(turns) > now + 3)
        return info

    monkeypatch.setattr(MqttLink, "_take_in", counted)
    monkeypatch.setattr(paho.Client, "publish", slow)
    with RudeBroker() as broker, Running(broker.port) as running:
        tokens = [running.send() for _ in range(5)]
        acks = running.answers(5)
        assert [ack.token for ack in acks] == tokens
        assert {ack.fate for ack in acks} == {Fate.ACCEPTED}


def test_many_events_between_heartbeats_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    writers: set[str] = set()
    write = paho.Client._packet_write

    def noted(self: paho.Client) -> Any:
        writers.add(threading.current_thread().name)
        return write(self)

    monkeypatch.setattr(paho.Client, "_packet_write", noted)
    with RudeBroker() as broker, Running(broker.port) as running:
        tokens = []
        for _ in range(1000):
            tokens.append(running.send())
            running.link.tell("factory/test/heartbeat", b"{}")
        acks = running.answers(1000)
        assert [ack.token for ack in acks] == tokens
        assert {ack.fate for ack in acks} == {Fate.ACCEPTED}
        assert len(broker.connects) == 1
        until(running.link.ready)
    assert writers == {"mqtt"}  # two threads that write would mix up their packets


def test_what_is_told_without_acknowledgement_gives_no_ack_and_takes_no_place_in_the_window() -> None:
    with RudeBroker() as broker, Running(broker.port, window=1) as running:
        until(running.link.ready)
        for _ in range(30):
            running.link.tell("factory/test/heartbeat", b"{}")
        until(lambda: len(broker.told) == 30)
        token = running.send()
        assert [ack.token for ack in running.answers(1)] == [token]


# The end of a connection.


def test_a_lost_puback_is_sent_again_and_paho_sends_nothing_by_itself() -> None:
    outbox = FakeOutbox([Message("inspection/pass", b"%d" % n) for n in range(5)])
    outcomes: list[str] = []
    stop = threading.Event()
    with (
        RudeBroker(Manners(puback=lambda number: None if number == 2 else 0)) as broker,
        Running(broker.port) as running,
    ):
        publish = threading.Thread(
            target=run_publish,
            args=(stop,),
            kwargs={
                "outbox": outbox,
                "link": running.link,
                "topic": "factory/test",
                "beat": lambda _name: None,
                "wake": running.wake,
                "health": running.health,
                "on_outcome": outcomes.append,
                "worked": lambda: None,
            },
        )
        publish.start()
        try:
            until(lambda: len(outbox.state("accepted")) == 4)
            running.clock.leap(21)
            until(lambda: len(outbox.state("accepted")) == 5)
        finally:
            stop.set()
            publish.join(30)
        assert [(event.visit, event.payload, event.dup) for event in broker.events] == [
            *((0, b"%d" % n, False) for n in range(5)),
            (1, b"2", False),
        ]
        assert outcomes.count("resent") == 1
        assert "broker_away" not in running.faults()


def test_what_was_under_way_when_the_broker_disconnects_is_lost_and_said_so_once() -> None:
    with RudeBroker(NO_ANSWER) as broker, Running(broker.port) as running:
        tokens = [running.send() for _ in range(3)]
        until(lambda: len(broker.events) == 3)
        broker.visit.disconnect(0x8B)
        acks = running.answers(3)
        until(lambda: running.link.connections == 2)
        running.end()
        assert [(ack.token, ack.fate) for ack in acks] == [(token, Fate.LOST) for token in tokens]
        assert running.acks == acks
        assert len(broker.events) == 3


def test_every_token_has_exactly_one_fate_however_often_the_connection_breaks() -> None:
    with RudeBroker(Manners(puback=lambda number: None if number % 10 == 7 else 0)) as broker:
        with Running(broker.port) as running:
            tokens: list[int] = []
            for number in range(600):
                if number % 50 == 49 or len(tokens) % 97 == 96:
                    broker.visit.close()
                tokens.append(running.send())
        acks = running.answers(600)
        assert sorted(ack.token for ack in acks) == sorted(tokens)
        assert len(set(tokens)) == 600
        assert {ack.fate for ack in acks} == {Fate.ACCEPTED, Fate.LOST}
        assert not running.raised


def test_a_send_without_a_connection_is_lost_at_once_and_never_comes_out_later() -> None:
    with RudeBroker() as broker:
        running = Running(broker.port)
        token = running.link.send("factory/test/inspection/pass", b"early")
        running.link.tell("factory/test/heartbeat", b"early")
        assert [(ack.token, ack.fate) for ack in running.answers(1)] == [(token, Fate.LOST)]
        with running:
            running.send(b"later")
            running.answers(2)
        assert [event.payload for event in broker.events] == [b"later"]
        assert not broker.told


def test_a_half_open_connection_with_an_event_under_way_is_found_by_the_ack_timeout() -> None:
    with RudeBroker() as broker, Running(broker.port) as running:
        until(running.link.ready)
        broker.visit.deaf.set()
        running.send(b"swallowed")
        running.clock.leap(21)
        ack = running.answers(1)[0]
        assert ack.fate is Fate.LOST
        until(lambda: running.link.connections == 2)


def test_a_half_open_connection_that_is_idle_is_found_by_the_keepalive() -> None:
    with RudeBroker() as broker, Running(broker.port, keepalive_s=1) as running:
        until(running.link.ready)
        broker.visit.deaf.set()
        until(lambda: running.link.connections == 2, within_s=60)


def test_the_servers_keepalive_is_kept_where_it_is_shorter_than_ours() -> None:
    manners = Manners(properties=server_keep_alive(1))
    with RudeBroker(manners) as broker, Running(broker.port, keepalive_s=600) as running:
        until(running.link.ready)
        until(lambda: len(broker.pings) >= 2)
        assert len(broker.connects) == 1


def test_a_broker_that_takes_the_connection_and_says_nothing_is_away() -> None:
    with RudeBroker(Manners(connack=None)) as broker, Running(broker.port, connect_timeout_s=0.3) as running:
        until(lambda: len(broker.connects) == 3)
        assert "does not answer" in running.faults()["broker_away"]
        assert not running.link.connected
        broker.manners = Manners()
        until(running.link.ready)
        assert running.link.protocol_in_use == "5"
        assert "broker_away" not in running.faults()


def test_an_absent_broker_is_a_fault_that_ends_and_no_failure_of_the_loop() -> None:
    with RudeBroker() as broker:
        port = broker.port
    with Running(port) as running:
        until(lambda: len(running.pauses_s) > 5)
        assert f"127.0.0.1:{port}" in running.faults()["broker_away"]
        assert max(running.pauses_s) <= 1.0
    assert not running.raised


def garbage() -> list[bytes]:
    chance = random.Random(7)  # noqa: S311  # the same rubbish each time
    bodies = [b"", b"\x00", b"\x00\x01\xff", b"\x00\x00\x05\x11", b"\xff" * 20, chance.randbytes(40)]
    packets = [bytes((kind, len(body))) + body for kind in range(0x10, 0x100, 0x10) for body in bodies]
    return [*packets, b"\x20\xff\xff\xff\xff\xff", b"HTTP/1.1 400 Bad Request\r\n\r\n", chance.randbytes(500)]


def test_garbage_instead_of_a_connack_ends_the_connection_and_nothing_else() -> None:
    with RudeBroker(Manners(greets_with=b"?")) as broker, Running(broker.port, connect_timeout_s=0.05) as running:
        for rubbish in garbage():
            broker.manners = Manners(greets_with=rubbish)
            before = len(broker.connects)
            until(lambda before=before: len(broker.connects) >= before + 2, what=f"a connection after {rubbish!r}")  # type: ignore[misc]  # bound at once
        broker.manners = Manners()
        until(running.link.ready)
    assert not running.raised


def test_garbage_in_the_middle_ends_the_connection_and_nothing_else() -> None:
    with RudeBroker() as broker, Running(broker.port) as running:
        for rubbish in garbage():
            until(running.link.ready)
            before = running.link.connections
            broker.visit.raw(rubbish)
            broker.visit.close()
            until(lambda before=before: running.link.connections > before, what=f"a connection after {rubbish!r}")  # type: ignore[misc]  # bound at once
    assert not running.raised


def test_an_exception_in_a_callback_comes_out_of_the_loop_and_leaves_no_dead_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take_notes = MqttLink._take_notes

    def broken(self: MqttLink, connection: Any) -> None:
        take_notes(self, connection)

        def on_publish(*_: object) -> None:
            if len(broker.events) > 0:
                raise RuntimeError("a defect in a callback")

        connection.client.on_publish = on_publish

    monkeypatch.setattr(MqttLink, "_take_notes", broken)
    with RudeBroker(Manners()) as broker, Running(broker.port) as running:
        token = running.send()
        assert [(ack.token, ack.fate) for ack in running.answers(1)] == [(token, Fate.LOST)]
        until(lambda: running.raised)
        assert str(running.raised[0]) == "a defect in a callback"
        assert not running.link.connected
        assert not running.link.ready()


# Which protocol.


@pytest.mark.parametrize("code", [0x84, 0x01])
def test_a_broker_that_names_the_protocol_gets_the_older_one_at_once(code: int) -> None:
    with (
        RudeBroker(Manners(levels=frozenset({4}), refuses_level_by=code)) as broker,
        Running(broker.port) as running,
    ):
        until(running.link.ready)
        assert running.link.protocol_in_use == "3.1.1"
        assert [connect.level for connect in broker.connects] == [5, 4]
        token = running.send()
        assert (running.answers(1)[0].token, running.acks[0].fate) == (token, Fate.ACCEPTED)


def test_a_broker_that_hangs_up_three_times_gets_the_older_protocol_and_not_sooner() -> None:
    with (
        RudeBroker(Manners(levels=frozenset({4}), refuses_level_by=None)) as broker,
        Running(broker.port) as running,
    ):
        until(running.link.ready)
        assert [connect.level for connect in broker.connects] == [5, 5, 5, 4]


def test_a_broker_that_hung_up_twice_still_gets_mqtt_5() -> None:
    with RudeBroker(Manners(hangs_up=2)) as broker, Running(broker.port) as running:
        until(running.link.ready)
        assert [connect.level for connect in broker.connects] == [5, 5, 5]


def test_a_protocol_that_is_configured_is_never_left() -> None:
    with RudeBroker(Manners(levels=frozenset({4}))) as broker, Running(broker.port, protocol="5") as running:
        until(lambda: len(broker.connects) > 4)
        assert {connect.level for connect in broker.connects} == {5}
        assert "broker_away" in running.faults()


def test_mqtt_5_is_tried_again_after_an_hour() -> None:
    with RudeBroker(Manners(levels=frozenset({4}))) as broker, Running(broker.port) as running:
        running.send()
        running.answers(1)
        broker.manners = Manners()
        running.clock.leap(3000)
        running.send()
        assert running.answers(2)[1].fate is Fate.ACCEPTED
        assert [connect.level for connect in broker.connects] == [5, 4]
        running.clock.leap(601)
        until(lambda: running.link.protocol_in_use == "5")
        assert [connect.level for connect in broker.connects] == [5, 4, 5]
        assert b"reconnecting" in broker.states[1].payload
        assert not running.faults()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_broker_keeps_no_session_for_us(protocol: str) -> None:
    with RudeBroker() as broker, Running(broker.port, protocol=protocol) as running:
        until(running.link.ready)
        assert broker.connects[0].clean
        assert broker.connects[0].keepalive_s == 20


# Refusals.


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0x86, "Bad user name or password"),
        (0x87, "Not authorized"),
        (0x88, "Server unavailable"),
        (0x8A, "Banned"),
    ],
)
def test_a_refused_connection_is_a_fault_in_the_brokers_words_and_is_tried_ever_more_rarely(
    code: int, words: str
) -> None:
    with RudeBroker(Manners(connack=code)) as broker, Running(broker.port) as running:
        until(lambda: len(running.pauses_s) > 10)
        assert words in running.faults()["broker_refuses"]
        assert "[mqtt] username" in running.faults()["broker_refuses"]
        assert list(running.faults()) == ["broker_refuses"], "it is there: it is not away as well"
        assert running.pauses_s[:8] == sorted(running.pauses_s[:8])
        assert running.pauses_s[9] == 15.0
        broker.manners = Manners()
        until(running.link.ready)
        assert not running.faults()


@pytest.mark.parametrize(
    ("code", "words"), [(4, "Bad user name or password"), (5, "Not authorized"), (3, "unavailable")]
)
def test_a_refused_connection_is_a_fault_with_the_older_protocol_too(code: int, words: str) -> None:
    with RudeBroker(Manners(connack=code)) as broker, Running(broker.port, protocol="3.1.1") as running:
        until(lambda: "broker_refuses" in running.faults())
        assert words in running.faults()["broker_refuses"]


def test_a_broker_that_goes_away_after_it_refused_is_away_and_no_more_said_to_refuse() -> None:
    with RudeBroker(Manners(connack=0x87)) as broker, Running(broker.port) as running:
        until(lambda: list(running.faults()) == ["broker_refuses"])
        broker.manners = Manners(hangs_up=1 << 30)
        until(lambda: list(running.faults()) == ["broker_away"])


def test_a_broker_that_comes_back_and_refuses_is_no_more_said_to_be_away() -> None:
    with RudeBroker(Manners(hangs_up=1 << 30)) as broker, Running(broker.port) as running:
        until(lambda: list(running.faults()) == ["broker_away"])
        broker.manners = Manners(connack=0x87)
        until(lambda: list(running.faults()) == ["broker_refuses"])


def test_a_lost_connection_is_told_once() -> None:
    with RudeBroker() as broker, Running(broker.port) as running:
        until(running.link.ready)
        broker.manners = Manners(connack=None)
        broker.visit.close()
        until(lambda: "broker_away" in running.faults())
        assert running.faults()["broker_away"].lower().count("the connection was lost") == 1


def test_the_password_is_asked_for_at_each_connection() -> None:
    passwords = iter(["old", "new", "newer", *["newest"] * 1000])
    asked: list[str] = []

    def password() -> str:
        asked.append(next(passwords))
        return asked[-1]

    with RudeBroker(Manners(connack=0x86)) as broker:
        with Running(broker.port, username="aoi-1", password=password):
            until(lambda: len(broker.connects) > 2)
        assert asked[:3] == ["old", "new", "newer"]
        assert broker.connects[0].flags & 0xC0 == 0xC0


def test_a_password_that_cannot_be_read_is_a_fault_that_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    with (
        RudeBroker() as broker,
        Running(broker.port, username="aoi-1", password=lambda: broker_password(file)) as running,
    ):
        until(lambda: "broker_refuses" in running.faults())
        detail = running.faults()["broker_refuses"]
        assert f"[mqtt] password_file = {file} cannot be read (No such file or directory)" in detail
        assert "refuses" not in detail, "it was not even asked"
        assert "username" not in detail
        assert not broker.connects
        file.write_text("secret")
        until(running.link.ready)
    assert not running.raised


def test_certificate_files_that_cannot_be_used_are_a_fault_that_names_them(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    with RudeBroker() as broker, Running(broker.port, tls=Tls(ca_file=file)) as running:
        until(lambda: str(file) in running.faults().get("broker_refuses", ""))
    assert not running.raised


# A client id that is not ours alone.


def test_a_stolen_client_id_is_a_fault_that_names_it_and_starts_no_war() -> None:
    with RudeBroker() as broker, Running(broker.port) as running:
        until(running.link.ready)
        broker.visit.disconnect(0x8E)
        until(lambda: "mqtt_client_id_stolen" in running.faults())
        assert "station-test" in running.faults()["mqtt_client_id_stolen"]
        until(lambda: running.pauses_s)
        assert running.pauses_s[0] >= 60


def test_the_fault_of_a_stolen_client_id_ends_when_nobody_takes_it_any_more() -> None:
    with RudeBroker() as broker, Running(broker.port) as running:
        until(running.link.ready)
        broker.visit.disconnect(0x8E)
        until(lambda: running.link.connections == 2)
        assert "mqtt_client_id_stolen" in running.faults()
        running.send()
        running.answers(1)
        running.clock.leap(60)
        until(lambda: not running.faults())
        assert running.link.connected


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_without_a_word_a_stolen_client_id_is_told_by_three_connections_closed_at_once(protocol: str) -> None:
    with RudeBroker() as broker, Running(broker.port, protocol=protocol) as running:
        for visit in range(3):
            until(lambda visit=visit: running.link.connections == visit + 1 and running.link.ready())  # type: ignore[misc]  # bound at once
            broker.visit.close()
        until(lambda: len(running.pauses_s) == 3)
        assert running.pauses_s[1] < 5
        assert running.pauses_s[2] >= 60
        assert "mqtt_client_id_stolen" in running.faults()


def test_a_broker_that_takes_us_and_sends_us_away_for_another_reason_is_left_in_peace_ever_longer() -> None:
    manners = Manners(after_connack=lambda visit: visit.disconnect(0x89))
    with RudeBroker(manners) as broker, Running(broker.port) as running:
        until(lambda: len(running.pauses_s) > 9)
        assert "Server busy" in running.faults()["broker_away"]
        assert "mqtt_client_id_stolen" not in running.faults()
        assert max(running.pauses_s) == 15.0


# State.


def test_the_first_word_is_online_and_the_last_is_offline_acknowledged_before_we_go() -> None:
    with RudeBroker() as broker, Running(broker.port) as running:
        until(running.link.ready)
        running.end()
        until(lambda: broker.goodbyes)
        assert [(one.topic, one.payload, one.retain) for one in broker.states] == [
            ("factory/test/state", state("online", None), True),
            ("factory/test/state", state("offline", "stopped"), True),
        ]


def test_we_go_only_after_offline_was_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "OFFLINE_S", 300.0)
    acknowledged = threading.Event()
    gone_after: list[bool] = []
    disconnect = paho.Client.disconnect

    def noted(self: paho.Client, *args: Any) -> Any:
        gone_after.append(acknowledged.is_set())
        return disconnect(self, *args)

    monkeypatch.setattr(paho.Client, "disconnect", noted)
    with RudeBroker() as broker, Running(broker.port) as running:
        until(lambda: running.link.ready() and broker.states)
        broker.manners = Manners(state_puback=None)
        running.stop.set()
        until(lambda: len(broker.states) == 2)
        acknowledged.set()
        broker.visit.acknowledge(broker.states[1].packet_id)
        running.end()
        assert gone_after == [True]


def test_a_broker_that_does_not_acknowledge_offline_holds_no_stop_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "OFFLINE_S", 0.2)
    with RudeBroker(Manners(state_puback=None)) as broker, Running(broker.port) as running:
        until(running.link.ready)
        running.end()
        until(lambda: broker.goodbyes)


def test_a_stop_while_the_broker_says_nothing_is_no_fault() -> None:
    with RudeBroker(Manners(connack=None)) as broker, Running(broker.port, connect_timeout_s=60) as running:
        until(lambda: broker.connects)
        running.end()
        assert not running.faults()
        assert not running.pauses_s


def test_a_refused_state_message_is_no_ack_and_no_end_of_the_connection() -> None:
    with RudeBroker(Manners(state_puback=0x87)) as broker, Running(broker.port) as running:
        token = running.send()
        assert [ack.token for ack in running.answers(1)] == [token]
        assert len(broker.connects) == 1


# Time.


def test_an_event_and_its_answer_wake_the_link_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "TURN_S", 300.0)
    with RudeBroker() as broker, Running(broker.port) as running:
        until(running.link.ready)
        running.wake.clear()
        token = running.send()
        assert running.wake.wait(60)
        assert [ack.token for ack in running.answers(1)] == [token]
        broker.visit.close()  # wakes it for the end of the test
        monkeypatch.setattr(mqtt, "TURN_S", 0.5)


def test_the_link_beats_while_it_waits_out_a_pause() -> None:
    now_s = [0.0]
    health = Health(monotonic=lambda: now_s[0])
    health.watch("mqtt", limit_s=1.0)
    link = MqttLink(LinkOptions("127.0.0.1", 1, "x", "t"), state=state, health=health)
    now_s[0] = 100.0
    link._wait(threading.Event(), 0.01)
    assert health.stalled() == []


def test_no_socket_is_left_open_by_many_connections() -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # a count is all

    with RudeBroker(Manners(connack=0x87)) as broker, Running(broker.port):
        until(lambda: len(broker.connects) > 3)
        before = open_files()
        until(lambda: len(broker.connects) > 40)
        assert open_files() < before + 20


def test_the_link_never_uses_a_thread_of_pahos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paho.Client, "loop_start", lambda _self: pytest.fail("a thread that nobody supervises"))
    with RudeBroker() as broker, Running(broker.port) as running:
        running.send()
        running.answers(1)
