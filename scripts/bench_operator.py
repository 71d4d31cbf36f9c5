"""
The figures that an operator asks for: how soon it is ready, how soon nothing is owed, what fits on the disk.

    scripts/bench --operator [--boards 200]

A ledger that owes 100,000 events is opened, served and delivered to a real mosquitto; a station is killed in the middle
of its work and started again.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
from bench_rig import (
    Figure,
    backlog,
    daemon,
    high_water_mb,
    mosquitto,
    owed_s,
    start_s,
    subscriber,
    told,
    told_event,
    until_nothing_owed,
)
from ports import free_port

from station.ledger import open_ledger

MANY = 100_000
KILLS = 5


def measure(home: Path, pictures: list[Path], boards: int) -> Iterator[Figure]:
    starts = [start_s(home / f"start-{number}") for number in range(5)]
    yield Figure("start to READY, median of 5", statistics.median(starts), "s", 1.5, "1.5 s")
    yield Figure("2,000 owed: from the broker's return to nothing owed", owed_s(home / "owed"), "s", 2.0, "2 s")
    yield from many_owed(home / "many")
    yield from killed(home / "killed", pictures)
    yield from disk(home / "disk", pictures, boards)


def many_owed(home: Path) -> Iterator[Figure]:
    """A broker that was away for days: the ledger opens, the station is ready, and everything goes out in order."""
    owe_many(home / "data" / "ledger.db")
    size_mb = sum(one.stat().st_size for one in (home / "data").iterdir()) / 1e6
    yield Figure("a ledger that owes 100,000 events", size_mb, "MB", None, f"{size_mb * 1e6 / MANY:.0f} bytes an event")
    port = free_port()
    with daemon(home, port) as (process, started_s):
        yield Figure("its start to READY", started_s, "s", None, "checked from end to end")
        before_mb = psutil.Process(process.pid).memory_full_info().uss / 1e6
        began_s = time.perf_counter()
        with mosquitto(port):
            until_nothing_owed(home, within_s=600)
            took_s = time.perf_counter() - began_s
        yield Figure(
            "from the broker's return to nothing owed", took_s, "s", None, f"{MANY / took_s:.0f} events a second"
        )
        yield Figure(
            "memory at the peak meanwhile", high_water_mb(process.pid), "MB", 200.0, f"{before_mb:.0f} MB before"
        )


def owe_many(path: Path) -> None:
    path.parent.mkdir(parents=True)
    ledger = open_ledger(path).ledger
    one = told(0)
    ledger.record(one, partial(told_event, one), owed=True)
    ledger.close()
    with contextlib.closing(sqlite3.connect(path)) as db:  # by SQL: a commit for each would take minutes
        payload = db.execute("SELECT payload FROM outbox").fetchone()[0].decode()
        event_id = one.frame.id
        for seq in range(2, MANY + 1):
            own = f"{seq:08x}{event_id[8:]}"
            db.execute(
                "INSERT INTO inspections SELECT ?, ?, captured_at, recorded_at, verdict, reason, problem, file,"
                " board_serial FROM inspections WHERE seq = 1",
                (seq, own),
            )
            text = payload.replace(event_id, own).replace('"seq":1,', f'"seq":{seq},').encode()
            db.execute(
                "INSERT INTO outbox (seq, event_id, topic, payload, state, made_at, owed_at)"
                " SELECT ?, ?, topic, ?, state, made_at, owed_at FROM outbox WHERE row = 1",
                (seq, own, text),
            )
        db.commit()


def killed(home: Path, pictures: list[Path]) -> Iterator[Figure]:
    """``kill -9`` in the middle of a backlog: until the next board's event is with a subscriber."""
    inbox = home / "inbox"
    inbox.mkdir(parents=True)
    for number in range(40 * KILLS):
        shutil.copyfile(pictures[number % len(pictures)], inbox / f"board-{number:05}.jpg")
    times = []
    with mosquitto() as port, subscriber(port) as arrivals:
        for _ in range(KILLS):
            with daemon(home, port) as (process, _):
                arrivals.get(timeout=60)
                arrivals.get(timeout=60)
                process.kill()
                process.wait()
            while not arrivals.empty():
                arrivals.get()
            began_s = time.perf_counter()
            with daemon(home, port):
                arrivals.get(timeout=60)
                times.append(time.perf_counter() - began_s)
    worst = f"the slowest of {KILLS}: {max(times):.1f} s; systemd waits 2 s before it"
    yield Figure("from a start after kill -9 to the next board's event", statistics.median(times), "s", None, worst)


def disk(home: Path, pictures: list[Path], boards: int) -> Iterator[Figure]:
    backlog(home, pictures, boards)
    data = home / "data"
    evidence = sum(one.stat().st_size for one in (data / "evidence").rglob("*") if one.is_file())
    with contextlib.closing(sqlite3.connect(data / "ledger.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger = (data / "ledger.db").stat().st_size
    yield Figure("ledger, 1,000 boards", ledger / boards * 1e3 / 1e6, "MB", None, "until keep_days are over")
    told_text = "640x640, one picture each; until keep_days or max_mb"
    yield Figure("evidence, 1,000 boards", evidence / boards * 1e3 / 1e6, "MB", None, told_text)
