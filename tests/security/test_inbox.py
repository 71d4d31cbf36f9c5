"""Links, pipes, odd names and races in a real station's inbox: nothing outside is touched, and the line goes on."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemon import PATIENCE_S, Daemon, Overrides, drop, encoded, picture
from tests.waiting import until


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A picture and a folder that are none of the station's business."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "private.png").write_bytes(encoded(picture(99)))
    return folder


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Daemon]:
    changes: Overrides = {"mqtt": {"enabled": False}, "source": {"subfolders": True}, "evidence": {"keep": "all"}}
    with Daemon(tmp_path / "station", changes=changes) as one:
        yield one


def files_below(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(one.relative_to(folder)): (one.stat().st_mode, one.read_bytes()) for one in folder.rglob("*.png")}


def goes_on(station: Daemon, name: str = "honest.png") -> None:
    """One more board passes through; nothing has failed meanwhile."""
    drop(station.inbox, name, encoded(picture(hash(name) % 1000)))
    until(lambda: name in {one.name for one in station.files("done")}, within_s=PATIENCE_S, what=f"the board {name}")
    assert station.alive()
    assert not station.log("loop failed"), station.log("loop failed")


def link_to_a_pipe(at: Path, pipe: Path) -> None:
    os.mkfifo(pipe)
    at.symlink_to(pipe)


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # the name of a socket has 107 bytes at most
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


TRICKS: dict[str, Callable[[Path, Path], object]] = {
    "a link to a picture": lambda at, outside: at.symlink_to(outside / "private.png"),
    "a link to nothing": lambda at, _: at.symlink_to("nowhere"),
    "a link to itself": lambda at, _: at.symlink_to(at.name),
    "a link to a folder": lambda at, outside: at.symlink_to(outside),
    "a link to the inbox": lambda at, _: at.symlink_to(at.parent),
    "a link to a device": lambda at, _: at.symlink_to("/dev/zero"),
    "a pipe": lambda at, _: os.mkfifo(at),
    "a link to a pipe": lambda at, outside: link_to_a_pipe(at, outside / f"{at.stem}.pipe"),
    "a socket": lambda at, _: socket_at(at),
}


def test_what_is_no_plain_file_is_not_followed_and_stops_nothing(station: Daemon, outside: Path) -> None:
    before = files_below(outside)
    for number, lay in enumerate(TRICKS.values()):
        lay(station.inbox / f"trick-{number}.png", outside)
    station.start()
    goes_on(station, "first.png")
    for number, lay in enumerate(TRICKS.values()):
        lay(station.inbox / f"late-{number}.png", outside)
    goes_on(station, "second.png")
    assert files_below(outside) == before
    boards = station.get("/boards").json()["boards"]
    judged = [one["file"] for one in boards if one["verdict"] != "unknown"]
    assert sorted(judged) == ["first.png", "second.png"]


NAMES = (
    b"new\nline.png",
    b"\x1b[2J\x07bell.png",
    b"..png",
    b"...png",
    b"-rf.png",
    b"~root.png",
    b"%2e%2e%2f.png",
    b"a;b|c&d$(e)`f`.png",
    b"'quotes\".png",
    b"\\back\\..\\slash.png",
    b"not utf-8 \xff\xfe\xed\xa0\x80.png",
    "rtl \u202egnp.exe.png".encode(),
    b"n" * 251 + b".png",
    b"<script>alert(1)<script>.png",
    b"con.png",
    b" .png",
)


def test_every_name_that_a_file_system_knows_becomes_a_board(station: Daemon) -> None:
    for number, name in enumerate(NAMES):
        hidden = station.inbox / ".part"
        hidden.write_bytes(encoded(picture(number)))
        os.rename(os.fsencode(hidden), os.fsencode(station.inbox) + b"/" + name)  # noqa: PTH104  # no text is that name
    station.start()
    ours = {os.fsdecode(name) for name in NAMES if not name.startswith(b".")}
    until(lambda: len(done(station)) >= len(ours), within_s=PATIENCE_S, what="all boards")
    goes_on(station)
    assert {one["verdict"] for one in station.get("/boards").json()["boards"]} == {"fail"}
    assert "\x1b" not in station.text()
    for path in ("/boards?limit=100", "/metrics", "/health"):
        assert station.get(path).status_code == 200, path


def done(station: Daemon) -> list[Path]:
    return [one for one in (station.inbox / "done").rglob("*") if one.is_file()]


def test_a_file_that_becomes_a_link_between_look_and_claim_gives_nothing_away(station: Daemon, outside: Path) -> None:
    """Somebody swaps a picture and a link as fast as he can: what lies outside is neither judged nor moved."""
    before = files_below(outside)
    stop = threading.Event()
    bait = encoded(picture(1))

    def swap() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            hidden, link, name = (station.inbox / one for one in (".bait", ".link", f"race-{number % 5}.png"))
            with suppress(OSError):
                hidden.write_bytes(bait)
                hidden.rename(name)
                link.symlink_to(outside / "private.png")
                link.rename(name)
            stop.wait(0.002)

    station.start()
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        until(lambda: len(station.files("done")) >= 10, within_s=PATIENCE_S, what="ten boards in the middle of it")
        goes_on(station)
    finally:
        stop.set()
        swapper.join()
    assert files_below(outside) == before
    private = sha256_of(outside / "private.png")
    events = [
        station.get(f"/boards/{one['event_id']}").json() for one in station.get("/boards?limit=500").json()["boards"]
    ]
    assert len(events) >= 10
    assert private not in {(one["image"] or {}).get("sha256") for one in events}


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_of_ours_that_is_a_link_elsewhere_costs_no_board(station: Daemon, outside: Path) -> None:
    """A day of the evidence that somebody has made a link: nothing is deleted through it."""
    station.data_dir.mkdir()
    (station.data_dir / "evidence").mkdir()
    (station.data_dir / "evidence" / "2001-01-01").symlink_to(outside)
    (outside / "old.jpg").write_bytes(b"x")
    os.utime(outside / "old.jpg", (0, 0))
    station.configure({"evidence": {"keep_days": 0.001, "max_mb": 0.001}})
    station.start()
    goes_on(station, "one.png")
    goes_on(station, "two.png")
    until(lambda: len(list((station.data_dir / "evidence").rglob("*.jpg"))) <= 1, within_s=PATIENCE_S, what="a sweep")
    assert (outside / "old.jpg").exists()
