from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from station.durable import rename_exclusive
from station.sources import claims
from station.types import Recorded
from tests.sources.boards import PATIENCE_S, Clock, drop, files_below, line_on, picture
from tests.waiting import until

POISON = b"this crashes the decoder"

# A station reduced to its folder: the ledger is a file of JSON lines, each synced before the next frame is asked for.
CHILD = """
import json, os, resource, sys, threading
from pathlib import Path
from station.sources import folder
from station.types import Recorded

inbox, ledger, hang = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
decode = folder.decode
folder.decode = lambda data, **how: os.abort() if data.endswith(b"this crashes the decoder") else decode(data, **how)
ledger.touch()
rows = {row[0]: row for row in map(json.loads, ledger.read_text().splitlines())}
recorded = lambda event_id: Recorded(rows[event_id][2]) if event_id in rows else None
idle = 0
with ledger.open("a") as file:
    source = folder.FolderSource(
        inbox, after="move", recorded=recorded, in_flight=ledger.with_name("in-flight.json"), ahead=3
    )
    for frame in source.frames(threading.Event()):
        idle = 0 if frame else idle + 1
        if frame:
            print(frame.id, frame.file, flush=True)
            if hang == "taken":
                threading.Event().wait()
            file.write(json.dumps([frame.id, frame.file, frame.problem]) + "\\n")
            file.flush()
            os.fsync(file.fileno())
            if hang == "recorded":
                print("recorded", flush=True)
                threading.Event().wait()
        elif idle > 1 and not [*inbox.glob("*.png"), *inbox.glob("processing/*~*")]:
            break
"""


@dataclass(frozen=True, slots=True)
class Row:
    event_id: str
    file: str
    problem: str | None


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    return path


@contextmanager
def station_on(inbox: Path, *, hang: str = "no") -> Iterator[subprocess.Popen[str]]:
    """A station in a process of its own, which is killed at the end if it still runs."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(inbox), str(inbox.with_name("ledger")), hang],
        cwd=root,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def run_to_the_end(inbox: Path) -> int:
    """The exit status of a station that ends when there is nothing more to do."""
    with station_on(inbox) as station:
        station.communicate(timeout=PATIENCE_S)
        return station.returncode


def ledger_of(inbox: Path) -> list[Row]:
    text = inbox.with_name("ledger").read_text()
    return [Row(*json.loads(line)) for line in text.splitlines()]


def test_a_board_in_flight_when_the_station_was_killed_keeps_its_event_id(inbox: Path) -> None:
    for number in range(3):
        drop(inbox, f"{number}.png", picture(number))
    with station_on(inbox, hang="taken") as station:
        assert station.stdout is not None
        event_id, file = station.stdout.readline().split()
        ahead = inbox / "processing"
        # All three: it works up to three ahead. Two are there for a moment only, which a busy machine does not see.
        until(lambda: len(list(ahead.glob("*~*"))) == 3, within_s=PATIENCE_S, what="a second and a third claim")
        claimed = {path.name for path in ahead.glob("*~*")}
    assert f"{event_id}~{file}" in claimed
    assert run_to_the_end(inbox) == 0
    rows = ledger_of(inbox)
    assert sorted(row.file for row in rows) == ["0.png", "1.png", "2.png"]
    assert claimed <= {f"{row.event_id}~{row.file}" for row in rows}
    assert all(row.problem is None for row in rows)
    assert all(name.startswith("done/") for name in files_below(inbox))


@pytest.mark.parametrize(("data", "place"), [(picture(1), "done"), (b"text", "failed")])
def test_a_recorded_board_is_only_moved_after_a_restart(inbox: Path, data: bytes, place: str) -> None:
    drop(inbox, "a.png", data).with_name("a.png.ok").touch()  # closed before the station came, and known to be finished
    with station_on(inbox, hang="recorded") as station:
        assert station.stdout is not None
        while station.stdout.readline() != "recorded\n":
            pass
    before = ledger_of(inbox)
    assert len(before) == 1
    assert run_to_the_end(inbox) == 0
    assert ledger_of(inbox) == before
    (moved,) = inbox.glob(f"{place}/**/a.png")
    assert moved.read_bytes() == data
    if place == "failed":
        reason = moved.with_name("a.png.reason.txt").read_text()
        assert reason.startswith("not an image")
    assert not list((inbox / "processing").glob("*~*"))


@pytest.mark.parametrize("poison", ["0.png", "1.png", "2.png"])
def test_the_third_crash_on_a_file_sets_it_aside_and_its_neighbours_pass(inbox: Path, poison: str) -> None:
    for number in range(3):
        name = f"{number}.png"
        mtime = (1000 + number, 1000 + number)
        os.utime(drop(inbox, name, picture(number) + (POISON if name == poison else b"")), mtime)
    ends = [run_to_the_end(inbox) for _ in range(4)]
    assert ends == [-signal.SIGABRT] * 3 + [0]
    problems = {row.file: row.problem for row in ledger_of(inbox)}
    assert problems == {f"{number}.png": None for number in range(3)} | {
        poison: "the station ended 3 times during this file (a crash, a power cut)"
    }
    assert len(ledger_of(inbox)) == 3
    reason = (inbox / f"failed/{poison}.reason.txt").read_text()
    assert reason.startswith("the station ended 3 times during this file (a crash, a power cut)\n")
    assert not [name for name in os.listdir(inbox / "processing") if name.endswith(".attempts")]  # noqa: PTH208  # names


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12))])
def test_kills_at_random_moments_lose_and_repeat_nothing(inbox: Path, seed: int) -> None:
    moments = random.Random(seed)  # noqa: S311  # nothing secret
    names = [f"{number:03}.png" for number in range(120)]
    for at in range(6):
        for number in range(at * 20, at * 20 + 20):
            drop(inbox, names[number], picture(number))
        with station_on(inbox) as station:
            assert station.stdout is not None
            for _ in range(moments.randrange(1, 15)):  # so many boards, and then somewhere in the next
                station.stdout.readline()
            station.kill()
    for _ in range(3):
        assert run_to_the_end(inbox) == 0
    rows = ledger_of(inbox)
    assert [name for name, count in Counter(row.file for row in rows).items() if count != 1] == []
    assert sorted(row.file for row in rows) == names
    assert len({row.event_id for row in rows}) == len(names)
    places = Counter(name.rpartition("/")[2].rpartition("~")[2] for name in files_below(inbox) if "reason" not in name)
    assert places == Counter(names)


def test_an_orderly_end_is_no_crash_however_often_it_comes(inbox: Path) -> None:
    drop(inbox, "a.png", picture(1))
    seen = set()
    for _ in range(5):
        with line_on(inbox) as line:
            frame = line.take()
            assert frame.problem is None
            seen.add(frame.id)
            assert not list((inbox / "processing").glob(".*.attempts"))
    assert len(seen) == 1


def test_an_orderly_end_while_a_suspect_is_tried_again_is_no_crash_either(inbox: Path) -> None:
    drop(inbox, "a.png", picture(1))
    with line_on(inbox) as line:
        line.take()
    (inbox / "processing/.clean").unlink()  # as if that had been a crash
    for _ in range(5):
        with line_on(inbox) as line:
            assert line.take().problem is None
    (counter,) = (inbox / "processing").glob(".*.attempts")
    assert counter.read_text() == "1"
    with line_on(inbox) as line:
        line.inspect()
        line.idle()
    assert not counter.exists()


def test_after_an_unclean_exit_what_was_in_flight_is_inspected_one_by_one(inbox: Path) -> None:
    for number in range(3):
        drop(inbox, f"{number}.png", picture(number))
    with line_on(inbox) as line:
        line.take()
        until(lambda: len(list((inbox / "processing").glob("*~*"))) == 2, within_s=PATIENCE_S)
    (inbox / "processing/.clean").unlink()
    with line_on(inbox) as line:
        counters = []
        for _ in range(2):
            line.inspect()
            counters.append(len(list((inbox / "processing").glob(".*.attempts"))))
        assert counters == [1, 1]
        line.inspect()
        line.idle()
    assert len(line.ledger) == 3


def test_a_suspect_is_not_decoded_while_another_board_is_in_flight(inbox: Path) -> None:
    for number in range(2):
        drop(inbox, f"{number}.png", picture(number))
    with line_on(inbox) as line:
        line.take()
        until(lambda: len(list((inbox / "processing").glob("*~*"))) == 2, within_s=PATIENCE_S)
        (second,) = (inbox / "processing").glob("*~1.png")
    counter = inbox / f"processing/.{second.name.partition('~')[0]}.attempts"
    counter.write_text("1")
    with line_on(inbox) as line:
        assert line.inspect().file == "0.png"
        with pytest.raises(AssertionError, match="a second attempt"):
            until(lambda: counter.read_text() != "1", within_s=0.5, what="a second attempt")
        assert line.inspect().file == "1.png"
        assert counter.read_text() == "2"


def test_an_exception_in_the_line_is_followed_by_the_same_board(inbox: Path) -> None:
    drop(inbox, "a.png", picture(1))
    drop(inbox, "b.png", picture(2))
    ledger: dict[str, Recorded] = {}
    with line_on(inbox, ledger) as line:
        first = line.take()
        with pytest.raises(ZeroDivisionError):
            line.frames.throw(ZeroDivisionError())
    with line_on(inbox, ledger) as line:
        assert line.inspect().id == first.id
        assert line.inspect().file == "b.png"
        line.idle()
    assert len(ledger) == 2


def test_a_half_finished_move_to_failed_is_finished_with_one_reason(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop(inbox, "a.png", b"text").with_name("a.png.ok").touch()
    ledger: dict[str, Recorded] = {}

    def cut(source: Path, target: Path) -> None:
        if target.name == "a.png":
            raise KeyboardInterrupt  # as a crash between the reason and the file
        rename_exclusive(source, target)

    with line_on(inbox, ledger) as line:
        line.inspect()
        monkeypatch.setattr(claims, "rename_exclusive", cut)
        with pytest.raises(KeyboardInterrupt):
            line.idle()
    monkeypatch.undo()
    assert (inbox / "failed/a.png.reason.txt").exists()
    with line_on(inbox, ledger) as line:
        line.idle()
    assert files_below(inbox) == {"failed/a.png", "failed/a.png.reason.txt", "failed/a.png.ok"}


def test_a_truncated_file_in_processing_is_given_its_30_s_again(inbox: Path) -> None:
    clock = Clock()
    drop(inbox, "a.png", picture(1))
    with line_on(inbox) as line:
        frame = line.take()
    path = inbox / f"processing/{frame.id}~a.png"
    path.write_bytes(picture(1)[:-20])
    with line_on(inbox, monotonic=clock) as line:
        line.rest(clock)
        clock.advance(29)
        line.rest(clock)
        clock.advance(2)
        again = line.inspect()
        assert (again.id, again.problem) == (frame.id, "PNG: truncated, no IEND chunk after 30 s unchanged")


def test_a_stranger_in_processing_is_left_alone(inbox: Path) -> None:
    (inbox / "processing").mkdir()
    drop(inbox, "processing/mine.png", picture(1))
    with line_on(inbox) as line:
        line.idle()
    assert files_below(inbox) == {"processing/mine.png"}
