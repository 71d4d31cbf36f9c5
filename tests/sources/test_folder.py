from __future__ import annotations

import hashlib
import os
import re
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from station.disk import sync_directory
from station.errors import SourceError
from station.sources import folder, readiness
from station.types import Frame, Image, Recorded
from tests.sources.boards import PATIENCE_S, Clock, drop, files_below, line_on, open_descriptors, picture, png_head
from tests.waiting import until

NOON = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    return path


def number_of(frame: Frame) -> int:
    assert frame.image is not None
    return int(frame.image[12, 16, 0])


# --- What is taken, and when


def test_a_picture_that_lies_there_becomes_a_frame_with_all_that_is_known_of_it(inbox: Path) -> None:
    data = picture(5)
    drop(inbox, "PCB-0017_top.png", data)
    with line_on(inbox, now=lambda: NOON, serial_pattern=re.compile(r"PCB-(\d+)")) as line:
        frame = line.inspect()
        assert number_of(frame) == 5
        assert (frame.file, frame.source, frame.problem) == ("PCB-0017_top.png", "folder", None)
        assert frame.board_serial == "0017"
        assert frame.captured_at == NOON
        assert frame.sha256 == hashlib.sha256(data).hexdigest()
        line.idle()
    assert files_below(inbox) == {"done/2026-11-23/PCB-0017_top.png"}


def test_the_serial_is_the_whole_match_without_a_group_and_none_without_a_match(inbox: Path) -> None:
    drop(inbox, "a17.png", picture(1))
    drop(inbox, "b.png", picture(2))
    with line_on(inbox, serial_pattern=re.compile(r"\d+")) as line:
        assert [line.inspect().board_serial for _ in range(2)] == ["17", None]


def test_a_file_closed_while_the_line_is_idle_is_taken_without_waiting_for_a_scan(inbox: Path) -> None:
    with line_on(inbox, scan_every_s=3600.0, polling=False) as line:
        line.begin()
        drop(inbox, "a.png", picture(1))
        assert number_of(line.inspect()) == 1
        drop(inbox, ".b.png.part", picture(2)).rename(inbox / "b.png")
        assert number_of(line.inspect()) == 2


def test_a_file_renamed_into_place_is_taken_though_others_were_claimed_just_before(inbox: Path) -> None:
    with line_on(inbox, scan_every_s=3600.0, polling=False) as line:
        line.begin()
        for number in range(20):
            drop(inbox, f"{number}.tmp", picture(number)).rename(inbox / f"{number}.png")
            assert number_of(line.inspect()) == number


def test_a_read_that_hangs_is_said_once_and_taken_back_when_it_has_come_back(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a share whose server is gone: the station stayed ready for good."""
    clock, said, hangs, goes_on = Clock(), list[bool](), threading.Event(), threading.Event()
    read = readiness.examine

    def hanging(*arguments: Any, **options: Any) -> Any:
        hangs.set()
        assert goes_on.wait(PATIENCE_S)
        return read(*arguments, **options)

    with line_on(inbox, monotonic=clock, on_silence=said.append, polling=False) as line:
        line.begin()
        clock.advance(3 * folder.SILENT_S)
        line.idle()
        assert said == [], "a folder without boards is not silent"
        monkeypatch.setattr(folder, "examine", hanging)
        drop(inbox, "a.png", picture(1))
        line.idle_until(hangs.is_set)
        line.idle(2)
        clock.advance(folder.SILENT_S)
        line.idle(2)
        assert said == []
        clock.advance(1.0)
        line.idle(2)
        assert said == [True]
        goes_on.set()
        assert number_of(line.inspect()) == 1
        assert said == [True, False]


def test_a_file_written_in_pieces_is_taken_once_and_whole(inbox: Path) -> None:
    data = picture(7, suffix=".jpg", side_px=64)
    with line_on(inbox, polling=False) as line:
        line.begin()
        with (inbox / "slow.jpg").open("wb") as file:
            for at in range(0, len(data), len(data) // 5 + 1):
                file.write(data[at : at + len(data) // 5 + 1])
                file.flush()
                line.idle(3)
        assert line.inspect().sha256 == hashlib.sha256(data).hexdigest()
        line.idle()


def test_a_file_closed_between_its_pieces_is_waited_for(inbox: Path) -> None:
    data = picture(7, suffix=".jpg", side_px=64)
    with line_on(inbox, polling=False) as line:
        line.begin()
        for part in (data[:100], data[100:-1], data[-1:]):
            line.begin()
            with (inbox / "slow.jpg").open("ab") as file:
                file.write(part)
        assert line.inspect().sha256 == hashlib.sha256(data).hexdigest()


def test_what_a_scan_found_must_be_unchanged_for_half_a_second_of_the_stations_own_clock(inbox: Path) -> None:
    clock = Clock()
    path = drop(inbox, "a.png", picture(1))
    os.utime(path, (0, 0))  # a server whose clock is far off must not matter
    with line_on(inbox, polling=True, monotonic=clock) as line:
        line.rest(clock)
        clock.advance(0.4)
        path.write_bytes(picture(2))
        os.utime(path, (2**32, 2**32))
        for _ in range(2):  # at the first of these looks it has changed
            clock.advance(0.4)
            line.rest(clock)
        clock.advance(0.2)
        assert number_of(line.inspect()) == 2


def test_the_oldest_file_comes_first(inbox: Path) -> None:
    for number, mtime_s in ((1, 300), (2, 100), (3, 200), (4, 200)):
        os.utime(drop(inbox, f"{number}.png", picture(number)), (mtime_s, mtime_s))
    with line_on(inbox) as line:
        assert [number_of(line.inspect()) for _ in range(4)] == [2, 3, 4, 1]


def test_a_burst_of_2000_files_is_inspected_each_once(inbox: Path) -> None:
    data = [picture(number) for number in range(256)]
    with line_on(inbox, polling=False) as line:
        line.begin()
        writer = threading.Thread(
            target=lambda: [drop(inbox, f"{number:04}.png", data[number % 256]) for number in range(2000)]
        )
        writer.start()
        seen = [line.inspect().file for _ in range(2000)]
        writer.join()
        line.idle()
    assert sorted(seen, key=str) == [f"{number:04}.png" for number in range(2000)]
    assert len(files_below(inbox)) == 2000
    assert line.backlog[-1] == 0


def test_a_sidecar_makes_its_picture_ready_at_the_first_look_and_moves_along(inbox: Path) -> None:
    clock = Clock()  # stands still: nothing is ever seen to be stable
    for name in ("a.png", "a.png.ok", "b.png", "b.done", "c.png"):
        drop(inbox, name, picture(1) if name.endswith(".png") else b"")
    with line_on(inbox, polling=True, monotonic=clock, now=lambda: NOON) as line:
        assert {line.inspect().file for _ in range(2)} == {"a.png", "b.png"}
        line.idle()
    done = {"a.png", "a.png.ok", "b.png", "b.done"}
    assert files_below(inbox) == {"c.png", *(f"done/2026-11-23/{name}" for name in done)}


def test_a_sidecar_that_came_after_its_picture_had_left_follows_it_later(inbox: Path) -> None:
    clock = Clock()
    with line_on(inbox, polling=True, monotonic=clock, now=lambda: NOON) as line:
        line.begin()
        drop(inbox, "late.ok", b"")
        clock.advance(2)
        line.rest(clock)
        assert files_below(inbox) == {"late.ok"}
        clock.advance(31)
        line.idle_until(lambda: files_below(inbox) == {"done/2026-11-23/late.ok"})


def test_a_sidecar_of_a_very_long_name_stops_nothing_when_its_like_is_in_done(inbox: Path) -> None:
    name, clock = "b" * 252 + ".ok", Clock()
    with line_on(inbox, polling=True, monotonic=clock) as line:
        for count in (1, 2):
            line.begin()
            drop(inbox, name, b"")
            clock.advance(2)
            line.rest(clock)
            clock.advance(31)
            line.idle_until(lambda count=count: len(list(inbox.glob("done/*/b*.ok"))) == count)  # type: ignore[misc]  # bound at once
    assert not (inbox / name).exists()


def test_a_subfolder_that_is_too_deep_for_its_files_to_be_moved_is_left_alone(inbox: Path) -> None:
    depths = (3700 - len(str(inbox))) // 91
    deep = inbox.joinpath(*["d" * 90] * depths)
    deep.mkdir(parents=True)
    with line_on(inbox, subfolders=True) as line:
        line.begin()
        there = drop(deep, "n" * 240 + ".png", picture(1))
        drop(inbox, "near.png", picture(2))
        assert line.inspect().file == "near.png"
        line.idle()
    assert there.exists()


def test_unfinished_and_hidden_files_are_left_alone(inbox: Path) -> None:
    names = {".hidden.png", "a.png.part", "b.tmp", "c.png.crdownload", "Thumbs.db", "d.png~"}
    for name in names:
        drop(inbox, name, picture(1))
    (inbox / "folder").mkdir()
    clock = Clock()
    with line_on(inbox, monotonic=clock) as line:
        line.begin()
        clock.advance(100)
        line.idle()
    assert {path.name for path in inbox.iterdir() if path.is_file()} == names


# --- What is not fit to be judged


def test_a_truncated_jpeg_fails_only_after_30_s_unchanged(inbox: Path) -> None:
    data = picture(7, suffix=".jpg", side_px=64)[:-40]
    clock = Clock()
    drop(inbox, "cut.jpg", data)
    with line_on(inbox, monotonic=clock, now=lambda: NOON) as line:
        line.begin()
        for _ in range(3):
            clock.advance(9.9)
            line.rest(clock)
        clock.advance(0.4)
        frame = line.inspect()
        assert frame.image is None
        assert frame.problem == "JPEG: truncated, no end-of-image mark after 30 s unchanged"
        assert frame.sha256 == hashlib.sha256(data).hexdigest()
        line.idle()
    assert files_below(inbox) == {"failed/cut.jpg", "failed/cut.jpg.reason.txt"}
    reason = (inbox / "failed/cut.jpg.reason.txt").read_text()
    assert reason.startswith("JPEG: truncated, no end-of-image mark after 30 s unchanged\n")
    assert frame.id in reason


def test_a_truncated_file_that_grows_to_its_end_is_taken(inbox: Path) -> None:
    data = picture(7, suffix=".jpg")
    clock = Clock()
    path = drop(inbox, "cut.jpg", data[:-40])
    with line_on(inbox, polling=True, monotonic=clock) as line:
        line.begin()
        clock.advance(29)
        line.rest(clock)
        path.write_bytes(data)
        clock.advance(1.5)
        line.rest(clock)
        clock.advance(0.6)
        assert line.inspect().problem is None


def test_an_empty_file_fails_only_after_30_s(inbox: Path) -> None:
    clock = Clock()
    with line_on(inbox, polling=False, monotonic=clock) as line:
        line.begin()
        drop(inbox, "empty.png", b"")
        line.rest(clock)
        clock.advance(31)
        assert line.inspect().problem == "empty file after 30 s unchanged"


def test_a_text_file_that_was_closed_fails_at_once(inbox: Path) -> None:
    with line_on(inbox, polling=False) as line:
        line.begin()
        drop(inbox, "notes.png", b"Dear line, ...")
        frame = line.inspect()
        assert frame.problem == "not an image: JPEG, PNG, BMP, TIFF or WebP expected"
        line.idle()
    assert "failed/notes.png" in files_below(inbox)


def test_a_picture_is_known_by_its_content_and_not_by_its_name(inbox: Path) -> None:
    drop(inbox, "board.txt", picture(3))
    with line_on(inbox) as line:
        assert number_of(line.inspect()) == 3


def test_a_file_of_too_many_bytes_is_not_even_opened(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real_open = os.open

    def spy(path: object, *args: object, **kwargs: object) -> int:
        opened.append(str(path))
        return real_open(path, *args, **kwargs)  # type: ignore[arg-type]  # handed through as it came

    monkeypatch.setattr(os, "open", spy)
    with line_on(inbox, polling=False, max_bytes=100) as line:
        line.begin()
        drop(inbox, "large.png", picture(1, side_px=64))
        frame = line.inspect()
        assert frame.problem is not None
        assert frame.problem.startswith("too large: ")
        assert frame.sha256 == ""
    assert not [path for path in opened if path.endswith("large.png")]


def test_a_picture_of_too_many_pixels_is_never_decoded(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(_data: bytes) -> Image | None:
        raise AssertionError("decoded")

    monkeypatch.setattr(folder, "decode", explode)
    drop(inbox, "bomb.png", png_head(60_000, 50_000))
    with line_on(inbox) as line:
        frame = line.inspect()
    assert frame.problem == "too many pixels: 60000 x 50000 = 3000.0 million, and 150.0 million are allowed"


def test_a_deep_picture_is_decoded_as_deep_as_its_camera_makes_it(inbox: Path) -> None:
    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    drop(inbox, "deep.png", cv2.imencode(".png", levels)[1].tobytes())
    with line_on(inbox, depth_bits=12) as line:
        image = line.inspect().image
    assert image is not None
    assert np.array_equal(image[..., 0], levels >> 4)


def test_what_the_decoder_refuses_is_set_aside(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "decode", lambda _data, **_how: None)
    drop(inbox, "odd.png", picture(1))
    with line_on(inbox) as line:
        assert line.inspect().problem == "the decoder refused it"
        line.idle()
    assert "failed/odd.png" in files_below(inbox)


def test_a_symbolic_link_is_set_aside_and_never_followed(inbox: Path, tmp_path: Path) -> None:
    secret = drop(tmp_path, "secret.png", picture(1))
    (inbox / "link.png").symlink_to(secret)
    with line_on(inbox) as line:
        frame = line.inspect()
        assert frame.image is None
        assert "symbolic link" in str(frame.problem)
        line.idle()
    assert (inbox / "failed/link.png").is_symlink()
    assert secret.read_bytes() == picture(1)


def test_a_pipe_is_set_aside_and_blocks_nothing(inbox: Path) -> None:
    os.mkfifo(inbox / "pipe.png")
    with line_on(inbox) as line:
        assert line.inspect().problem == "no regular file"
        line.idle()
    assert "failed/pipe.png" in files_below(inbox)


def test_a_file_that_may_not_be_read_fails_only_after_30_s(inbox: Path) -> None:
    clock = Clock()
    path = drop(inbox, "locked.png", picture(1))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user (root?) may read everything")
    with line_on(inbox, monotonic=clock) as line:
        line.begin()
        clock.advance(1)
        line.rest(clock)
        clock.advance(30)
        assert line.inspect().problem == "cannot be read (Permission denied) after 30 s unchanged"


def test_an_inbox_that_became_read_only_is_in_trouble_before_any_file_is_tried(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a file each, the line failed and was well again by turns, and the station ready in between."""
    (inbox / "processing").mkdir()
    drop(inbox, "board.png", picture(1))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != inbox or not mode & os.W_OK)
    with line_on(inbox) as line, pytest.raises(SourceError, match="allow the station's user to write in"):
        line.begin()
    assert (inbox / "board.png").exists()


# --- What becomes of the files


def test_nothing_in_done_or_failed_is_ever_overwritten(inbox: Path) -> None:
    with line_on(inbox, polling=False, now=lambda: NOON) as line:
        line.begin()
        for number in (1, 2, 3):
            drop(inbox, "board.png", picture(number))
            assert number_of(line.inspect()) == number
            line.idle(1)
            drop(inbox, "text.png", f"text {number}".encode())
            assert line.inspect().problem
            line.idle(1)
    done = [inbox / "done/2026-11-23" / name for name in ("board.png", "board~2.png", "board~3.png")]
    assert [path.read_bytes() for path in done] == [picture(1), picture(2), picture(3)]
    failed = [inbox / "failed" / name for name in ("text.png", "text~2.png", "text~3.png")]
    assert [path.read_text() for path in failed] == ["text 1", "text 2", "text 3"]
    assert all(path.with_name(f"{path.name}.reason.txt").is_file() for path in failed)


def test_a_file_in_failed_that_has_lost_its_reason_is_not_overwritten_either(inbox: Path) -> None:
    (inbox / "failed").mkdir()
    drop(inbox, "failed/a.png", b"old")
    with line_on(inbox, polling=False) as line:
        line.begin()
        drop(inbox, "a.png", b"new")
        line.inspect()
        line.idle()
    assert files_below(inbox) == {"failed/a.png", "failed/a~2.png", "failed/a~2.png.reason.txt"}
    assert (inbox / "failed/a.png").read_bytes() == b"old"


def test_the_board_is_moved_when_the_next_is_asked_for_and_not_when_the_source_is_closed(inbox: Path) -> None:
    drop(inbox, "a.png", picture(1))
    drop(inbox, "b.png", picture(2))
    with line_on(inbox, now=lambda: NOON) as line:
        first = line.inspect()
        assert not (inbox / "done").exists()
        second = line.take()
        assert (inbox / "done/2026-11-23/a.png").is_file()
    assert f"processing/{second.id}~b.png" in files_below(inbox)
    assert first.id != second.id


def test_a_claim_is_on_the_disk_before_its_board_is_with_the_line(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, int]] = []

    def spy(path: Path) -> None:
        synced.append((path.name, len(list((inbox / "processing").glob("*~a.png")))))
        sync_directory(path)

    monkeypatch.setattr("station.sources.claims.sync_directory", spy)
    drop(inbox, "a.png", picture(1))
    with line_on(inbox) as line:
        line.take()
        assert synced == [("processing", 1), ("inbox", 1)]


def test_a_new_file_of_the_same_name_is_a_new_board_while_the_first_is_inspected(inbox: Path) -> None:
    with line_on(inbox, polling=False, now=lambda: NOON) as line:
        line.begin()
        drop(inbox, "board.png", picture(1))
        first = line.inspect()
        drop(inbox, "board.png", picture(2))
        second = line.inspect()
        line.idle()
    assert [number_of(first), number_of(second)] == [1, 2]
    assert files_below(inbox) == {"done/2026-11-23/board.png", "done/2026-11-23/board~2.png"}


def test_a_picture_rewritten_through_an_old_descriptor_is_inspected_again_as_a_new_board(inbox: Path) -> None:
    with line_on(inbox, polling=False) as line:
        line.begin()
        drop(inbox, ".board", picture(1))
        with (inbox / ".board").open("r+b") as writer:
            (inbox / ".board").rename(inbox / "board.png")
            first = line.inspect()
            writer.write(picture(2, side_px=48))
        second = line.inspect()
        line.idle()
    assert [number_of(first), number_of(second)] == [1, 2]
    assert first.id != second.id
    assert len(files_below(inbox)) == 1


def test_what_changes_between_the_look_and_the_claim_is_read_again(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = drop(inbox, "board.png", picture(1))
    real_rename = Path.rename

    def meanwhile(self: Path, target: Path) -> Path:
        if self == path and path.read_bytes() == picture(1):
            path.write_bytes(picture(2, side_px=48))
        return real_rename(self, target)

    monkeypatch.setattr(Path, "rename", meanwhile)
    with line_on(inbox) as line:
        assert number_of(line.inspect()) == 2
        line.idle()
    assert len(files_below(inbox)) == 1


def test_a_file_that_another_takes_first_is_no_board(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = drop(inbox, "board.png", picture(1))
    real_rename = Path.rename

    def too_late(self: Path, target: Path) -> Path:
        if self == path:
            path.unlink(missing_ok=True)
        return real_rename(self, target)

    monkeypatch.setattr(Path, "rename", too_late)
    with line_on(inbox) as line:
        line.idle_until(lambda: not path.exists())
        line.idle()


def test_a_claimed_file_that_someone_removes_stops_nothing(inbox: Path) -> None:
    with line_on(inbox, polling=False) as line:
        line.begin()
        drop(inbox, "a.png", picture(1))
        frame = line.inspect()
        (inbox / f"processing/{frame.id}~a.png").unlink()
        drop(inbox, "b.png", picture(2))
        assert number_of(line.inspect()) == 2


@pytest.mark.parametrize(
    "name",
    [
        b"caf\xe9 board.png",
        "Leiterplatte \u00fcber \u6771.png".encode(),
        b"~a~b~.png",
        b"11111111-1111-4111-8111-111111111111~x.png",
        b"new\nline.png",
        b"-rf *.png",
        b"n" * 251 + b".png",
        "\u00fc".encode() * 125 + b".png",
        b"x" * 255,
    ],
    ids=lambda name: repr(name[:20]),
)
def test_odd_names_pass_through(inbox: Path, name: bytes) -> None:
    drop(inbox, os.fsdecode(name), picture(3))
    drop(inbox, "zz" + os.fsdecode(name[2:]), b"text")
    clock = Clock()
    with line_on(inbox, now=lambda: NOON, monotonic=clock) as line:
        line.begin()
        clock.advance(1)
        frame = line.inspect()
        assert number_of(frame) == 3
        str(frame.file).encode()  # printable: no surrogates
        line.rest(clock)
        clock.advance(30)
        assert line.inspect().problem
        line.idle()
    (done,) = (inbox / "done/2026-11-23").iterdir()
    assert done.read_bytes() == picture(3)
    assert done.suffix == Path(os.fsdecode(name)).suffix
    if len(name) <= 218:
        assert os.fsencode(done.name) == name
    assert len(list((inbox / "failed").iterdir())) == 2


# --- Folders of all kinds


def test_subfolders_are_descended_only_by_choice_and_kept_in_done(inbox: Path) -> None:
    (inbox / "line1/shift a").mkdir(parents=True)
    drop(inbox, "line1/shift a/x.png", picture(1))
    drop(inbox, "top.png", picture(2))
    with line_on(inbox, now=lambda: NOON) as line:
        assert line.inspect().file == "top.png"
        line.idle()
    with line_on(inbox, now=lambda: NOON, subfolders=True, polling=False) as line:
        assert line.inspect().file == "line1/shift a/x.png"
        line.idle()
        drop(inbox, "line1/shift a/x.png", picture(3))
        assert number_of(line.inspect()) == 3
        (inbox / "line2").mkdir()
        drop(inbox, "line2/y.png", picture(4))
        assert line.inspect().file == "line2/y.png"
        line.idle()
    done = {"top.png", "line1/shift a/x.png", "line1/shift a/x~2.png", "line2/y.png"}
    assert files_below(inbox) == {f"done/2026-11-23/{name}" for name in done}


def test_a_closed_source_finds_its_board_in_a_subfolder_again(inbox: Path) -> None:
    (inbox / "line1").mkdir()
    drop(inbox, "line1/x.png", picture(1))
    with line_on(inbox, subfolders=True) as line:
        first = line.take()
    with line_on(inbox, subfolders=False, now=lambda: NOON) as line:
        assert line.inspect().id == first.id
        line.idle()
    assert {name for name in files_below(inbox) if "line1/x.png" in name}


def test_polling_finds_what_no_hint_told_of(inbox: Path) -> None:
    with line_on(inbox, polling=True) as line:
        line.begin()
        for number in range(3):
            drop(inbox, f"{number}.png", picture(number))
        assert sorted(number_of(line.inspect()) for _ in range(3)) == [0, 1, 2]


def test_a_missing_inbox_is_a_source_error_that_says_what_to_do(tmp_path: Path) -> None:
    with line_on(tmp_path / "nowhere") as line, pytest.raises(SourceError, match="create the folder"):
        line.take()
    assert not (tmp_path / "nowhere").exists()


def test_an_inbox_that_vanishes_is_a_source_error(inbox: Path) -> None:
    with line_on(inbox, scan_every_s=0.1) as line:
        line.begin()
        inbox.rename(inbox.with_name("elsewhere"))
        with pytest.raises(SourceError, match="cannot be read"):
            line.take()


@pytest.mark.parametrize("call", ["rename", "mkdir"])
def test_an_inbox_that_can_only_be_read_is_a_source_error_that_names_the_setting(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    drop(inbox, "a.png", picture(1))

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, call, refuse)
    with line_on(inbox) as line, pytest.raises(SourceError, match='after = "leave"'):
        line.take()


def test_nothing_is_left_open_when_the_source_is_closed_or_thrown_into(inbox: Path) -> None:
    def run_once(*, throw: bool, subfolders: bool) -> None:
        drop(inbox, "a.png", picture(1))
        drop(inbox, "b.png", picture(2))
        with line_on(inbox, polling=False, subfolders=subfolders) as line:
            line.inspect()
            assert threading.active_count() > threads
            if throw:
                with pytest.raises(ZeroDivisionError):
                    line.frames.throw(ZeroDivisionError())
            else:
                line.frames.close()

    threads = threading.active_count()
    run_once(throw=False, subfolders=False)
    descriptors = open_descriptors()
    for throw in (False, True):
        for subfolders in (False, True):
            run_once(throw=throw, subfolders=subfolders)
    until(lambda: threading.active_count() == threads, within_s=PATIENCE_S)
    assert open_descriptors() == descriptors


def test_a_source_that_is_told_to_stop_ends(inbox: Path) -> None:
    with line_on(inbox) as line:
        line.begin()
        line.stop.set()
        assert list(line.frames) == []


def test_only_one_file_is_taken_ahead(inbox: Path) -> None:
    for number in range(5):
        drop(inbox, f"{number}.png", picture(number))
    with line_on(inbox) as line:
        line.inspect()
        until(lambda: len(list((inbox / "processing").glob("*~*"))) == 2, within_s=PATIENCE_S)
        third = threading.Event()
        assert not third.wait(1.0)
        assert len(list((inbox / "processing").glob("*~*"))) == 2


# --- A folder that is only read


def test_a_folder_that_is_left_as_it_is_gives_each_file_once_over_restarts(inbox: Path) -> None:
    ledger: dict[str, Recorded] = {}
    drop(inbox, "a.png", picture(1))
    drop(inbox, "b.txt", b"text")
    clock = Clock()
    before = files_below(inbox, hidden=True)
    with line_on(inbox, ledger, after="leave", monotonic=clock, polling=False) as line:
        line.begin()
        clock.advance(1)
        assert line.inspect().file == "a.png"
        line.rest(clock)
        clock.advance(30)
        assert line.inspect().problem == "not an image: JPEG, PNG, BMP, TIFF or WebP expected after 30 s unchanged"
        clock.advance(31)
        line.idle()
        drop(inbox, "c.png", picture(3))
        assert line.inspect().file == "c.png"
        line.idle()
    with line_on(inbox, ledger, after="leave", monotonic=clock) as line:
        line.begin()
        clock.advance(31)
        line.idle()
        os.utime(drop(inbox, "a.png", picture(4)), (1, 1))  # written anew: a new board
        assert number_of(line.inspect()) == 4
    assert files_below(inbox, hidden=True) == before | {"c.png"}
    assert len(ledger) == 4


@pytest.mark.parametrize("clean", [True, False])
def test_a_folder_that_is_left_tells_a_clean_end_from_a_crash(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, *, clean: bool
) -> None:
    tried: list[int] = []
    monkeypatch.setattr(folder, "trial", lambda data, **_: tried.append(len(data)))
    in_flight = inbox.with_name("in-flight.json")
    with line_on(inbox, after="leave") as line:
        line.begin()
        drop(inbox, "a.png", picture(1))
        first = line.take()
        as_it_was = in_flight.read_bytes()
    if not clean:
        in_flight.write_bytes(as_it_was)  # as a crash leaves it
    with line_on(inbox, after="leave") as line:
        again = line.inspect()
        line.idle()
    assert again.id == first.id
    assert len(tried) == (0 if clean else 1)


def test_a_file_on_record_is_not_read_again_and_the_ledger_is_asked_once(inbox: Path) -> None:
    asked: list[str] = []

    def recorded(event_id: str) -> Recorded:
        asked.append(event_id)
        return Recorded(None)

    for number in range(3):
        drop(inbox, f"{number}.png", picture(number))
    clock = Clock()
    with line_on(inbox, after="leave", recorded=recorded, polling=True, monotonic=clock) as line:
        line.begin()
        for _ in range(6):
            clock.advance(1.1)
            line.rest(clock)
    assert len(asked) == 3
    assert len(set(asked)) == 3


# --- What is seen ahead of its turn


def test_boards_that_wait_while_one_is_inspected_are_foreseen_and_come_in_their_order(inbox: Path) -> None:
    foreseen: list[Frame] = []
    for number in range(1, 7):
        drop(inbox, f"{number}.png", picture(number))
    with line_on(inbox, foresee=foreseen.append, ahead=3) as line:
        assert number_of(line.take()) == 1
        until(lambda: len(foreseen) == 3)
        assert len([one for one in files_below(inbox) if one.startswith("processing/")]) == 4
        seen: list[Frame] = []
        for number in range(2, 7):
            seen.append(line.inspect())
            until(lambda number=number: len(foreseen) == min(number + 2, 5))  # type: ignore[misc]  # no type for a default
        line.idle()
    assert [number_of(one) for one in seen] == [2, 3, 4, 5, 6]
    assert [one.id for one in foreseen] == [one.id for one in seen], "each once; the line was idle before the first"


def test_a_board_that_comes_alone_is_left_to_the_line(inbox: Path) -> None:
    foreseen: list[Frame] = []
    with line_on(inbox, foresee=foreseen.append, ahead=3) as line:
        for number in (1, 2):
            line.begin()
            drop(inbox, f"{number}.png", picture(number))
            assert number_of(line.inspect()) == number
            line.idle()
    assert foreseen == []


def test_of_large_pictures_only_the_next_is_held_in_memory(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_LARGE_PX", 100)
    foreseen: list[Frame] = []
    for number in range(1, 5):
        drop(inbox, f"{number}.png", picture(number))
    with line_on(inbox, foresee=foreseen.append, ahead=3) as line:
        for number in range(1, 4):
            assert number_of(line.inspect()) == number
            until(lambda number=number: len(foreseen) == number)  # type: ignore[misc]  # no type for a default
            assert len([one for one in files_below(inbox) if one.startswith("processing/")]) == 2
