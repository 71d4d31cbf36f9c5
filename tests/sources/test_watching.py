from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from watchdog.observers.inotify import InotifyObserver

from station.sources import folder
from station.sources.inbox import RESCAN
from station.sources.watching import Watch, remote_kind
from tests.sources.boards import drop, line_on, picture
from tests.waiting import until


@pytest.fixture
def hints() -> list[str]:
    return []


@pytest.fixture
def watch(tmp_path: Path, hints: list[str]) -> Iterator[Watch]:
    watch = Watch(tmp_path, subfolders=False, hint=hints.append)
    yield watch
    watch.stop()


def test_a_close_and_a_rename_into_place_are_hints_and_a_rename_out_is_none(
    tmp_path: Path, watch: Watch, hints: list[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert watch.ensure()
    drop(tmp_path, "a", b"1")
    (tmp_path / "a").rename(tmp_path / "elsewhere/a")
    (tmp_path / "elsewhere/a").rename(tmp_path / "b")
    drop(tmp_path, "last", b"1")
    until(lambda: "last" in hints)
    assert hints == ["a", "b", "last"]


def test_the_stations_own_claims_are_no_events_since_watchdog_would_wait_for_their_other_half(watch: Watch) -> None:
    assert watch.ensure()
    masks = [
        int(line.partition(" mask:")[2].split()[0], 16)
        for path in list(Path("/proc/self/fdinfo").iterdir())
        if path.exists()  # the listing itself was one
        for line in path.read_text().splitlines()
        if line.startswith("inotify ")
    ]
    moved_from, moved_to, close_write = 0x40, 0x80, 0x08
    assert [mask & (moved_from | moved_to | close_write) for mask in masks] == [moved_to | close_write]


def test_new_folders_ask_for_a_scan(tmp_path: Path, hints: list[str]) -> None:
    watch = Watch(tmp_path, subfolders=True, hint=hints.append)
    assert watch.ensure()
    (tmp_path / "new").mkdir()
    until(lambda: RESCAN in hints)
    drop(tmp_path, "new/a", b"1")
    until(lambda: "new/a" in hints)
    watch.stop()


def test_a_replaced_folder_is_watched_anew(tmp_path: Path, hints: list[str]) -> None:
    path = tmp_path / "inbox"
    path.mkdir()
    watch = Watch(path, subfolders=False, hint=hints.append)
    assert watch.ensure()
    path.rename(tmp_path / "old")
    path.mkdir()
    assert watch.ensure()
    drop(path, "a", b"1")
    until(lambda: hints == ["a"])
    watch.stop()


def test_a_watch_whose_threads_died_is_started_anew(tmp_path: Path, watch: Watch, hints: list[str]) -> None:
    assert watch.ensure()
    assert watch._observer is not None
    watch._observer.stop()
    watch._observer.join()
    assert watch.ensure()
    drop(tmp_path, "a", b"1")
    until(lambda: hints == ["a"])


def test_a_watch_that_cannot_be_had_is_said_once_and_boards_come_by_scans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(InotifyObserver, "schedule", refuse)
    with capture_logs() as logs, line_on(tmp_path, scan_every_s=0.05, polling=False) as line:
        line.begin()
        drop(tmp_path, "a.png", picture(1))
        assert line.inspect().file == "a.png"
        line.idle_until(lambda: len(line.backlog) > 4)
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == [
        "folder watch failed, scanning only"
    ]


def test_a_network_folder_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: object, **_kwargs: object) -> Watch:
        raise AssertionError("watched")

    monkeypatch.setattr(folder, "remote_kind", lambda _path: "nfs")
    monkeypatch.setattr(folder, "Watch", never)
    drop(tmp_path, "a.png", picture(1))
    with line_on(tmp_path) as line:
        assert line.inspect().file == "a.png"


def test_a_local_folder_is_not_taken_for_a_share(tmp_path: Path) -> None:
    assert remote_kind(tmp_path) is None
    assert remote_kind(tmp_path / "nowhere") is None
