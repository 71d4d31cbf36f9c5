"""``station watch``: prints events, state and heartbeat as they arrive."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from station.config import Settings
from station.mqtt_listener import listen
from station.parts import link_options
from station.terminal import shown

STYLES = {"pass": "bold green", "fail": "bold red", "unknown": "bold yellow", "online": "green", "offline": "red"}


def watch(settings: Settings, *, as_json: bool) -> None:
    """
    Follows the station's topics until Ctrl-C.

    Raises RefusedError when the broker does not let us in, LinkError when it cannot be tried as configured.
    """
    console, problems = Console(soft_wrap=True, highlight=False), Console(stderr=True, soft_wrap=True, highlight=False)
    options = link_options(settings)

    def on_message(topic: str, payload: bytes, retained: bool) -> None:
        below = topic.removeprefix(f"{options.topic}/")
        if as_json:
            text = payload.decode(errors="replace")
            print(json.dumps({"topic": topic, "retained": retained, "payload": text}), flush=True)
        else:
            console.print(line_of(below, payload))

    def on_link(connected: bool, why: str) -> None:
        problems.print(Text(("listening to " if connected else "broker: ") + why, style="dim"))

    with contextlib.suppress(KeyboardInterrupt):
        listen(
            options,
            client_id=f"station-watch-{os.getpid()}",
            on_message=on_message,
            on_link=on_link,
            stop=threading.Event(),
        )


def line_of(below: str, payload: bytes) -> Text:
    """One message as one line for a person; what is no document of ours is shown as it came."""
    kind, _, rest = below.partition("/")
    now = f"{datetime.now().astimezone():%H:%M:%S}  "
    try:
        document: dict[str, Any] = json.loads(payload)
        match kind:
            case "inspection":
                return Text.assemble(
                    now,
                    (f"{shown(rest.upper()):<9}", STYLES.get(rest, "")),
                    shown(f"seq {document['seq']}  {document['file'] or document['board_serial'] or ''}  "),
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
