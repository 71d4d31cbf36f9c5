"""The link and the publish loop against a real mosquitto: delivery, state, login, certificates."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from station.errors import LinkError
from station.mqtt_options import Tls
from station.mqtt_probe import probe
from station.publish import run_publish
from station.testing import FakeOutbox
from station.types import Fate, Message
from tests import mosquitto
from tests.linking import Running, state
from tests.mosquitto import WHERE, Mosquitto
from tests.waiting import until

# A broker that is killed may lose what it has acknowledged, and that is not ours to mend. So that it does not: who
# subscribes at QoS 0 is written to before the publisher has its answer, and writes nothing himself, which would make
# the kernel throw away what lies unread when the broker is gone.
GIVES_BEFORE_IT_ACKNOWLEDGES = ["queue_qos0_messages true"]


class Subscriber:
    """A persistent subscriber, which comes back by itself and remembers all that it was given, in order."""

    def __init__(self, port: int, *, client_id: str = "subscriber", qos: int = 1) -> None:
        self.got: list[tuple[str, bytes, bool]] = []
        self.subscribed = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)
        self._client.on_connect = lambda client, *_: client.subscribe("factory/#", qos=qos)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port, keepalive=20)

    def __enter__(self) -> Subscriber:
        self._client.loop_start()
        until(lambda: self.subscribed, what="the subscription")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def payloads(self, topic: str = "factory/test/inspection/pass") -> list[bytes]:
        return [payload for where, payload, _ in self.got if where == topic]

    def states(self) -> list[bytes]:
        return self.payloads("factory/test/state")

    def _on_subscribe(self, *_: object) -> None:
        self.subscribed += 1

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.got.append((message.topic, bytes(message.payload), message.retain))


@contextmanager
def publishing(running: Running, outbox: FakeOutbox) -> Iterator[None]:
    """The publish loop in a thread, on the link that runs."""
    stop = threading.Event()
    thread = threading.Thread(
        target=run_publish,
        args=(stop,),
        kwargs={
            "outbox": outbox,
            "link": running.link,
            "topic": "factory/test",
            "beat": running.health.beat,
            "wake": running.wake,
            "health": running.health,
            "on_outcome": lambda _outcome: None,
            "worked": lambda: None,
        },
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "broker") as started:
        yield started


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_events_arrive_in_order_and_once_when_nothing_goes_wrong(broker: Mosquitto, protocol: str) -> None:
    outbox = FakeOutbox([Message("inspection/pass", b"%d" % n) for n in range(500)])
    with (
        Subscriber(broker.port) as subscriber,
        Running(broker.port, protocol=protocol) as running,
        publishing(running, outbox),
    ):
        until(lambda: len(outbox.state("accepted")) == 500)
        until(lambda: len(subscriber.payloads()) >= 500)
        assert running.link.protocol_in_use == protocol
    assert subscriber.payloads() == [b"%d" % n for n in range(500)]


def broken_three_times(broker: Mosquitto, subscriber: Subscriber, break_it: Callable[[], None]) -> None:
    """3,000 events, while the broker goes away three times in the middle of a thousand."""
    outbox = FakeOutbox()
    with Running(broker.port) as running, publishing(running, outbox):
        for thousand in range(3):
            for number in range(1000):
                outbox.add(Message("inspection/pass", b"%d" % (1000 * thousand + number)))
            running.wake.set()
            until(lambda least=1000 * thousand + 100: len(outbox.state("accepted")) >= least)  # type: ignore[misc]  # bound at once
            break_it()
            until(lambda: "refused" in running.faults().get("broker_away", ""))
            broker.start()
            until(lambda all_=1000 * (thousand + 1): len(set(subscriber.payloads())) == all_)  # type: ignore[misc]  # ditto
        until(lambda: len(outbox.state("accepted")) == 3000)
        assert running.link.connections == 4
        assert "mqtt_client_id_stolen" not in running.faults()
    first_times = list(dict.fromkeys(subscriber.payloads()))
    assert first_times == [b"%d" % number for number in range(3000)]


def test_nothing_is_missing_after_the_broker_was_killed_in_the_middle(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path / "broker", lines=GIVES_BEFORE_IT_ACKNOWLEDGES, persistence=True) as broker,
        Subscriber(broker.port, qos=0) as subscriber,
    ):
        broker.stop()  # what it has saved now is there after each kill: who subscribes to what
        broker.start()
        until(lambda: subscriber.subscribed == 2)
        broken_three_times(broker, subscriber, broker.kill)


def test_nothing_is_missing_after_the_broker_was_restarted_in_the_middle(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker", persistence=True) as broker, Subscriber(broker.port) as subscriber:
        broken_three_times(broker, subscriber, broker.stop)


def test_the_broker_refuses_a_topic_by_its_access_list_and_we_believe_it(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite factory/test/state\ntopic readwrite factory/test/inspection/pass\n")
    acl.chmod(0o600)
    with Mosquitto(tmp_path / "broker", lines=[f"acl_file {acl}"]) as broker, Running(broker.port) as running:
        running.send(topic="factory/test/inspection/pass")
        running.send(topic="factory/test/inspection/fail")
        assert [(ack.fate, ack.reason) for ack in running.answers(2)] == [
            (Fate.ACCEPTED, ""),
            (Fate.REFUSED, "0x87 Not authorized"),
        ]


# State.


def test_the_state_is_retained_online_and_offline_after_a_clean_stop(broker: Mosquitto) -> None:
    with Running(broker.port) as running:
        running.send()
        running.answers(1)
        with Subscriber(broker.port) as early:
            until(early.states)
            assert early.got == [("factory/test/state", state("online", None), True)]
            running.end()
            until(lambda: len(early.states()) == 2)
            assert early.states()[1] == state("offline", "stopped")
    with Subscriber(broker.port, client_id="late") as late:
        until(late.states)
        assert late.got == [("factory/test/state", state("offline", "stopped"), True)]


STATION = """
import sys, threading
from tests.linking import Running
with Running(int(sys.argv[1])) as running:
    running.send()
    running.answers(1)
    print("up", flush=True)
    threading.Event().wait()
"""


def test_the_broker_says_offline_for_a_station_that_was_killed(broker: Mosquitto) -> None:
    with (
        Subscriber(broker.port) as subscriber,
        subprocess.Popen(
            [sys.executable, "-c", STATION, str(broker.port)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
        ) as process,
    ):
        try:
            assert process.stdout is not None
            assert b"up\n" in process.stdout
        finally:
            process.kill()
        until(lambda: len(subscriber.states()) == 2)
        assert subscriber.states() == [state("online", None), state("offline", "connection lost")]
    with Subscriber(broker.port, client_id="late") as late:
        until(late.states)
        assert late.got[0] == ("factory/test/state", state("offline", "connection lost"), True)


def test_two_stations_of_one_name_start_no_war(broker: Mosquitto) -> None:
    with Running(broker.port) as first, Running(broker.port) as second:
        until(lambda: "mqtt_client_id_stolen" in first.faults())
        until(lambda: max(first.pauses_s) >= 60)
        assert [pause_s < 60 for pause_s in first.pauses_s[:3]] == [True, True, False]
        until(lambda: "mqtt_client_id_stolen" in second.faults())


# Login.


@pytest.fixture
def login(tmp_path: Path) -> Iterator[Mosquitto]:
    program = shutil.which("mosquitto_passwd", path=WHERE)
    if program is None:
        pytest.skip("mosquitto_passwd is not installed")
    passwords = tmp_path / "passwords"
    subprocess.run([program, "-b", "-c", passwords, "aoi-1", "right"], check=True, capture_output=True)
    with Mosquitto(tmp_path / "broker", lines=[f"password_file {passwords}"], anonymous=False) as started:
        yield started


def test_a_password_from_a_file_opens_and_a_wrong_one_is_mended_without_a_restart(
    login: Mosquitto, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "password"
    file.write_text("utterly-wrong")
    with Running(login.port, username="aoi-1", password=file.read_text) as running:
        until(lambda: "Not authorized" in running.faults().get("broker_refuses", ""))
        assert not running.link.connected
        file.write_text("right")
        until(running.link.ready)
        assert not running.faults()
    assert "utterly-wrong" not in "".join(capfd.readouterr())


def test_no_login_at_all_is_refused(login: Mosquitto) -> None:
    with Running(login.port) as running:
        until(lambda: "Not authorized" in running.faults().get("broker_refuses", ""))


# Certificates.


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


class Authority:
    """A certificate authority in a folder, made with the openssl command."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        folder.mkdir()
        self._folder = folder
        self.file = folder / "ca.pem"
        self._key = folder / "ca.key"
        openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority"),
            *("-keyout", self._key, "-out", self.file),
        )

    def certify(self, name: str, *, alternative: str = "") -> tuple[Path, Path]:
        """A certificate and its key. *alternative*: the names it is good for (``IP:127.0.0.1``)."""
        cert, key, request = (self._folder / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternative}\n" if alternative else "")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial"),
            *("-days", "2", "-extfile", extensions, "-out", cert),
        )
        return cert, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


Secured = Callable[..., Mosquitto]


@pytest.fixture
def secured(tmp_path: Path, authority: Authority) -> Iterator[Secured]:
    """Starts a broker with a certificate that is good for *alternative*; *mutual*: it wants one of ours, too."""
    started: list[Mosquitto] = []

    def start(*, alternative: str = "IP:127.0.0.1", mutual: bool = False) -> Mosquitto:
        cert, key = authority.certify("broker", alternative=alternative)
        lines = [f"cafile {authority.file}", f"certfile {cert}", f"keyfile {key}"]
        if mutual:
            lines.append("require_certificate true")
        one = Mosquitto(tmp_path / "broker", lines=lines)
        started.append(one)
        one.start()
        return one

    yield start
    for one in started:
        one.kill()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_events_go_through_tls(secured: Secured, authority: Authority, protocol: str) -> None:
    broker = secured()
    with Running(broker.port, protocol=protocol, tls=Tls(ca_file=authority.file)) as running:
        for _ in range(100):
            running.send(b"x" * 5000)
        assert {ack.fate for ack in running.answers(100)} == {Fate.ACCEPTED}
        assert running.link.connections == 1


# paho leaves its socket to the garbage collector, which closes it at once, when the TLS handshake fails.
LEFT_SOCKET = pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")


@LEFT_SOCKET
def test_a_certificate_for_another_name_is_refused(secured: Secured, authority: Authority) -> None:
    broker = secured(alternative="DNS:elsewhere.example")
    with Running(broker.port, tls=Tls(ca_file=authority.file)) as running:
        until(lambda: "certificate is not trusted" in running.faults().get("broker_away", ""))
        assert "127.0.0.1" in running.faults()["broker_away"]
        until(lambda: len(running.pauses_s) > 3)
        assert not running.link.connections


@LEFT_SOCKET
def test_a_certificate_of_an_unknown_authority_is_refused(secured: Secured, tmp_path: Path) -> None:
    broker = secured()
    other = Authority(tmp_path / "other")
    with Running(broker.port, tls=Tls(ca_file=other.file)) as running:
        until(lambda: "certificate is not trusted" in running.faults().get("broker_away", ""))
        assert not running.link.connections


def test_a_broker_that_wants_our_certificate_gets_it(secured: Secured, authority: Authority) -> None:
    broker = secured(mutual=True)
    cert, key = authority.certify("aoi-1")
    with Running(broker.port, tls=Tls(ca_file=authority.file, cert_file=cert, key_file=key)) as running:
        running.send()
        assert running.answers(1)[0].fate is Fate.ACCEPTED


def test_a_broker_that_wants_our_certificate_and_gets_none_is_away_with_a_hint(
    secured: Secured, authority: Authority
) -> None:
    broker = secured(mutual=True)
    with Running(broker.port, tls=Tls(ca_file=authority.file)) as running:
        until(lambda: "client certificate" in running.faults().get("broker_away", ""))
        assert not running.link.connections


# The one look that `station check` takes.


def test_the_probe_says_what_it_found_and_leaves_no_trace(broker: Mosquitto) -> None:
    with Subscriber(broker.port) as subscriber, Running(broker.port) as running:
        until(running.link.ready)
        assert probe(running.options) == "answers, MQTT 5"
        running.send(b"still here")
        until(lambda: subscriber.payloads() == [b"still here"])
        assert len(subscriber.got) == 2
        assert running.link.connections == 1


def test_the_probe_says_why_a_broker_cannot_be_used(broker: Mosquitto, login: Mosquitto) -> None:
    with pytest.raises(LinkError, match="Not authorized"):
        probe(Running(login.port).options)
    broker.kill()
    with pytest.raises(LinkError, match="refused"):
        probe(Running(broker.port).options)


def test_a_missing_mosquitto_is_skipped_on_a_laptop_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosquitto, "WHERE", "/nowhere")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception):
        mosquitto.mosquitto_path()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception):
        mosquitto.mosquitto_path()
