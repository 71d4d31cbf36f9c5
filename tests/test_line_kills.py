"""The power of the line PC goes at each step of the handshake; what the PLC heard must be what the books hold."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import pytest

from tests.daemon import BLACK_PASSES, Daemon, Subscriber, lasting_broker, picture
from tests.killed_station import POINTS
from tests.mosquitto import Mosquitto
from tests.plc import Plc
from tests.test_line_daemon import CAMERA, answers, books, wait

PROGRAM = Path(__file__).with_name("killed_station.py")
SAID = list(POINTS).index("result said")  # from here on the PLC has heard "P1"
FOREVER_S = 1e9


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    with lasting_broker(tmp_path / "broker") as one:
        yield one


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_step_the_line_hears_no_pass_that_is_not_on_record_and_none_twice(
    point: str, tmp_path: Path, broker: Mosquitto
) -> None:
    (tmp_path / "boards").mkdir()
    cv2.imwrite(str(tmp_path / "boards" / "0.png"), picture(1, red=BLACK_PASSES))
    with Plc(tmp_path, acks=True) as plc, Subscriber(broker.port) as subscriber:
        changes: dict[str, dict[str, object]] = {
            "source": {**CAMERA, "device": str(tmp_path / "boards")},
            "serial": {"port": str(plc.port)},
            "trigger": {"kind": "serial", "answer_ms": 60000},
            "gate": {"kind": "serial", "heartbeat_s": 0.2, "ack_text": "A{number}", "ack_ms": 30000},
        }
        folder = tmp_path / "station"
        with Daemon(folder, broker_port=broker.port, changes=changes, program=[str(PROGRAM), point]) as doomed:
            doomed.start()
            plc.wait_for("READY")
            asked_s = time.monotonic()
            plc.say(b"T1\r")
            assert doomed.wait() == -9
        heard = [text for text in answers(plc) if text != "U1"]
        assert heard == (["P1"] if list(POINTS).index(point) >= SAID else [])

        with Daemon(folder, broker_port=broker.port, changes=changes) as station:
            before = plc.texts().count("SAFE")
            station.start()
            plc.wait_for("SAFE", times=before + 1)
            wait(lambda: plc.texts()[-1] in {"READY", "H0", "H1"}, "the line to be ready again")
            seen = 0 if point == "trigger heard" else 1
            wait(lambda: books(station)["recorded"] == seen, "the trigger to be closed")
            assert books(station)["boards"] == books(station)["once"] == seen
            wait(lambda: len({event["event_id"] for event in subscriber.events()}) == seen, "its event")
            assert [text for text in answers(plc) if text != "U1"] == heard, "no PASS for a board of before the crash"
            assert not plc.passes(1, asked_s=asked_s, within_s=FOREVER_S), "the SAFE of the new start ends it"
            if heard:
                with closing(sqlite3.connect(station.data_dir / "ledger.db")) as db:
                    verdicts = [row[0] for row in db.execute("SELECT verdict FROM inspections")]
                assert verdicts == ["pass"], "what the PLC has heard is on record"
            plc.say(b"T2\r")
            plc.wait_for("P2")
            assert station.stop() == 0
