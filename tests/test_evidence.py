"""Pictures as evidence."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from structlog.testing import capture_logs

from station.evidence import STEP_FILES, FolderEvidence
from station.types import Box, Defect, Image, Inspection, Verdict
from tests.boards import NOON, board

SHORT = Defect("short", 0.91, Box(30, 60, 40, 20), "pcb-demo")
GREY = 128


def picture(level: int = GREY, *, height: int = 120, width: int = 160) -> Image:
    return np.full((height, width, 3), level, np.uint8)


def folder_evidence(
    folder: Path,
    *,
    keep: Literal["all", "rejects", "none"] = "all",
    allowed: Callable[[], bool] = lambda: True,
    max_bytes: int = 10**9,
    keep_days: float = 30,
    clock_synced: bool = True,
    now: datetime = NOON,
    monotonic: Callable[[], float] = lambda: 0.0,
) -> FolderEvidence:
    return FolderEvidence(
        folder,
        keep=keep,
        allowed=allowed,
        max_bytes=max_bytes,
        keep_days=keep_days,
        clock_synced=lambda: clock_synced,
        now=now.timestamp,
        monotonic=monotonic,
    )


def fail(**more: Any) -> Inspection:
    return board("the-board", verdict=Verdict.FAIL, image=picture(), defects=(SHORT,), **more)


def test_a_picture_lies_under_its_day_and_event_id(tmp_path: Path) -> None:
    late = datetime(2026, 11, 24, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    assert folder_evidence(tmp_path).keep(fail(captured_at=late)) == "2026-11-23/the-board.jpg"
    kept = cv2.imread(str(tmp_path / "2026-11-23" / "the-board.jpg"))
    assert kept is not None
    assert kept.shape[1] == 160
    assert [one.name for one in (tmp_path / "2026-11-23").iterdir()] == ["the-board.jpg"]


@pytest.mark.parametrize("level", [0, 255])
def test_the_box_can_be_seen_on_dark_and_on_light(tmp_path: Path, level: int) -> None:
    inspection = board("b", verdict=Verdict.FAIL, image=picture(level), defects=(SHORT,))
    folder_evidence(tmp_path).keep(inspection)
    kept = cv2.imread(str(tmp_path / "2026-11-23" / "b.jpg"))
    assert kept is not None
    bar = kept.shape[0] - 120
    edge = kept[bar + 55 : bar + 65, 35:65].astype(int)
    assert np.abs(edge - level).max() > 60


def test_the_bar_has_the_colour_of_the_verdict(tmp_path: Path) -> None:
    tops = []
    for verdict in Verdict:
        folder_evidence(tmp_path).keep(board(verdict.value, verdict=verdict, image=picture()))
        kept = cv2.imread(str(tmp_path / "2026-11-23" / f"{verdict.value}.jpg"))
        assert kept is not None
        tops.append(kept[1, -2].astype(int))
    passed, failed, unknown = tops
    assert passed.argmax() == 1
    assert failed.argmax() == 2
    assert np.abs(failed - unknown).max() > 60


def test_the_line_s_own_picture_is_left_as_it_is(tmp_path: Path) -> None:
    inspection = fail()
    folder_evidence(tmp_path).keep(inspection)
    assert inspection.frame.image is not None
    assert (inspection.frame.image == GREY).all()


def test_one_picture_does_not_show_through_in_the_next(tmp_path: Path) -> None:
    pictures = folder_evidence(tmp_path)
    pictures.keep(fail())
    pictures.keep(board("clean", image=picture()))
    kept = cv2.imread(str(tmp_path / "2026-11-23" / "clean.jpg"))
    assert kept is not None
    assert np.abs(kept[-110:].astype(int) - GREY).max() < 20


@pytest.mark.parametrize("box", [Box(-50, -50, 1e6, 1e6), Box(float("nan"), 5, float("inf"), 5), Box(159, 119, 1, 1)])
@pytest.mark.parametrize("label", ["short", "défaut", "x" * 500])
def test_no_defect_is_too_odd_to_be_drawn(tmp_path: Path, box: Box, label: str) -> None:
    odd = Defect(label, 0.5, box, "m")
    assert folder_evidence(tmp_path).keep(board("odd", image=picture(), defects=(odd,), hidden=(odd,))) is not None


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 2000), (3000, 4000)])
def test_a_picture_of_any_size_is_kept(tmp_path: Path, height: int, width: int) -> None:
    inspection = board("sized", image=picture(height=height, width=width), defects=(SHORT,))
    assert folder_evidence(tmp_path).keep(inspection) is not None


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("all", [Verdict.PASS, Verdict.FAIL, Verdict.UNKNOWN]),
        ("rejects", [Verdict.FAIL, Verdict.UNKNOWN]),
        ("none", []),
    ],
)
def test_only_what_is_wanted_is_kept(
    tmp_path: Path, keep: Literal["all", "rejects", "none"], kept: list[Verdict]
) -> None:
    pictures = folder_evidence(tmp_path, keep=keep)
    found = [one for one in Verdict if pictures.keep(board(one.value, verdict=one, image=picture())) is not None]
    assert found == kept


def test_a_board_without_a_picture_has_no_evidence(tmp_path: Path) -> None:
    inspection = board(verdict=Verdict.UNKNOWN, problem="truncated")
    assert folder_evidence(tmp_path).keep(inspection) is None


def test_a_disk_below_its_floor_gets_no_pictures(tmp_path: Path) -> None:
    assert folder_evidence(tmp_path, allowed=lambda: False).keep(fail()) is None
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_given_only_when_all_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        steps.append("fsync file" if os.path.isfile(f"/proc/self/fd/{descriptor}") else "fsync folder")  # noqa: PTH113
        fsync(descriptor)

    def renamed(path: str, target: str) -> None:
        steps.append("rename")
        rename(path, target)

    pictures = folder_evidence(tmp_path)
    pictures.keep(fail())
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    pictures.keep(fail())
    assert steps == ["fsync file", "rename", "fsync folder"]


def test_a_disk_in_trouble_costs_the_picture_and_one_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    pictures = folder_evidence(tmp_path, monotonic=lambda: now_s)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with capture_logs() as logs:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert [pictures.keep(fail()) for _ in range(3)] == [None] * 3
            assert len(logs) == 1
            now_s += 3601
            assert pictures.keep(fail()) is None
        assert [one["log_level"] for one in logs] == ["warning"] * 2
        assert list(tmp_path.rglob("*.*")) == []
        assert pictures.keep(fail()) is not None


def test_too_little_memory_for_drawing_costs_the_picture_and_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_left(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 181. MiB")

    pictures = folder_evidence(tmp_path)
    with capture_logs() as logs:
        monkeypatch.setattr("station.evidence.drawn", nothing_left)
        assert [pictures.keep(fail()) for _ in range(2)] == [None, None]
    (warning,) = logs
    assert warning["error"] == "too little memory: Unable to allocate 181. MiB"


def test_a_disk_that_takes_a_picture_in_parts_gets_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = folder_evidence(tmp_path / "whole")
    parts = folder_evidence(tmp_path / "parts")
    wanted = whole.keep(fail())
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:1000]))
    assert wanted is not None
    assert parts.keep(fail()) == wanted
    assert (tmp_path / "parts" / wanted).read_bytes() == (tmp_path / "whole" / wanted).read_bytes()


def test_a_failing_rename_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str, target: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    pictures = folder_evidence(tmp_path)
    pictures.keep(board("first", image=picture()))
    monkeypatch.setattr(os, "rename", broken)
    with capture_logs():
        assert pictures.keep(fail()) is None
    assert [one.name for one in (tmp_path / "2026-11-23").iterdir()] == ["first.jpg"]


def test_a_picture_that_jpeg_cannot_hold_is_a_warning(tmp_path: Path) -> None:
    wide = board("wide", image=picture(height=1, width=70_000))
    with capture_logs() as logs:
        assert folder_evidence(tmp_path).keep(wide) is None
    assert len(logs) == 1


def test_a_folder_that_vanished_is_made_again(tmp_path: Path) -> None:
    pictures = folder_evidence(tmp_path / "not" / "yet")
    assert pictures.keep(fail()) is not None
    (tmp_path / "not" / "yet" / "2026-11-23" / "the-board.jpg").unlink()
    (tmp_path / "not" / "yet" / "2026-11-23").rmdir()
    assert pictures.keep(fail()) is not None


# --- clearing away ---


def fill(folder: Path, day: str, count: int, *, size: int = 1000, minute: int = 0) -> None:
    (folder / day).mkdir(parents=True, exist_ok=True)
    began_s = datetime.fromisoformat(f"{day}T10:00:00+00:00").timestamp() + 60 * minute
    for number in range(count):
        path = folder / day / f"{minute:02}-{number:04}.jpg"
        path.write_bytes(bytes(size))
        os.utime(path, (began_s + number, began_s + number))


def left(folder: Path) -> list[str]:
    return sorted(os.path.relpath(f"{top}/{name}", folder) for top, _, names in os.walk(folder) for name in names)


def sweep_all(pictures: FolderEvidence) -> int:
    return sum(pictures.sweep() for _ in range(60))


def test_sweeping_takes_whole_days_that_are_too_old(tmp_path: Path) -> None:
    fill(tmp_path, "2026-11-12", 3)
    fill(tmp_path, "2026-11-13", 2)
    assert (
        sweep_all(folder_evidence(tmp_path, keep_days=10)) == 3
    )  # the 12th ended more than ten days before the 23rd's noon
    assert [one.name for one in tmp_path.iterdir()] == ["2026-11-13"]


def test_by_a_clock_that_nobody_has_set_nothing_is_old_but_too_much_is_too_much(tmp_path: Path) -> None:
    fill(tmp_path, "2026-11-12", 3)
    assert sweep_all(folder_evidence(tmp_path, keep_days=10, clock_synced=False)) == 0
    assert sweep_all(folder_evidence(tmp_path, keep_days=10, max_bytes=1000, clock_synced=False)) == 2


def test_sweeping_takes_the_oldest_when_it_is_too_much(tmp_path: Path) -> None:
    fill(tmp_path, "2026-11-22", 4)
    fill(tmp_path, "2026-11-23", 2, minute=5)
    fill(tmp_path, "2026-11-23", 2, minute=1)
    assert sweep_all(folder_evidence(tmp_path, max_bytes=3000)) == 5
    assert left(tmp_path) == ["2026-11-23/01-0001.jpg", "2026-11-23/05-0000.jpg", "2026-11-23/05-0001.jpg"]
    assert not (tmp_path / "2026-11-22").exists()


def test_sweeping_goes_in_small_steps(tmp_path: Path) -> None:
    fill(tmp_path, "2026-11-01", 2 * STEP_FILES + 50, size=1)
    steps = [folder_evidence(tmp_path, keep_days=10)]
    deleted = [steps[0].sweep() for _ in range(12)]
    assert max(deleted) == STEP_FILES
    assert sum(deleted) == 2 * STEP_FILES + 50


def test_sweeping_goes_on_with_what_came_later(tmp_path: Path) -> None:
    pictures = folder_evidence(tmp_path, max_bytes=3000)
    for minute in range(5):
        fill(tmp_path, "2026-11-23", 2, minute=minute)
        sweep_all(pictures)
        assert len(left(tmp_path)) <= 3
    assert left(tmp_path)[-1] == "2026-11-23/04-0001.jpg"


def test_sweeping_takes_what_a_crash_left_half_written(tmp_path: Path) -> None:
    fill(tmp_path, "2026-11-01", 1)
    (tmp_path / "2026-11-01" / ".cut.tmp").write_bytes(b"half")
    assert sweep_all(folder_evidence(tmp_path, keep_days=10)) == 2
    assert list(tmp_path.iterdir()) == []


def test_sweeping_leaves_alone_what_is_not_its_own(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    fill(outside, "2026-11-01", 1)
    folder = tmp_path / "evidence"
    fill(folder, "2026-11-02", 1)
    (folder / "2026-11-02" / "notes.txt").write_text("mine")
    (folder / "2026-11-01").symlink_to(outside / "2026-11-01")
    (folder / "2026-13-45").mkdir()
    (folder / "readme.jpg").write_bytes(b"")
    assert sweep_all(folder_evidence(folder, keep_days=1, max_bytes=0)) == 1
    assert left(folder) == ["2026-11-02/notes.txt", "readme.jpg"]
    assert left(outside) == ["2026-11-01/00-0000.jpg"]


def test_sweeping_a_folder_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert sweep_all(folder_evidence(tmp_path / "none")) == 0


def test_a_sweep_that_meets_trouble_warns_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "2026-11-01", 2)
    pictures = folder_evidence(tmp_path, keep_days=10)

    def denied(path: Path, *, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(Path, "unlink", denied)
        assert sweep_all(pictures) == 0
        assert len(logs) == 1
    assert sweep_all(pictures) == 2
