"""The daemon with a PLC that speaks Modbus RTU over a serial line."""

from __future__ import annotations

from pathlib import Path

import cv2

from tests.daemon import BLACK_PASSES, PATIENCE_S, Daemon, Subscriber, lasting_broker, picture
from tests.modbus_plc import ModbusPlc
from tests.test_line_daemon import CAMERA
from tests.test_modbus import far_end, plugged
from tests.waiting import until


def test_over_rtu_the_plc_lets_pass_what_the_events_say_also_after_a_crash(tmp_path: Path) -> None:
    boards = tmp_path / "boards"
    boards.mkdir()
    for one in range(2):
        cv2.imwrite(str(boards / f"{one}.png"), picture(one, red=BLACK_PASSES) if one else picture(one))
    changes: dict[str, dict[str, object]] = {
        "source": {**CAMERA, "device": str(boards)},
        "trigger": {"kind": "modbus", "answer_ms": 5000},
        "gate": {"kind": "modbus"},
        # Without parity: a pty has none, and refuses it the second time.
        "modbus": {"kind": "rtu", "port": str(tmp_path / "plc"), "unit": 3, "parity": "none", "ack_ms": 4000},
    }
    with (
        lasting_broker(tmp_path / "broker") as broker,
        far_end() as (far, client),
        plugged(tmp_path / "plc", far),
        Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as station,
        Subscriber(broker.port) as subscriber,
    ):
        plc = ModbusPlc(client, unit=3)
        passed: dict[int, bool] = {}

        def all_told() -> bool:
            return len(subscriber.events()) == len(passed)

        for numbers in (range(1, 11), range(11, 21)):
            station.start()
            for number in numbers:
                passed[number] = plc.may_pass(number, within_s=PATIENCE_S)
            until(all_told, within_s=PATIENCE_S, what="an event for each board")
            station.kill()
        for event in subscriber.events():
            assert passed[event["trigger"]["number"]] == (event["verdict"] == "pass")
            assert (event["trigger"]["kind"], event["gate"]) == ("modbus", "shown")
        assert set(passed.values()) == {True, False}
