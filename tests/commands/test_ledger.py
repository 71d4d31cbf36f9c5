"""``station ledger``: what it prints, sends again, and exports."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from station.commands.ledger import Selection, export, print_boards, print_status, replay, status
from station.errors import ConfigError, LedgerError, StationError
from station.events import GATE_OFF, Aftermath, event_of
from station.ledger import SqliteLedger, open_ledger
from station.outbox import SqliteOutbox
from station.types import Message, Trigger, Verdict
from tests.boards import NOON, board, message_of

ROOT = Path(__file__).resolve().parents[2]


class Site:
    """A ledger with a running station: six boards, one a minute from noon; four accepted, one refused, one owed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_s = NOON.timestamp()
        self.ledger: SqliteLedger = open_ledger(path, now=self.clock).ledger
        self.outbox = SqliteOutbox(path, now=self.clock)
        self.ids = [f"board-{number}" for number in range(1, 7)]
        for event_id in self.ids:
            verdict = Verdict.FAIL if event_id == "board-2" else Verdict.PASS
            inspection = board(event_id, verdict=verdict, file=f"{event_id}.jpg")
            self.ledger.record(inspection, message_of(inspection), owed=True)
            self.now_s += 60
        rows = self.rows()
        self.outbox.settle(rows[:4], [(rows[4], "not authorized")])

    def clock(self) -> float:
        return self.now_s

    def rows(self, after: int = 0) -> list[int]:
        return [one.row for one in self.outbox.owed(after=after, limit=100)]

    def owed(self, after: int = 0) -> list[str]:
        return [json.loads(one.message.payload)["event_id"] for one in self.outbox.owed(after=after, limit=100)]

    def close(self) -> None:
        self.outbox.close()
        self.ledger.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with closing(Site(tmp_path / "ledger.db")) as made:
        yield made


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=160), out


def minute(count: int) -> datetime:
    return NOON + timedelta(minutes=count)


def test_the_status_is_that_of_the_ledger(site: Site) -> None:
    found = status(site.path, now=site.clock)
    assert found.totals.ledger == site.ledger.uuid
    assert found.totals.boards == {"fail": 1, "pass": 5}
    assert found.totals.last_seq == 6
    assert (found.depth.owed, found.depth.oldest_age_s, found.depth.refused) == (1, 60, 1)
    assert found.size_bytes > 0
    assert found.free_bytes > 0


def test_the_status_can_be_read_by_people_and_by_programs(site: Site) -> None:
    to, out = console()
    print_status(site.path, as_json=False, console=to, now=site.clock)
    assert site.ledger.uuid in out.getvalue()
    assert "1 fail, 5 pass" in out.getvalue()
    assert "1, the oldest for 60 s" in out.getvalue()
    to, out = console()
    print_status(site.path, as_json=True, console=to, now=site.clock)
    assert json.loads(out.getvalue())["depth"] == {"owed": 1, "oldest_age_s": 60.0, "refused": 1}


def test_the_status_of_a_new_ledger_is_empty(tmp_path: Path) -> None:
    open_ledger(tmp_path / "ledger.db").ledger.close()
    to, out = console()
    print_status(tmp_path / "ledger.db", as_json=False, console=to)
    assert "none" in out.getvalue()
    assert status(tmp_path / "ledger.db").totals.last_seq == 0


def test_the_list_shows_the_last_boards(site: Site) -> None:
    to, out = console()
    print_boards(site.path, limit=2, as_json=False, console=to)
    assert "board-4" not in out.getvalue()
    assert "the broker refused 1 event (not authorized): station ledger replay --refused" in out.getvalue()
    assert out.getvalue().index("board-5") < out.getvalue().index("board-6")


@pytest.fixture
def abroad(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A technician whose clock is three hours ahead of UTC."""
    monkeypatch.setenv("TZ", "XYZ-3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1", "TERM": "dumb"}])
def test_nothing_of_the_list_is_cut_in_a_pipe(
    site: Site, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    name, reason = "board-" + "7" * 80 + ".jpg", "no board to be seen: " + "x" * 200
    long = board(verdict=Verdict.UNKNOWN, file=name, problem=reason)
    site.ledger.record(long, message_of(long), owed=True)
    out = io.StringIO()
    print_boards(site.path, limit=1, as_json=False, console=Console(file=out, width=80), now=site.clock)
    assert len(out.getvalue().splitlines()) == 2
    assert f"{name}  {reason}" in out.getvalue()


@pytest.mark.usefixtures("abroad")
def test_the_list_is_a_line_a_board_of_80_columns_in_local_time(site: Site) -> None:
    long = board(verdict=Verdict.FAIL, file="board-" + "7" * 80 + ".jpg")
    site.ledger.record(long, message_of(long), owed=True)
    out = Screen()
    console_80 = Console(file=out, width=80, color_system=None)
    print_boards(site.path, limit=4, as_json=False, console=console_80, now=site.clock)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines[:5])) <= 80
    assert [line.split()[:5] for line in lines[:5]] == [
        ["seq", "time", "XYZ", "verdict", "delivered"],
        ["4", "15:03:00", "pass", "yes", "board-4.jpg"],
        ["5", "15:04:00", "pass", "no", "board-5.jpg"],
        ["6", "15:05:00", "pass", "owed", "board-6.jpg"],
        ["7", "15:06:00", "fail", "owed", "board-77777777777777777…"],
    ]
    assert "no defect" in lines[4], "a long name leaves room for the reason"
    narrow = Screen()
    print_boards(
        site.path, limit=4, as_json=False, console=Console(file=narrow, width=60, color_system=None), now=site.clock
    )
    assert {len(line) for line in narrow.getvalue().splitlines()[1:5]} == {60}


def test_the_list_has_dates_where_not_all_is_of_today(site: Site) -> None:
    to, out = console()
    print_boards(site.path, limit=1, as_json=False, console=to, now=lambda: site.clock() + 86_400)
    assert re.search(r"20\d\d-11-2\d \d\d:05:00", out.getvalue())


def test_a_board_is_called_by_its_serial_where_it_has_one(site: Site) -> None:
    for serial in ("SN-0815", None):
        one = board(file="x.jpg")
        one = replace(one, frame=replace(one.frame, board_serial=serial))
        site.ledger.record(one, message_of(one), owed=True)
    to, out = console()
    print_boards(site.path, limit=2, as_json=False, console=to, now=site.clock)
    assert [line.split()[4] for line in out.getvalue().splitlines()[1:]] == ["SN-0815", "x.jpg"]


def test_a_board_that_was_triggered_is_listed_with_its_number(site: Site) -> None:
    for number, serial in ((17, None), (18, "SN-0815"), (None, None)):
        one = board(file=None)
        trigger = Trigger(one.frame.id, "serial", NOON, 0.0, number, serial)
        one = replace(one, frame=replace(one.frame, board_serial=serial, trigger=trigger))
        make = partial(event_of, one, aftermath=Aftermath(GATE_OFF, None), station="aoi-1")
        site.ledger.record(one, make, owed=number == 17)  # the others' events wait for their seal
    to, out = console()
    print_boards(site.path, limit=4, as_json=False, console=to, now=site.clock)
    heading, *lines = out.getvalue().splitlines()[:5]
    at, end = heading.index("board"), heading.index("reason")
    assert [line[at:end].strip() for line in lines] == ["board-6.jpg", "trigger 17", "SN-0815 trigger 18", ""]
    to, out = console()
    print_boards(site.path, limit=4, as_json=True, console=to)
    assert [json.loads(line)["trigger_number"] for line in out.getvalue().splitlines()] == [None, 17, 18, None]
    export(site.path, csv_file := site.path.with_suffix(".csv"), force=False)
    with csv_file.open(newline="", encoding="utf-8") as file:
        assert [row["trigger_number"] for row in csv.DictReader(file)][-4:] == ["", "17", "18", ""]


def test_a_name_cannot_play_tricks_on_the_terminal(site: Site) -> None:
    one = board(file="a\x1b[2J\nb.jpg")
    site.ledger.record(one, message_of(one), owed=True)
    to, out = console()
    print_boards(site.path, limit=1, as_json=False, console=to)
    assert r"a\x1b[2J\nb.jpg" in out.getvalue()
    assert len(out.getvalue().splitlines()) == 2


def test_the_list_is_one_json_document_a_line(site: Site) -> None:
    to, out = console()
    print_boards(site.path, limit=3, as_json=True, console=to)
    boards = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [one["seq"] for one in boards] == [4, 5, 6]
    assert [one["delivery"] for one in boards] == ["acknowledged", "refused", "owed"]
    assert boards[0]["recorded_at"] == "2026-11-23T12:03:00.000Z"


@pytest.mark.parametrize("name", ["[red]board[/red].jpg", "board [/].jpg", "brett\\[1].jpg", "x" * 500])
def test_any_file_name_can_be_listed(site: Site, name: str) -> None:
    inspection = board(file=name)
    site.ledger.record(inspection, message_of(inspection), owed=True)
    for as_json in (False, True):
        to, out = console()
        print_boards(site.path, limit=1, as_json=as_json, console=to)
        if as_json:
            assert json.loads(out.getvalue())["file"] == name
        else:
            assert "".join(name[:12]) in out.getvalue()


def test_a_board_whose_message_is_gone_or_waits_is_listed(site: Site) -> None:
    site.now_s += 86_400
    site.outbox.prune(keep_days=0.5, keep_ids=True)
    waiting = board()
    site.ledger.record(waiting, message_of(waiting), owed=False)
    assert [one.delivery for one in site.ledger.latest(10)] == ["unsealed", "owed", "refused"] + ["forgotten"] * 4


@pytest.mark.parametrize(
    ("which", "again"),
    [
        (Selection(seqs=(2, 3)), ["board-2", "board-3"]),
        (Selection(refused=True), ["board-5"]),
        (Selection(since=minute(3)), ["board-4", "board-5"]),
        (Selection(until=minute(1)), ["board-1", "board-2"]),
        (Selection(since=minute(1), until=minute(4), seqs=(1, 3)), ["board-2", "board-3"]),
        (Selection(since=minute(1), refused=True), ["board-5"]),
        (Selection(since=minute(99)), []),
    ],
)
def test_what_is_chosen_is_owed_again_after_what_is_owed(site: Site, which: Selection, again: list[str]) -> None:
    last = site.rows()[-1]
    assert replay(site.path, which, now=site.clock) == len(again)
    assert site.owed() == ["board-6", *again]
    assert site.owed(after=last) == again, "a publisher that goes on from its last row would miss it"


def test_a_fault_of_last_week_is_not_replayed(site: Site) -> None:
    site.ledger.notice(Message("fault", b"{}"))
    site.outbox.settle(site.rows(), [])
    assert replay(site.path, Selection(since=minute(-60)), now=site.clock) == 6
    assert {one.message.topic.partition("/")[0] for one in site.outbox.owed(after=0, limit=9)} == {"inspection"}


def test_a_replay_sends_the_same_bytes(site: Site) -> None:
    site.outbox.settle(site.rows(), [])
    replay(site.path, Selection(seqs=(1, 6)), now=site.clock)
    first = [one.message for one in site.outbox.owed(after=0, limit=9)]
    site.outbox.settle(site.rows(), [])
    replay(site.path, Selection(seqs=(1, 6)), now=site.clock)
    assert [one.message for one in site.outbox.owed(after=0, limit=9)] == first
    assert len(first) == 6


def test_a_replay_of_numbers_that_were_never_given_says_so(site: Site) -> None:
    with pytest.raises(StationError, match="no board with number 7: the last is 6"):
        replay(site.path, Selection(seqs=(7, 9999)))
    assert replay(site.path, Selection(seqs=(4, 9999)), now=site.clock) == 2


def test_a_replay_of_everything_must_be_meant(site: Site) -> None:
    with pytest.raises(ConfigError, match="--since"):  # as each wrong option: exit code 2
        replay(site.path, Selection())
    assert site.owed() == ["board-6"]


def test_a_replay_that_runs_backwards_says_so(site: Site) -> None:
    later = NOON + timedelta(minutes=1)
    with pytest.raises(ConfigError, match="--since 2026-11-23T12:01:00 is later than --until 2026-11-23T12:00:00"):
        replay(site.path, Selection(since=later, until=NOON))
    assert replay(site.path, Selection(since=NOON, until=NOON), now=site.clock) == 1


def test_another_process_may_replay_while_the_station_runs(site: Site) -> None:
    code = (
        "import sys; from pathlib import Path; from station.commands.ledger import *;"
        "print(replay(Path(sys.argv[1]), Selection(seqs=(1, 2))))"
    )
    command = [sys.executable, "-c", code, str(site.path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "2\n"
    assert site.owed() == ["board-6", "board-1", "board-2"]
    inspection = board()
    assert site.ledger.record(inspection, message_of(inspection), owed=True).seq == 7


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_export_has_one_row_a_board(site: Site, tmp_path: Path) -> None:
    assert export(site.path, tmp_path / "boards.csv", force=False) == 6
    rows = read(tmp_path / "boards.csv")
    assert [row["event_id"] for row in rows] == site.ids
    assert rows[1]["verdict"] == "fail"
    assert (rows[0]["delivery"], rows[4]["delivery"]) == ("acknowledged", "refused")
    assert rows[4]["why"] == "not authorized"
    assert rows[0]["recorded_at"] == "2026-11-23T12:00:00.000Z"
    assert rows[5]["settled_at"] == ""


def test_a_dash_exports_to_stdout_and_makes_no_file(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export(site.path, Path("-"), force=False) == 6
    assert [row["event_id"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == site.ids
    assert not Path("-").exists()


def test_the_export_reads_beyond_one_page(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("station.ledger_read.PAGE_ROWS", 2)
    assert export(site.path, tmp_path / "boards.csv", force=False) == 6
    assert [row["seq"] for row in read(tmp_path / "boards.csv")] == list("123456")


@pytest.mark.parametrize("name", ["=1+1.jpg", "+1.jpg", "-1.jpg", "@sum.jpg", "\tx.jpg"])
def test_no_cell_of_the_export_is_a_formula(site: Site, tmp_path: Path, name: str) -> None:
    inspection = board(file=name)
    site.ledger.record(inspection, message_of(inspection), owed=True)
    export(site.path, tmp_path / "boards.csv", force=False)
    assert read(tmp_path / "boards.csv")[-1]["file"] == f"'{name}"


def test_the_export_overwrites_only_when_told_to(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "boards.csv"
    target.write_text("precious")
    with pytest.raises(StationError, match="--force"):
        export(site.path, target, force=False)
    assert target.read_text() == "precious"
    export(site.path, target, force=True)
    assert len(read(target)) == 6


def test_an_export_that_fails_leaves_nothing(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(StationError, match="No space left"):
        export(site.path, tmp_path / "boards.csv", force=False)
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(StationError, match="cannot write"):
        export(site.path, tmp_path / "no" / "folder.csv", force=False)


def test_the_export_shows_its_progress_on_a_terminal(site: Site, tmp_path: Path) -> None:
    out = io.StringIO()
    export(site.path, tmp_path / "boards.csv", force=False, console=Console(file=out, force_terminal=True, width=100))
    assert "6/6" in out.getvalue()


def test_without_a_ledger_every_command_says_so(tmp_path: Path) -> None:
    absent = tmp_path / "absent.db"
    to, _ = console()
    with pytest.raises(LedgerError, match="there is no ledger"):
        status(absent)
    with pytest.raises(LedgerError, match="there is no ledger"):
        print_boards(absent, limit=1, as_json=False, console=to)
    with pytest.raises(LedgerError, match="there is no ledger"):
        replay(absent, Selection(refused=True))
    with pytest.raises(LedgerError, match="there is no ledger"):
        export(absent, tmp_path / "boards.csv", force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_ledger_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"a letter home " * 300)
    with pytest.raises(LedgerError, match="restart the station"):
        status(path)


def test_times_are_told_in_utc(site: Site) -> None:
    assert site.ledger.latest(1)[0].captured_at == NOON
    assert site.ledger.latest(1)[0].recorded_at.tzinfo is timezone.utc
