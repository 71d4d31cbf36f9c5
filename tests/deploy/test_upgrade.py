"""A station of this version on the data of another one: it counts on, owes what was owed, and refuses what is newer."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from station.ledger_file import VERSION
from tests.daemon import Daemon, Subscriber, drop, encoded, picture
from tests.mosquitto import Mosquitto
from tests.waiting import until

OLD = Path(__file__).parent / "ledger_v1.sql"
OLD_LEDGER = "329ca220-1abf-472c-8aa0-1806c9fd6300"


def old_ledger(station: Daemon) -> None:
    station.data_dir.mkdir()
    with closing(sqlite3.connect(station.data_dir / "ledger.db")) as db:
        db.execute("PRAGMA page_size = 4096")
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(OLD.read_text())
        db.execute("PRAGMA user_version = 1")


def test_after_an_upgrade_the_ledger_counts_on_and_what_was_owed_is_delivered(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path / "broker") as broker,
        Subscriber(broker.port) as subscriber,
        Daemon(tmp_path / "station", broker_port=broker.port) as station,
    ):
        old_ledger(station)
        station.start()
        until(lambda: len(subscriber.events()) >= 5, what="the events of the old version")
        drop(station.inbox, "new.png", encoded(picture(99)))
        until(lambda: len(subscriber.events()) >= 6, what="the event of the new version")
        assert [(one["ledger"], one["seq"]) for one in subscriber.events()] == [
            (OLD_LEDGER, number) for number in range(1, 7)
        ]
        assert not station.log("ledger damaged")
        until(lambda: station.metric("station_outbox_events") == 0, what="everything acknowledged")
        assert station.stop() == 0
        listed = station.call("ledger", "list", "--json")
        assert listed.stdout.count('"seq"') == 6


def test_a_newer_ledger_is_refused_with_what_to_do_and_stays_as_it_is(tmp_path: Path) -> None:
    with Daemon(tmp_path) as station:
        old_ledger(station)
        path = station.data_dir / "ledger.db"
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {VERSION + 1:d}")
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        station.start(wait=False)
        assert station.wait() == 1
        said = station.text()
        assert f"was made by a newer station (version {VERSION + 1}, this one knows {VERSION})" in said
        assert "install that version again" in said
        assert "Traceback" not in said
        for command in (("ledger", "status"), ("backup", str(tmp_path / "backup.tar.gz"))):
            refused = station.call(*command)
            assert refused.returncode == 1
            assert "made by a newer station" in refused.stderr
        assert hashlib.sha256(path.read_bytes()).hexdigest() == before
        assert not (station.data_dir / "quarantine").exists()
