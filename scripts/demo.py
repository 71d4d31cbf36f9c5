"""
The main job, on this machine: a broker, the station, ten boards, and what an MQTT subscriber receives.

    scripts/demo            shows it and goes on: drop your own pictures into the inbox; Ctrl-C ends
    scripts/demo --once     ends when every sample is acknowledged; exit 1 if one was not, or was judged wrongly
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from ports import answers, free_port
from rich.console import Console
from rich.text import Text

from station.assets import SAMPLES, expected_verdict
from station.terminal import shown

TOPIC = "factory/demo/aoi-1"
UNCHANGED_S = 3.0  # the service waits 30 s before it gives up on a cut off file; a demo need not
ACKNOWLEDGED_WITHIN_S = 60.0
INTERRUPTED = 130  # as shells have it of Ctrl-C
COLOURS = {"pass": "bold green", "fail": "bold red", "unknown": "bold yellow"}

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # however it is ended, the station ends with it
    home = Path(tempfile.mkdtemp(prefix="station-demo-"))
    try:
        done = demonstrate(home, once=options.once)
    except KeyboardInterrupt:  # before all samples were judged: nobody knows whether they would have been
        console.print("\nended before all samples were judged")
        done = INTERRUPTED
    console.print(f"[dim]pictures, ledger and log are left in {home}[/dim]")
    return done


def demonstrate(home: Path, *, once: bool) -> int:
    """The whole of it, in *home*; what to exit with."""
    inbox = home / "inbox"
    inbox.mkdir()
    mqtt_port, http_port = free_port(), free_port()
    events: queue.Queue[dict[str, Any]] = queue.Queue()
    with broker(mqtt_port), subscriber(mqtt_port, events), station(home, inbox, mqtt_port, http_port) as daemon:
        page = f"http://127.0.0.1:{http_port}"
        say("broker", f"mqtt://127.0.0.1:{mqtt_port}  (topics below {TOPIC})")
        say("page", f"{page}/  (the operator's page; also /docs)")
        say("inbox", str(inbox))
        console.print()
        print_heading()
        samples = sorted(one for one in SAMPLES.iterdir() if one.suffix == ".jpg")
        for sample in samples:
            shutil.copyfile(sample, inbox / sample.name)
        seen = show({one.name for one in samples}, events, daemon)
        right = len(seen) == len(samples) and all(expected_verdict(name) == verdict for name, verdict in seen.items())
        owed = owed_nothing(page)
        console.print()
        console.print(
            f"{len(seen)} of {len(samples)} boards answered, "
            f"{sum(expected_verdict(name) == verdict for name, verdict in seen.items())} verdicts as labelled; "
            + ("every event is acknowledged by the broker" if owed else "NOT every event is acknowledged")
        )
        if not once and right and owed:
            console.print(f"Drop your own pictures into {inbox}. Ctrl-C ends.")
            with contextlib.suppress(KeyboardInterrupt):
                follow(events, daemon)
    return 0 if right and owed else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--once", action="store_true", help="end when every sample is acknowledged")
    return parser.parse_args()


def say(what: str, value: str) -> None:
    console.print(Text.assemble((f"{what:<8}", "bold"), value))


def show(expected: set[str], events: queue.Queue[dict[str, Any]], daemon: subprocess.Popen[bytes]) -> dict[str, str]:
    """Prints events until each of *expected* has come, or it takes too long; file -> verdict."""
    seen: dict[str, str] = {}
    deadline_s = time.monotonic() + ACKNOWLEDGED_WITHIN_S
    while set(seen) < expected and time.monotonic() < deadline_s and daemon.poll() is None:
        with contextlib.suppress(queue.Empty):
            event = events.get(timeout=0.2)
            seen[event["file"]] = event["verdict"]
            print_event(event)
    return seen


def follow(events: queue.Queue[dict[str, Any]], daemon: subprocess.Popen[bytes]) -> None:
    while daemon.poll() is None:
        with contextlib.suppress(queue.Empty):
            print_event(events.get(timeout=0.2))


def print_heading() -> None:
    console.print(
        f"{'seq':<8}{'verdict':<8}{'file':<29} {'detect ms':>9}  what was found, with its confidence", style="dim"
    )


def print_event(event: dict[str, Any]) -> None:
    verdict = event["verdict"]
    counting = [f"{one['label']} {int(one['confidence'] * 100) / 100:.2f}" for one in event["defects"] if one["counts"]]
    boxes = ", ".join(counting[:3]) + (f" and {len(counting) - 3} more" if len(counting) > 3 else "")
    detect = event["timing_ms"]["detect"]
    took = f"{detect:9.1f}" if detect is not None else " " * 9
    console.print(
        Text.assemble(
            f"{event['seq']:<8}",
            (f"{verdict.upper():<8}", COLOURS[verdict]),
            f"{shown(event['file']):<29} {took}  ",
            (shown(boxes or event["reason"]), "" if boxes else "dim"),
        )
    )


def owed_nothing(page: str) -> bool:
    """True once the station's own count of unacknowledged events is zero."""
    from urllib.request import urlopen

    deadline_s = time.monotonic() + 10.0
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), urlopen(f"{page}/metrics", timeout=2) as answer:  # noqa: S310  # our own port
            if b"\nstation_outbox_events 0.0\n" in answer.read():
                return True
        time.sleep(0.1)
    return False


@contextlib.contextmanager
def station(home: Path, inbox: Path, mqtt_port: int, http_port: int) -> Iterator[subprocess.Popen[bytes]]:
    """``station run`` in a process of its own, with its log in *home*; up when it is entered."""
    config = home / "station.toml"
    config.write_text(
        f'[station]\nname = "aoi-1"\ntopic = "{TOPIC}"\ndata_dir = "{home}/data"\n'
        f'[source]\npath = "{inbox}"\nunchanged_s = {UNCHANGED_S}\nscan_s = 1.0\n'
        f'[mqtt]\nport = {mqtt_port}\nprotocol = "3.1.1"\n'
        f"[http]\nport = {http_port}\n"
        "[evidence]\nstop_below_mb = 200\n"
    )
    log = home / "station.log"
    began_s = time.monotonic()
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "station", "run", "-c", str(config)],
            stderr=out,
            env={name: value for name, value in os.environ.items() if not name.startswith("STATION_")},
            start_new_session=True,  # Ctrl-C is ours: we ask it to stop
        )
        try:
            while not answers(http_port):
                if daemon.poll() is not None:
                    raise SystemExit(f"the station ended with exit code {daemon.returncode}:\n{log.read_text()}")
                time.sleep(0.02)
            say("station", f"ready after {time.monotonic() - began_s:.1f} s")
            yield daemon
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(15)


@contextlib.contextmanager
def subscriber(port: int, events: queue.Queue[dict[str, Any]]) -> Iterator[None]:
    """What anyone on the plant network could run: an MQTT subscriber that sees each event as it arrives."""
    subscribed = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="demo-subscriber")
    client.on_connect = lambda client, *_: client.subscribe(f"{TOPIC}/inspection/+", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: events.put(json.loads(message.payload))
    client.connect("127.0.0.1", port)
    client.loop_start()
    if not subscribed.wait(10):
        raise SystemExit("the embedded broker did not take a subscription")
    try:
        yield
    finally:
        client.disconnect()
        client.loop_stop()


@contextlib.contextmanager
def broker(port: int) -> Iterator[None]:
    """The embedded broker (amqtt, MQTT 3.1.1), on loopback only, in a thread of this process."""
    import logging

    from amqtt.broker import Broker

    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    config = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    server = Broker(config, loop=loop)
    thread = threading.Thread(target=loop.run_forever, name="broker", daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(20)
    try:
        yield
    finally:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(server.shutdown(), loop).result(1)
        loop.call_soon_threadsafe(loop.stop)


if __name__ == "__main__":
    sys.exit(main())
