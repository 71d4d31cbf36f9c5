"""
``python killed_station.py POINT ARGUMENTS...``: the station, which kills itself when it comes to POINT first.

With ``@FILE`` for the point, it dies at the point whose name stands in FILE, as soon as one stands there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from station.cli import main
from station.evidence import FolderEvidence
from station.gates.serial import SerialGate
from station.ledger import SqliteLedger
from station.mqtt import MqttLink
from station.outbox import SqliteOutbox
from station.serial_port import SerialPort
from station.sources.camera import CameraOrder
from station.sources.claims import Claims
from station.trigger_journal import TriggerJournal


@dataclass(frozen=True, slots=True)
class Point:
    """In which method; whether it is done before the end comes; what the gate is saying, where it must be that."""

    where: type
    name: str
    done: bool
    says: bytes | None = None


# The steps of a board on a triggered line, in their order.
POINTS = {
    "trigger heard": Point(TriggerJournal, "arrived", done=False),
    "trigger journalled": Point(TriggerJournal, "arrived", done=True),
    "busy said": Point(SerialPort, "write", done=True, says=b"BUSY"),
    "picture taken": Point(CameraOrder, "shot", done=True),
    "board judged": Point(SqliteLedger, "record", done=False),
    "board recorded": Point(SqliteLedger, "record", done=True),
    "result not yet said": Point(SerialPort, "write", done=False, says=b"P"),
    "result said": Point(SerialPort, "write", done=True, says=b"P"),
    "result acknowledged": Point(SerialGate, "show", done=True),
    "answer not yet journalled": Point(TriggerJournal, "answered", done=False),
    "answer journalled": Point(TriggerJournal, "answered", done=True),
    "board not yet sealed": Point(SqliteLedger, "seal", done=False),
    "board sealed": Point(SqliteLedger, "seal", done=True),
    "trigger closed": Point(TriggerJournal, "recorded", done=True),
}
# What every station does with a board, and what a folder adds to it.
DELIVERY = {
    "evidence not yet kept": Point(FolderEvidence, "keep", done=False),
    "evidence kept": Point(FolderEvidence, "keep", done=True),
    "event not yet sent": Point(MqttLink, "send", done=False),
    "event sent": Point(MqttLink, "send", done=True),
    "event not yet settled": Point(SqliteOutbox, "settle", done=False),
    "event settled": Point(SqliteOutbox, "settle", done=True),
}
CUSTODY = {
    "file not yet claimed": Point(Claims, "take", done=False),
    "file claimed": Point(Claims, "take", done=True),
    "file not yet moved": Point(Claims, "finish", done=False),
    "file moved": Point(Claims, "finish", done=True),
}
ALL = {**POINTS, **DELIVERY, **CUSTODY}


def die_at(armed: Callable[[], str], names: list[str]) -> None:
    """Lets the process die at that of *names* which *armed* says."""
    for where, method in {(ALL[name].where, ALL[name].name) for name in names}:
        here = [name for name in names if (ALL[name].where, ALL[name].name) == (where, method)]
        setattr(where, method, _killed(getattr(where, method), here, armed))


def _killed(whole: Callable[..., Any], names: list[str], armed: Callable[[], str]) -> Callable[..., Any]:
    def instead(self: object, *arguments: Any, **keywords: Any) -> Any:
        name = armed()
        point = ALL[name] if name in names else None
        if point is None or (point.says is not None and not arguments[0].startswith(point.says)):
            return whole(self, *arguments, **keywords)
        if point.done:
            whole(self, *arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    return instead


def _named(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    chosen = sys.argv.pop(1)
    if chosen.startswith("@"):
        die_at(lambda: _named(Path(chosen[1:])), list(ALL))
    else:
        die_at(lambda: chosen, [chosen])
    main()
