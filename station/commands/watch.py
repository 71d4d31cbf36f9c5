"""``station watch``: prints events, state and heartbeat as they arrive."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from datetime import datetime
from types import FrameType
from typing import Any

from rich.console import Console
from rich.text import Text

from station.config import Settings
from station.mqtt_listener import listen
from station.parts import link_options
from station.terminal import board_name, shown

STYLES = {"pass": "bold green", "fail": "bold red", "unknown": "bold yellow", "online": "green", "offline": "red"}


def watch(settings: Settings, *, as_json: bool) -> None:
    """
    Follows the station's topics until Ctrl-C, and says which events it has missed.

    Raises RefusedError when the broker does not let us in, LinkError when it cannot be tried as configured.
    """
    console, problems = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)
    options = link_options(settings)
    numbers, ending = Numbers(), False

    def on_message(topic: str, payload: bytes, retained: bool) -> None:
        below = topic.removeprefix(f"{options.topic}/")
        missed = None
        if below.startswith("inspection/"):
            missed = numbers.missed(payload)
        elif below == "heartbeat":
            missed = numbers.missed_before(payload)
        if missed is not None:
            (problems if as_json else console).print(Text(missed, style="yellow"))
        if as_json:
            text = payload.decode(errors="replace")
            print(json.dumps({"topic": topic, "retained": retained, "payload": text}), flush=True)
        else:
            console.print(line_of(below, payload))

    def on_link(connected: bool, why: str) -> None:
        if ending:
            return  # the connection is not lost: we end it
        if not connected:
            numbers.lost()
        problems.print(Text(("listening to " if connected else "broker: ") + why, style="dim"))

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        ending = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, on_interrupt)
    with contextlib.suppress(KeyboardInterrupt):
        listen(
            options,
            client_id=f"station-watch-{os.getpid()}",
            on_message=on_message,
            on_link=on_link,
            stop=threading.Event(),
        )


class Numbers:
    """
    The numbers of the events that came: a board without one in between was not shown here.

    While the connection is lost the station may deliver, and nobody keeps that for us. Numbers count in each ledger on
    its own; before the first of a ledger nothing is missing, and a number that came already is a replay.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._ledger: str | None = None  # of the last event
        self._lost = False
        self._delivered: int | None = None  # as the last heartbeat said

    def lost(self) -> None:
        """The connection is lost."""
        self._lost = True
        self._delivered = None

    def missed(self, payload: bytes) -> str | None:
        """Takes the next event; says which did not come before it, None: it is the next, or one of the past."""
        try:
            document = json.loads(payload)
            ledger, seq = document["ledger"], document["seq"]
        except (ValueError, KeyError, TypeError):
            return None
        if not isinstance(ledger, str) or not isinstance(seq, int):
            return None
        last = self._last.get(ledger, seq)
        self._last[ledger], self._ledger = max(last, seq), ledger
        if seq <= last:
            return None
        lost, self._lost = self._lost, False
        return _gap(last + 1, seq - 1, lost=lost)

    def missed_before(self, payload: bytes) -> str | None:
        """
        Takes a heartbeat; says which events went by while the connection was lost, though no later one has come yet.

        Only what two of them say counts: the broker may let a heartbeat pass events that it still has for us.
        """
        try:
            document = json.loads(payload)
            last_seq, owed = document["last_seq"], document["owed"]["events"]
        except (ValueError, KeyError, TypeError):
            return None
        if not self._lost or self._ledger is None or not isinstance(last_seq, int):
            return None
        before, self._delivered = self._delivered, last_seq if owed == 0 else None
        if self._delivered is None or self._delivered != before:
            return None
        self._lost = False
        last = self._last[self._ledger]
        self._last[self._ledger] = max(last, last_seq)
        return _gap(last + 1, last_seq, lost=True)


def line_of(below: str, payload: bytes) -> Text:
    """One message as one line for a person; what is no document of ours is shown as it came."""
    kind, _, rest = below.partition("/")
    now = f"{datetime.now().astimezone():%H:%M:%S}  "
    try:
        document: dict[str, Any] = json.loads(payload)
        match kind:
            case "inspection":
                trigger = (document.get("trigger") or {}).get("number")
                board = board_name(document["file"] or document["board_serial"], trigger)
                return Text.assemble(
                    now,
                    (f"{shown(rest.upper()):<9}", STYLES.get(rest, "")),
                    shown(f"seq {document['seq']}  {board}  "),
                    (shown(document["reason"]), "dim"),
                )
            case "state":
                state = document["state"]
                why = shown(document.get("why") or "")
                return Text.assemble(now, (f"{shown(state):<9}", STYLES.get(state, "")), why)
            case "heartbeat":
                owed, faults = document["owed"]["events"], [one["code"] for one in document["faults"]]
                said = f"owed {owed}, backlog {document['backlog']}, last seq {document['last_seq']}"
                return Text.assemble(
                    now, ("heartbeat", "dim"), f" {shown(said)}", (f"  {shown(', '.join(faults))}", "red")
                )
            case "fault":
                said = f"{document['what']}: {document['code']}: {document['detail']}"
                return Text.assemble(now, ("fault    ", "red"), shown(said))
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return Text(f"{now}{shown(below)}  {shown(payload.decode(errors='replace'))}")


def _gap(first: int, last: int, *, lost: bool) -> str | None:
    if first > last:
        return None
    which = f"seq {first}" if first == last else f"seq {first} to {last}"
    went = "came while this was not connected" if lost else "did not come here"
    return f"{which} {went}: station ledger list"
