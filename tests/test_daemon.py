"""The daemon as its users meet it: a real process, a real broker, a real disk."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest

from station.assets import ASSETS
from tests.daemon import (
    BLACK_PASSES,
    PATIENCE_S,
    Daemon,
    ServiceManager,
    Subscriber,
    drop,
    encoded,
    lasting_broker,
    picture,
    stays,
)
from tests.mosquitto import Mosquitto
from tests.waiting import until

SAMPLES = ASSETS / "samples"
SCHEMA = ASSETS / "inspection.schema.json"

# Programs that are the station with one part of it broken on purpose.
STUCK_LINE = """
import station.app as app
from station.cli import main
app.LIMITS_S["line"] = 1.5
app.run_line = lambda stop, **_: stop.wait()
main()
"""

LINE_THAT_FAILS = """
from datetime import datetime, timezone
import numpy as np
import station.app as app
from station.cli import main
from station.errors import SourceError
from station.types import Frame

def run_line(stop, *, look, **_):
    foresight = look.__self__
    print("left behind:", len(foresight._begun), flush=True)
    for number in range(2):
        image = np.zeros((64, 64, 3), np.uint8)
        foresight.begin(Frame(str(number), image, datetime.now(timezone.utc), "folder"))
    raise SourceError("the share is away")

app.run_line = run_line
main()
"""


def wait(condition: Callable[[], object], what: str) -> None:
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
def station(tmp_path: Path, broker: Mosquitto) -> Iterator[Daemon]:
    """Not started yet."""
    with Daemon(tmp_path, broker_port=broker.port) as one:
        yield one


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Daemon]:
    """A station whose broker is not there; not started yet."""
    with Daemon(tmp_path) as one:
        yield one


def states(subscriber: Subscriber) -> list[str]:
    return [one.document["state"] for one in subscriber.below("state")]


def test_the_bundled_samples_get_the_verdicts_that_their_names_say(station: Daemon, subscriber: Subscriber) -> None:
    station.configure({"detector": {"model": "pcb-demo", "threads": 0}, "source": {"unchanged_s": 1.0}})
    station.start()
    samples = [one for one in SAMPLES.iterdir() if one.suffix == ".jpg"]
    for sample in samples:
        drop(station.inbox, sample.name, sample.read_bytes())
    wait(lambda: len(subscriber.events()) >= len(samples), "an event for each sample")
    verdicts = {one["file"]: one["verdict"] for one in subscriber.events()}
    assert verdicts == {one.name: one.name.partition("-")[0] for one in samples}
    assert Counter(verdicts.values()) == {"fail": 6, "pass": 3, "unknown": 1}
    for message in subscriber.below("inspection"):
        assert message.topic == f"inspection/{message.document['verdict']}"
        assert not message.retained
    wait(lambda: len(station.files("done")) == 9 and len(station.files("failed")) == 1, "each file where it stays")
    (failed,) = station.files("failed")
    assert failed.name.startswith("unknown-")


def test_every_event_is_as_its_shipped_schema_says(station: Daemon, subscriber: Subscriber) -> None:
    if not SCHEMA.exists():
        pytest.skip("the schema does not ship yet")
    station.configure({"source": {"unchanged_s": 1.0}})
    station.start()
    drop(station.inbox, "fails.png", encoded(picture(1)))
    drop(station.inbox, "passes.png", encoded(picture(2, red=BLACK_PASSES)))
    drop(station.inbox, "broken.png", encoded(picture(3))[:200])
    wait(lambda: len(subscriber.events()) == 3, "three events")
    for event in subscriber.events():
        jsonschema.validate(event, json.loads(SCHEMA.read_text()))
    assert {one["file"]: one["verdict"] for one in subscriber.events()} == {
        "fails.png": "fail",
        "passes.png": "pass",
        "broken.png": "unknown",
    }


def test_it_starts_says_online_and_on_sigterm_says_offline_and_exits_0(
    station: Daemon, broker: Mosquitto, subscriber: Subscriber
) -> None:
    station.start()
    wait(lambda: states(subscriber) == ["online"], "online")
    drop(station.inbox, "board.png", encoded(picture(1)))
    wait(subscriber.events, "the event")
    assert station.stop() == 0
    wait(lambda: states(subscriber) == ["online", "offline"], "offline")
    assert station.log("station stopped")
    assert not station.log("loop did not stop in time")
    with Subscriber(broker.port, "latecomer") as late:
        wait(lambda: late.below("state"), "the retained state")
        (state,) = late.below("state")
        assert state.retained
        assert state.document["state"] == "offline"


def test_a_killed_station_is_offline_by_its_will(station: Daemon, subscriber: Subscriber) -> None:
    station.start()
    wait(lambda: states(subscriber) == ["online"], "online")
    station.kill()
    wait(lambda: states(subscriber) == ["online", "offline"], "the will")


def test_the_heartbeat_says_how_the_station_is(station: Daemon, subscriber: Subscriber) -> None:
    station.start()
    drop(station.inbox, "board.png", encoded(picture(1)))
    wait(lambda: any(one.document["last_seq"] == 1 for one in subscriber.below("heartbeat")), "a heartbeat after it")
    beat = subscriber.below("heartbeat")[-1].document
    assert beat["schema"] == "station.heartbeat/1"
    assert beat["station"] == "aoi-1"
    assert beat["ready"] is True
    assert beat["inspections"] == {"pass": 0, "fail": 1, "unknown": 0}
    assert (beat["today"]["boards"], beat["today"]["triggers"]) == (1, None)
    assert beat["mqtt"] == {"protocol": "5"}
    assert set(beat["beats_s"]) == {"line", "publish", "mqtt"}
    assert set(beat["owed"]) == {"events", "oldest_s", "refused"}
    assert beat["model"]["name"] == "tiny"
    assert len(beat["model"]["sha256"]) == 64
    assert beat["faults"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": {"pth": "inbox"}}, "[source] pth: unknown key; did you mean path?"),
        ({"recipe": {"threshold": 1.5}}, "[recipe] threshold"),
        ({"station": {"data_dir": "/proc/nowhere"}}, "[station] data_dir = /proc/nowhere"),
    ],
)
def test_a_wrong_configuration_is_exit_2_with_one_clear_message(
    lonely: Daemon, changes: dict[str, dict[str, object]], said: str
) -> None:
    lonely.configure(changes)
    lonely.start(wait=False)
    assert lonely.wait() == 2
    assert said in lonely.text()
    assert "Traceback" not in lonely.text()
    assert len(lonely.text().splitlines()) == 1


@pytest.mark.parametrize("damage", ["missing", "not a model", "cut off"])
def test_a_model_that_cannot_be_loaded_is_exit_3(lonely: Daemon, damage: str) -> None:
    model = lonely.folder / "tiny.onnx"
    match damage:
        case "missing":
            model.unlink()
        case "not a model":
            model.write_bytes(b"once upon a time")
        case _:
            model.write_bytes(model.read_bytes()[:-40])
    lonely.start(wait=False)
    assert lonely.wait() == 3
    assert "tiny.onnx" in lonely.text()
    assert len(lonely.text().splitlines()) == 1, "one message, no traceback, nothing of the runtime's own"


def test_a_port_in_use_is_exit_2_and_named(lonely: Daemon) -> None:
    with socket.create_server(("127.0.0.1", lonely.http_port)):
        lonely.start(wait=False)
        assert lonely.wait() == 2
    assert f"[http] port: 127.0.0.1:{lonely.http_port} cannot be used" in lonely.text()
    assert "Traceback" not in lonely.text()


def test_a_second_station_on_the_same_inbox_is_exit_2(lonely: Daemon, tmp_path: Path) -> None:
    lonely.start()
    with Daemon(tmp_path / "second", changes={"source": {"path": str(lonely.inbox)}}) as second:
        second.start(wait=False)
        assert second.wait() == 2
        assert "another station that runs takes boards from it" in second.text()


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe.thresholds": {"shrot": 0.4}},
        {"recipes.b": {"serial_pattern": "^B", "thresholds": {"shrot": 0.4}}},
        {"recipes.b": {"serial_pattern": "^B"}, "recipes.b.challenge": {"serials": ["B-BAD"], "expect": ["shrot"]}},
    ],
)
def test_labels_that_the_model_does_not_know_are_exit_2(lonely: Daemon, changes: dict[str, dict[str, object]]) -> None:
    lonely.configure(changes)
    lonely.start(wait=False)
    assert lonely.wait() == 2
    assert "shrot" in lonely.text()


def test_one_ctrl_c_stops_in_order_and_two_at_once(lonely: Daemon) -> None:
    lonely.start()
    lonely.signal(signal.SIGINT)
    assert lonely.wait() == 0
    assert lonely.log("station stopped")
    lonely.start()
    lonely.signal(signal.SIGINT)
    lonely.signal(signal.SIGINT)
    assert lonely.wait() == 0


def test_without_a_broker_boards_are_inspected_and_their_events_come_when_it_does(
    station: Daemon, broker: Mosquitto
) -> None:
    broker.stop()
    station.start()
    for number in range(5):
        drop(station.inbox, f"{number}.png", encoded(picture(number)))
    wait(lambda: station.metric("station_outbox_events") >= 5, "five owed events")
    wait(lambda: len(station.files("done")) == 5, "five boards done")
    assert station.status("/readyz") == 200
    assert station.status("/livez") == 200
    wait(lambda: station.get("/health").json()["status"] == "warn", "a warning")
    assert station.status("/health") == 200
    broker.start()
    with Subscriber(broker.port) as late:
        wait(lambda: len(late.events()) >= 5 or station.metric("station_outbox_events") == 0, "delivery")
    wait(lambda: station.metric("station_outbox_events") == 0, "nothing owed")
    wait(lambda: station.get("/health").json()["status"] == "pass", "all well")
    assert station.metric("station_mqtt_connected") == 1


def test_what_a_frozen_broker_has_not_acknowledged_stays_owed_and_is_sent_again(
    station: Daemon, broker: Mosquitto, subscriber: Subscriber
) -> None:
    station.start()
    wait(lambda: states(subscriber) == ["online"], "online")
    assert broker._process is not None
    broker._process.send_signal(signal.SIGSTOP)
    for number in range(3):
        drop(station.inbox, f"{number}.png", encoded(picture(number)))
    wait(lambda: len(station.files("done")) == 3, "three boards done")
    stays(lambda: station.metric("station_outbox_events") >= 3, for_s=1.0, what="settled without an acknowledgement")
    broker.kill()
    broker.start()
    wait(lambda: len({one["event_id"] for one in subscriber.events()}) == 3, "all three events")
    wait(lambda: station.metric("station_outbox_events") == 0, "nothing owed")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, which only root may make."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all that is left on *disk*."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as out:
            while True:
                out.write(bytes(4096))
    except OSError:
        return ballast


def test_a_full_disk_drops_nothing_that_is_owed_and_work_goes_on_when_there_is_room(
    station: Daemon, broker: Mosquitto, subscriber: Subscriber, small_disk: Path
) -> None:
    station.configure({"station": {"data_dir": str(small_disk / "data")}})
    station.start()
    broker.stop()
    for number in range(5):
        drop(station.inbox, f"{number}.png", encoded(picture(number)))
    wait(lambda: station.metric("station_outbox_events") >= 5, "five owed events")
    ballast = fill(small_disk)
    wait(lambda: station.status("/readyz") == 503, "/readyz 503")
    assert "[ledger] stop_below_mb" in station.get("/readyz").text
    assert station.status("/livez") == 200, "a restart would not help"
    stays(lambda: station.status("/readyz") == 503, for_s=1.5, what="it took heart while the disk was full")
    drop(station.inbox, "late.png", encoded(picture(99)))
    stays(lambda: len(station.files()) == 1, for_s=1.5, what="a file was taken while the disk was full")
    broker.start()
    wait(lambda: len({one["event_id"] for one in subscriber.events()}) == 5, "the owed events, from a full disk")
    wait(
        lambda: any(
            "disk_full" in [fault["code"] for fault in one.document["faults"]] and not one.document["ready"]
            for one in subscriber.below("heartbeat")
        ),
        "a heartbeat that says so",
    )
    ballast.unlink()
    wait(station.ready, "/readyz 200")
    wait(lambda: {one["file"] for one in subscriber.events()} >= {"late.png"}, "the board that waited")
    wait(lambda: station.metric("station_outbox_events") == 0, "nothing owed")
    by_file = {(one["file"], one["event_id"], one["seq"]) for one in subscriber.events()}
    assert sorted(seq for _, _, seq in by_file) == [1, 2, 3, 4, 5, 6]
    wait(lambda: subscriber.faults("disk_full", "ended"), "the end of the fault")
    told = [one.document for one in subscriber.below("fault")]
    assert [one["what"] for one in told if one["code"] == "disk_full"] == ["began", "ended"]


def test_a_ledger_killed_by_a_full_disk_in_the_middle_of_a_burst_loses_nothing(
    station: Daemon, subscriber: Subscriber, small_disk: Path
) -> None:
    """The floor is no help when something else fills the disk faster than anyone looks."""
    station.configure(
        {
            "station": {"data_dir": str(small_disk / "data")},
            "ledger": {"stop_below_mb": 0.001},
            "evidence": {"keep": "all", "stop_below_mb": 0.001},
        }
    )
    station.start()
    for number in range(20):
        drop(station.inbox, f"a{number}.png", encoded(picture(number)))
    ballast = fill(small_disk)
    for number in range(20, 40):
        drop(station.inbox, f"b{number}.png", encoded(picture(number)))
    wait(lambda: station.status("/readyz") == 503, "/readyz 503")
    ballast.unlink()
    wait(station.ready, "/readyz 200")
    wait(lambda: len({one["event_id"] for one in subscriber.events()}) >= 40, "every event")
    assert sorted({one["seq"] for one in subscriber.events()}) == list(range(1, 41))
    assert len({one["file"] for one in subscriber.events()}) == 40
    assert not station.files("failed")


def test_a_floor_above_the_free_space_stops_the_line_and_delivers_what_is_owed(
    station: Daemon, broker: Mosquitto, subscriber: Subscriber
) -> None:
    broker.stop()
    station.start()
    drop(station.inbox, "before.png", encoded(picture(1)))
    wait(lambda: len(station.files("done")) == 1, "the first board")
    assert station.stop() == 0
    station.configure({"ledger": {"stop_below_mb": 1e9}, "evidence": {"stop_below_mb": 1e9}})
    station.start(wait=False)
    wait(lambda: station.status("/readyz") == 503, "/readyz 503")
    drop(station.inbox, "after.png", encoded(picture(2)))
    broker.start()
    wait(lambda: [one["file"] for one in subscriber.events()] == ["before.png"], "what was owed")
    wait(lambda: subscriber.faults("disk_full", "began"), "the fault")
    stays(lambda: len(station.files()) == 1, for_s=1.0, what="a file was taken")
    assert station.stop() == 0
    station.configure({"ledger": {"stop_below_mb": 1}, "evidence": {"stop_below_mb": 2}})
    station.start()
    wait(lambda: subscriber.events()[-1]["file"] == "after.png", "the board that waited")


def test_a_damaged_ledger_is_set_aside_and_a_fault_says_so(station: Daemon, subscriber: Subscriber) -> None:
    station.start()
    drop(station.inbox, "before.png", encoded(picture(1)))
    wait(subscriber.events, "the first event")
    assert station.stop() == 0
    damaged = station.data_dir / "ledger.db"
    damaged.write_bytes(b"\xff" * 4096 + damaged.read_bytes()[4096:])
    station.start()
    drop(station.inbox, "after.png", encoded(picture(2)))
    wait(lambda: len(subscriber.events()) == 2, "the second event")
    wait(lambda: subscriber.faults("ledger_quarantined", "began"), "the fault")
    first, second = subscriber.events()
    assert first["ledger"] != second["ledger"]
    assert second["seq"] == 1
    (fault,) = subscriber.faults("ledger_quarantined", "began")
    assert "quarantine" in fault["detail"]
    assert any(one.stat().st_size for one in (station.data_dir / "quarantine").rglob("*") if one.is_file())


def test_an_inbox_that_is_taken_away_and_put_back_is_watched_again(station: Daemon, subscriber: Subscriber) -> None:
    station.start()
    drop(station.inbox, "before.png", encoded(picture(1)))
    wait(lambda: len(station.files("done")) == 1, "the first board")
    away = station.inbox.rename(station.folder / "away")
    wait(lambda: "line_failing" in station.get("/health").text, "the fault")
    assert station.status("/livez") == 200, "a restart would not bring it back"
    away.rename(station.inbox)
    drop(station.inbox, "after.png", encoded(picture(2)))
    wait(lambda: len(station.files("done")) == 2, "the second board")
    wait(lambda: [one["file"] for one in subscriber.events()] == ["before.png", "after.png"], "both events")
    wait(lambda: subscriber.faults("line_failing", "ended"), "the end of the fault")


def test_a_fault_that_was_there_when_the_station_was_killed_is_ended_by_the_next_start(
    station: Daemon, subscriber: Subscriber
) -> None:
    station.start()
    wait(lambda: states(subscriber) == ["online"], "online")
    away = station.inbox.rename(station.folder / "away")
    wait(lambda: subscriber.faults("line_failing", "began"), "the fault")
    station.kill()
    away.rename(station.inbox)
    station.start()
    wait(lambda: subscriber.faults("line_failing", "ended"), "its end")
    began, ended = (subscriber.faults("line_failing", what)[0] for what in ("began", "ended"))
    assert ended["since"] == began["since"]
    assert ended["detail"] == "the station was started anew"
    assert ended["event_id"] != began["event_id"]
    station.stop()
    station.start()
    wait(lambda: states(subscriber)[-1] == "online", "online again")
    drop(station.inbox, "board.png", encoded(picture(1)))
    wait(subscriber.events, "an event, which comes after all that was owed before it")
    told = {one["event_id"] for one in subscriber.faults("line_failing", "ended")}
    assert told == {ended["event_id"]}, "once, though what was under way may come twice"


def test_the_time_of_the_last_board_outlives_a_restart(lonely: Daemon) -> None:
    name = "station_last_inspection_timestamp_seconds"
    lonely.start()
    assert name not in lonely.get("/metrics").text
    drop(lonely.inbox, "board.png", encoded(picture(1)))
    wait(lambda: name in lonely.get("/metrics").text, "the metric")
    last_s = lonely.metric(name)
    lonely.kill()
    lonely.start()
    assert lonely.metric(name) == pytest.approx(last_s, abs=5.0)
    assert lonely.metric("station_ready") == 1
    assert lonely.metric("station_disk_free_bytes") > 0
    wait(lambda: 'station_fault{code="broker_away"} 1.0' in lonely.get("/metrics").text, "the fault of the broker")


def test_systemd_hears_ready_then_the_watchdog_then_stopping(lonely: Daemon, tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as systemd, under(systemd, lonely) as station:
        station.start()
        wait(lambda: systemd.count("WATCHDOG=1") >= 3, "three feeds")
        assert systemd.count("READY=1") == 1
        assert systemd.said[0].startswith("READY=1"), "nothing is fed before it is ready"
        assert station.stop() == 0
        wait(lambda: systemd.count("STOPPING=1") == 1, "STOPPING")


def test_a_line_that_has_stalled_stops_the_watchdog_feed(tmp_path: Path) -> None:
    with ServiceManager(tmp_path) as systemd, under(systemd, Daemon(tmp_path, program=("-c", STUCK_LINE))) as station:
        station.start(wait=False)
        wait(lambda: systemd.count("WATCHDOG=1"), "a first feed")
        wait(lambda: station.status("/livez") == 503, "/livez 503")
        assert "line has stalled" in station.get("/livez").text
        fed = len(systemd.said)
        stays(lambda: len(systemd.said) <= fed + 1, for_s=3.5, what="the watchdog of a stalled line was fed")


def test_a_line_that_starts_again_after_a_failure_has_forgotten_the_boards_that_waited(tmp_path: Path) -> None:
    with Daemon(tmp_path, program=("-c", LINE_THAT_FAILS)) as station:
        station.start(wait=False)
        wait(lambda: station.text().count("left behind:") >= 2, "a second start of the line")
        assert station.text().count("left behind: 0") == station.text().count("left behind:")


def under(systemd: ServiceManager, station: Daemon) -> Daemon:
    """*station* as a service whose watchdog bites after two seconds."""
    station.environment_extra(NOTIFY_SOCKET=str(systemd.path), WATCHDOG_USEC="2000000")
    return station


def test_every_log_line_of_a_service_is_json_and_no_secret_is_among_them(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("station:hunter2-secret\n")
    subprocess.run(["mosquitto_passwd", "-U", passwords], check=True)
    passwords.chmod(0o644)
    (tmp_path / "password").write_text("hunter2-secret\n")
    lines = [f"password_file {passwords}"]
    changes = {
        "mqtt": {"username": "station", "password_file": str(tmp_path / "password")},
        "log": {"level": "debug", "format": "auto"},
    }
    with (
        Mosquitto(tmp_path / "broker", anonymous=False, lines=lines) as broker,
        Daemon(tmp_path, broker_port=broker.port, changes=changes) as station,
    ):
        station.start()
        drop(station.inbox, "board.png", encoded(picture(1)))
        wait(lambda: station.metric('station_mqtt_publishes_total{outcome="acked"}') >= 1, "an acknowledged event")
        assert "hunter2-secret" not in station.get("/health").text + station.get("/metrics").text
        checked = station.call("check")
        assert station.stop() == 0
    assert "hunter2-secret" not in station.text() + checked.stdout + checked.stderr
    assert {"event", "level", "logger", "timestamp"} <= set.intersection(*(set(line) for line in station.log()))


def test_start_to_ready_says_how_long_it_took(lonely: Daemon) -> None:
    began_s = time.monotonic()
    lonely.start()
    (line,) = lonely.log("station ready")
    assert 0 < line["start_s"] <= time.monotonic() - began_s
