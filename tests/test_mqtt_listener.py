"""People who listen and look: a refusal ends it with the broker's words, a broker that is away does not."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from station.errors import LinkError, RefusedError
from station.mqtt_listener import listen
from station.mqtt_options import LinkOptions
from station.mqtt_probe import probe
from station.parts import broker_password
from tests.mosquitto import free_port
from tests.rude_broker import Manners, RudeBroker
from tests.waiting import until


def options(port: int, **more: object) -> LinkOptions:
    return LinkOptions(host="127.0.0.1", port=port, client_id="someone", topic="factory/test", **more)  # type: ignore[arg-type]  # tests know their names


class Listening:
    """``listen`` in a thread; what it said of the link, and what it raised."""

    def __init__(self, port: int) -> None:
        self.stop = threading.Event()
        self.links: list[tuple[bool, str]] = []
        self.raised: LinkError | None = None
        self._thread = threading.Thread(target=self._listen, args=(port,))
        self._thread.start()

    def _listen(self, port: int) -> None:
        try:
            listen(
                options(port),
                client_id="someone-watch",
                on_message=lambda _topic, _payload, _retained: None,
                on_link=lambda connected, why: self.links.append((connected, why)),
                stop=self.stop,
            )
        except LinkError as error:
            self.raised = error

    def ended(self) -> bool:
        return not self._thread.is_alive()

    def end(self) -> None:
        self.stop.set()
        self._thread.join()


@contextmanager
def listening(port: int) -> Iterator[Listening]:
    one = Listening(port)
    try:
        yield one
    finally:
        one.end()


@pytest.mark.parametrize(("code", "words"), [(4, "Bad user name or password"), (5, "Not authorized")])
def test_a_refused_login_ends_listening_with_the_brokers_words(code: int, words: str) -> None:
    with RudeBroker(Manners(connack=code)) as broker, listening(broker.port) as one:
        until(one.ended)
        assert isinstance(one.raised, RefusedError)
        assert str(one.raised) == (
            f"127.0.0.1:{broker.port} refuses the connection: {words}: look at [mqtt] username, password_file, tls"
        )
        assert one.links == [], "said once, at the end"


def test_a_broker_that_cannot_take_anyone_at_the_moment_is_tried_again() -> None:
    with RudeBroker(Manners(connack=3)) as broker, listening(broker.port) as one:
        until(lambda: one.links)
        assert "unavailable; trying on" in one.links[0][1]
        broker.manners = Manners()
        until(lambda: any(connected for connected, _ in one.links))
        assert one.raised is None


def test_a_lost_connection_and_a_broker_that_is_away_are_waited_out() -> None:
    with RudeBroker() as broker, listening(broker.port) as one:
        until(lambda: any(connected for connected, _ in one.links))
        broker.visit.close()
        until(lambda: [connected for connected, _ in one.links].count(True) == 2)
        assert (False, f"127.0.0.1:{broker.port}: the connection was lost; trying on") in one.links
    port = free_port()
    with listening(port) as one:
        until(lambda: one.links)
        assert one.links[0] == (False, f"127.0.0.1:{port} is not reached; trying on")
        assert not one.ended()


def test_a_probe_tells_a_refusal_from_a_broker_that_is_away() -> None:
    with (
        RudeBroker(Manners(connack=0x86)) as broker,
        pytest.raises(RefusedError, match=r"Bad user name.*\[mqtt\] username"),
    ):
        probe(options(broker.port))
    with RudeBroker(Manners(connack=0x88)) as broker, pytest.raises(LinkError, match="Server unavailable") as caught:
        probe(options(broker.port))
    assert not isinstance(caught.value, RefusedError)
    with pytest.raises(LinkError, match="refused") as caught:
        probe(options(free_port()))
    assert not isinstance(caught.value, RefusedError), "the network refuses, not the broker"


def test_a_probe_of_an_old_broker_goes_on_to_the_older_protocol_unless_told_not_to() -> None:
    with RudeBroker(Manners(levels=frozenset({4}))) as broker:
        assert probe(options(broker.port)) == "answers, MQTT 3.1.1"
        with pytest.raises(RefusedError, match="Unsupported protocol"):
            probe(options(broker.port, protocol="5"))


@pytest.mark.parametrize("content", [None, b"caf\xe9"])
def test_a_password_that_cannot_be_read_is_said_with_its_key_and_file(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    wanted = options(free_port(), username="someone", password=lambda: broker_password(file))
    words = re.escape(f"[mqtt] password_file = {file} cannot be read")
    with pytest.raises(LinkError, match=f"^{words}"):
        probe(wanted)
    with pytest.raises(LinkError, match=f"^{words}"):
        listen(
            wanted,
            client_id="someone-watch",
            on_message=lambda _topic, _payload, _retained: None,
            on_link=lambda _connected, _why: None,
            stop=threading.Event(),
        )
