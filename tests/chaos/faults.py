"""The dice's menu: what can go wrong, how it ends, and whether it really happened."""

from __future__ import annotations

import errno
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.chaos.lines import Line, TriggeredLine
from tests.chaos.proxy import Mood
from tests.daemon import PATIENCE_S
from tests.mosquitto import Mosquitto
from tests.waiting import until

JUST_BEFORE_S = 1.0  # what a killed broker acknowledged in its last second may be lost with it
POINT_S = 5.0
PAGE_BYTES = 4096
CORRUPTIBLE_ROWS = 12  # the last boards, of which a damaged end of the ledger may cost the record


@dataclass(frozen=True, slots=True)
class Fault:
    """*strike* makes it happen and heals it, and says whether it really did happen."""

    name: str
    strike: Callable[[], bool]


def fault(strike: Callable[[], bool]) -> Fault:
    return Fault(strike.__name__.replace("_", " "), strike)


class Torment:
    """Draws faults for one victim until told to stop, those first that have not struck yet."""

    def __init__(self, menu: list[Fault], *, chance: random.Random) -> None:
        self.tried: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self._menu = menu
        self._chance = chance

    @property
    def names(self) -> list[str]:
        return [one.name for one in self._menu]

    def complete(self) -> bool:
        return all(self.struck[name] for name in self.names)

    def strike(self) -> None:
        unseen = [one for one in self._menu if not self.struck[one.name]]
        drawn = self._chance.choice(unseen if unseen and self._chance.random() < 0.7 else self._menu)
        self.tried[drawn.name] += 1
        if drawn.strike():
            self.struck[drawn.name] += 1


class StationFaults:
    """What happens to one station, its machine and its link."""

    def __init__(self, line: Line, *, chance: random.Random) -> None:
        self.line = line
        self.chance = chance

    def menu(self) -> list[Fault]:
        every = [
            self.killed,
            self.frozen,
            self.disk_full,
            self.disk_failing,
            self.sync_failing,
            self.clock_forward,
            self.clock_back,
            self.ledger_damaged,
            self.ledger_tail_torn,
            self.link_stalled,
            self.link_half_open,
            self.link_cut,
            self.acknowledgements_swallowed,
            self.broker_full,
            self.broker_forbidding,
            self.broker_slow,
            self.broker_refusing,
        ]
        if isinstance(self.line, TriggeredLine):
            every += [self.serial_unplugged, self.serial_noise, self.camera_away, self.lens_covered]
        points = [Fault(f"killed at: {point}", partial(self.killed_at, point)) for point in self.line.points]
        return [*map(fault, every), *points]

    def pause(self, least_s: float, most_s: float) -> None:
        """The random moment is the point: there is nothing to wait for."""
        time.sleep(self.chance.uniform(least_s, most_s))

    def killed(self) -> bool:
        self.pause(0.0, 0.3)
        self.line.station.kill()
        self.line.revive()
        return True

    def killed_at(self, point: str) -> bool:
        died = self.line.dies_at(point, within_s=POINT_S)
        if died:
            self.line.revive()
        return died

    def frozen(self) -> bool:
        self.line.station.signal(signal.SIGSTOP)
        self.pause(0.5, 2.0)
        self.line.station.signal(signal.SIGCONT)
        return True

    def disk_full(self) -> bool:
        return self._disk(write_errno=errno.ENOSPC)

    def disk_failing(self) -> bool:
        return self._disk(write_errno=errno.EIO, sync_errno=errno.EIO)

    def sync_failing(self) -> bool:
        return self._disk(sync_errno=errno.EIO)

    def _disk(self, *, write_errno: int = 0, sync_errno: int = 0) -> bool:
        weather, before, since_s = self.line.weather, self.line.weather.struck, time.monotonic()
        weather.disk(write_errno=write_errno, sync_errno=sync_errno)
        self.pause(0.5, 2.0)
        died = self.chance.random() < 0.3
        if died:  # and then the power goes
            self.line.station.kill()
            self.line.unwritten.append((since_s, time.monotonic()))
        weather.disk()
        if died:
            self.line.revive()
        until(self.line.station.ready, within_s=PATIENCE_S, what="the station to go on by itself")
        return weather.struck > before

    def clock_forward(self) -> bool:
        return self._clock(self.chance.randint(60, 7200))

    def clock_back(self) -> bool:
        return self._clock(-self.chance.randint(60, 7200))

    def _clock(self, jump_s: int) -> bool:
        before = self.line.boards
        self.line.weather.clock(jump_s)
        until(lambda: self.line.boards > before + 2, within_s=PATIENCE_S, what="boards after the clock jumped")
        self.line.weather.clock(0 if self.chance.random() < 0.5 else jump_s)
        return True

    def ledger_damaged(self) -> bool:
        """A dying disk, while the station is down: the last page of the ledger is rubbish."""
        ledger = self._down_and_forgetting()
        with closing(sqlite3.connect(ledger)) as db:  # else the WAL holds that page as well
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._spoil(ledger, PAGE_BYTES)
        self.line.revive()
        return bool(self.line.station.log("ledger damaged"))

    def ledger_tail_torn(self) -> bool:
        """What was written last, in front of the checkpoint, is rubbish: SQLite goes back to the commit before it."""
        wal = self._down_and_forgetting().with_name("ledger.db-wal")
        struck = wal.exists() and wal.stat().st_size > PAGE_BYTES
        if struck:
            self._spoil(wal, PAGE_BYTES)
        self.line.revive()
        return struck

    def _down_and_forgetting(self) -> Path:
        """The station's ledger, after it was killed and its last boards were excused."""
        self.line.station.kill()
        last = self.line.rows()
        highest = max((row.seq for row in last if row.current), default=0)
        delivered = self.line.proxy.seen_acked()
        for row in last:
            if row.current and (row.seq > highest - CORRUPTIBLE_ROWS or row.event_id not in delivered):
                self.line.forgotten[row.event_id] = row.board
        return self.line.station.data_dir / "ledger.db"

    def _spoil(self, path: Path, size_bytes: int) -> None:
        with path.open("r+b") as file:
            file.seek(-size_bytes, os.SEEK_END)
            file.write(self.chance.randbytes(size_bytes))

    def link_stalled(self) -> bool:
        return self._mood(Mood.STALLED, 0.5, 3.0)

    def link_half_open(self) -> bool:
        lost = self.line.proxy.half_open()
        self.pause(0.5, 2.0)
        if self.chance.random() < 0.5:  # else the station finds out by itself
            self.line.proxy.cut()
        return lost > 0

    def link_cut(self) -> bool:
        return self.line.proxy.cut() > 0

    def acknowledgements_swallowed(self) -> bool:
        struck = self._mood(Mood.SWALLOWING, 0.5, 2.0)
        if self.chance.random() < 0.5:
            self.line.proxy.cut()
        return struck

    def broker_full(self) -> bool:
        return self._mood(Mood.FULL, 0.3, 2.0)

    def broker_forbidding(self) -> bool:
        struck = self._mood(Mood.FORBIDDING, 0.3, 1.0)
        self.line.proxy.cut()  # what was refused is offered again at the next connection
        return struck

    def broker_slow(self) -> bool:
        return self._mood(Mood.SLOW, 1.0, 3.0)

    def broker_refusing(self) -> bool:
        self.line.proxy.mood = Mood.REFUSING
        self.line.proxy.cut()
        return self._mood(Mood.REFUSING, 2.0, 4.0)

    def _mood(self, mood: Mood, least_s: float, most_s: float) -> bool:
        proxy = self.line.proxy
        before = proxy.struck[mood]
        proxy.mood = mood
        self.pause(least_s, most_s)
        proxy.mood = Mood.KIND
        return proxy.struck[mood] > before

    def serial_unplugged(self) -> bool:
        line = self._triggered()
        line.unplug()
        self.pause(0.0, 0.7)
        before = line.plc.texts().count("SAFE")
        line.plug()
        until(lambda: line.plc.texts().count("SAFE") > before, within_s=PATIENCE_S, what="the serial port to be back")
        return True

    def serial_noise(self) -> bool:
        self._triggered().say(self.chance.randbytes(400).replace(b"T", b"x") + b"\r")
        return True

    def camera_away(self) -> bool:
        line = self._triggered()
        line.camera_away()
        self.pause(0.5, 3.0)
        line.camera_back()
        until(line.station.ready, within_s=PATIENCE_S, what="the camera to be back")
        return True

    def lens_covered(self) -> bool:
        line, before = self._triggered(), len(self._triggered().capped)
        line.lens_cap(True)
        until(lambda: len(line.capped) > before + 1, within_s=PATIENCE_S, what="boards in front of a covered lens")
        line.lens_cap(False)
        return True

    def _triggered(self) -> TriggeredLine:
        assert isinstance(self.line, TriggeredLine)
        return self.line


class BrokerFaults:
    """What happens to the broker that all share; *lossy* are the spans in which it forgets what it acknowledged."""

    def __init__(self, broker: Mosquitto, lines: list[Line], *, chance: random.Random) -> None:
        self.broker = broker
        self.lines = lines
        self.chance = chance
        self.lossy: list[tuple[float, float]] = []

    def menu(self) -> list[Fault]:
        return [fault(one) for one in (self.broker_restarted, self.broker_killed, self.broker_wiped)]

    def broker_restarted(self) -> bool:
        self.broker.stop()
        time.sleep(self.chance.uniform(0.0, 2.0))
        self.broker.start()
        return True

    def broker_killed(self) -> bool:
        """It keeps on the disk what it acknowledged, but not what came in its last moment."""
        self._die()
        time.sleep(self.chance.uniform(0.0, 2.0))
        self.broker.start()
        return True

    def broker_wiped(self) -> bool:
        """It comes back without its memory, and the stations must not be first: nobody would hear them."""
        since_s = self._die()
        for database in self.broker.folder.glob("mosquitto.db*"):
            database.unlink()
        for line in self.lines:
            line.subscriber.stop()
        self.broker.start()
        for line in self.lines:
            line.subscriber.start()
        self.lossy.append((since_s, time.monotonic()))
        return True

    def _die(self) -> float:
        since_s = time.monotonic() - JUST_BEFORE_S
        self.broker.kill()
        self.lossy.append((since_s, time.monotonic()))
        return since_s
