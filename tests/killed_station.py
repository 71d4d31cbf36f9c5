"""``python killed_station.py POINT ARGUMENTS...``: the station, which kills itself when it comes to POINT first."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from station.cli import main
from station.gates.serial import SerialGate
from station.ledger import SqliteLedger
from station.serial_port import SerialPort
from station.sources.camera import Camera
from station.trigger_journal import TriggerJournal

# What is done at each point, and whether it is done before the end comes. A text is said by the gate.
POINTS: dict[str, tuple[type, str, bool, bytes | None]] = {
    "trigger heard": (TriggerJournal, "arrived", False, None),
    "trigger journalled": (TriggerJournal, "arrived", True, None),
    "busy said": (SerialPort, "write", True, b"BUSY"),
    "picture taken": (Camera, "shot", True, None),
    "board judged": (SqliteLedger, "record", False, None),
    "board recorded": (SqliteLedger, "record", True, None),
    "result not yet said": (SerialPort, "write", False, b"P1"),
    "result said": (SerialPort, "write", True, b"P1"),
    "result acknowledged": (SerialGate, "show", True, None),
    "answer not yet journalled": (TriggerJournal, "answered", False, None),
    "answer journalled": (TriggerJournal, "answered", True, None),
    "board not yet sealed": (SqliteLedger, "seal", False, None),
    "board sealed": (SqliteLedger, "seal", True, None),
    "trigger closed": (TriggerJournal, "recorded", True, None),
}


def die_at(point: str) -> None:
    where, name, afterwards, text = POINTS[point]
    whole: Callable[..., Any] = getattr(where, name)

    def killed(self: object, *arguments: Any, **keywords: Any) -> Any:
        if text is not None and not arguments[0].startswith(text):
            return whole(self, *arguments, **keywords)
        if afterwards:
            whole(self, *arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    setattr(where, name, killed)


if __name__ == "__main__":
    die_at(sys.argv.pop(1))
    main()
