"""A station's Modbus side as a program that can be killed: it says its port, and shows what stdin tells it to."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from datetime import datetime, timezone

from station import log
from station.health import Health
from station.modbus import ModbusTcp
from station.modbus_unit import ModbusUnit, Times
from station.types import Answer, Trigger, Verdict


def main() -> None:
    log.setup(level="error", format="json")  # to stderr: stdout is for the parent
    asked: list[Trigger] = []

    def arrived(number: int | None, board_serial: str | None, at_s: float) -> Trigger:
        trigger = Trigger(str(uuid.uuid4()), "modbus", datetime.now(timezone.utc), at_s, number, board_serial)
        asked.append(trigger)
        return trigger

    health, stop = Health(), threading.Event()
    times = Times(heartbeat_s=0.05, valid_s=0)
    unit = ModbusUnit(times, alive=lambda: None, arrived=arrived, beat=health.beat, health=health)
    server = ModbusTcp(unit, host="127.0.0.1", port=0, unit=1, beat=health.beat)
    loops = [threading.Thread(target=one, args=(stop,), daemon=True) for one in (unit.run, server.run)]
    for loop in loops:
        loop.start()
    while server.bound is None:
        time.sleep(0.01)
    print(server.bound[1], flush=True)  # noqa: T201  # the parent reads it
    for line in sys.stdin:
        match line.split():
            case ["busy"]:
                unit.busy(True)
            case ["show", verdict]:
                trigger = asked[-1]
                unit.show(Answer(trigger.id, Verdict(verdict), "by the test", trigger))
            case ["safe"]:
                unit.safe("the station stops")
        print("done", flush=True)  # noqa: T201  # ditto
    stop.set()
    for loop in loops:
        loop.join()


main()
