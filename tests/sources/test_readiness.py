from __future__ import annotations

from pathlib import Path

import pytest

from station.sources import readiness
from station.sources.names import Stamp, stamp_of
from station.sources.readiness import Candidate, Gone, Limits, NotYet, Ready, examine, settle
from tests.sources.boards import drop, picture

LIMITS = Limits(max_bytes=10_000, max_pixels=10_000, unchanged_s=30.0)


def candidate_of(path: Path, *, said: bool = True) -> Candidate:
    return Candidate(path.name, path, said=said)


def test_a_file_that_changed_since_it_was_seen_to_be_settled_is_not_believed(tmp_path: Path) -> None:
    path = drop(tmp_path, "a.png", picture(1))
    candidate = candidate_of(path)
    stamp = settle(candidate, 5.0)
    assert stamp == stamp_of(path.lstat())
    path.write_bytes(picture(1, side_px=40))
    assert examine(candidate, stamp, limits=LIMITS, now_s=5.0) == NotYet(5.5)
    assert isinstance(settle(candidate, 5.4), NotYet)
    stamp = settle(candidate, 5.5)
    assert stamp == stamp_of(path.lstat())
    assert isinstance(examine(candidate, stamp, limits=LIMITS, now_s=5.5), Ready)


def test_an_unfinished_file_is_read_once_a_version_and_not_at_every_glance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    real_read = readiness._read

    def spy(path: Path, stamp: Stamp) -> tuple[bytes, Stamp, bool]:
        reads.append(path)
        return real_read(path, stamp)

    monkeypatch.setattr(readiness, "_read", spy)
    candidate = candidate_of(drop(tmp_path, "a.png", picture(1)[:-1]))
    for now_s in range(0, 30, 2):
        stamp = settle(candidate, float(now_s))
        assert stamp == stamp_of(candidate.path.lstat())
        assert isinstance(examine(candidate, stamp, limits=LIMITS, now_s=float(now_s)), NotYet)
    assert len(reads) == 1


def test_what_vanishes_or_becomes_a_folder_is_gone(tmp_path: Path) -> None:
    candidate = candidate_of(tmp_path / "a.png")
    assert settle(candidate, 0.0) == Gone()
    (tmp_path / "a.png").mkdir()
    assert settle(candidate, 0.0) == Gone()


def test_a_file_that_becomes_a_link_before_it_is_read_is_not_followed(tmp_path: Path) -> None:
    path = drop(tmp_path, "a.png", picture(1))
    candidate = candidate_of(path)
    stamp = settle(candidate, 0.0)
    assert stamp == stamp_of(path.lstat())
    path.rename(tmp_path / "b.png")
    path.symlink_to("b.png")
    assert isinstance(examine(candidate, stamp, limits=LIMITS, now_s=0.0), NotYet)
    assert isinstance(settle(candidate, 0.0), Ready)


def test_a_reservation_of_zeros_is_waited_for(tmp_path: Path) -> None:
    candidate = candidate_of(drop(tmp_path, "a.png", bytes(500)))
    stamp = settle(candidate, 0.0)
    assert stamp == stamp_of(candidate.path.lstat())
    assert isinstance(examine(candidate, stamp, limits=LIMITS, now_s=29.0), NotYet)
    failed = examine(candidate, stamp, limits=LIMITS, now_s=30.0)
    assert isinstance(failed, Ready)
    assert failed.problem == "nothing but zeros at its beginning after 30 s unchanged"


def test_a_picture_with_parts_that_were_never_written_is_waited_for(tmp_path: Path) -> None:
    """A BMP has its size before it has its rows where the writer reserves the room first, as copies by Explorer do."""
    data, path = picture(1, suffix=".bmp", side_px=64), tmp_path / "a.bmp"
    limits = Limits(max_bytes=100_000, max_pixels=10_000, unchanged_s=30.0)
    with path.open("wb") as file:
        file.write(data[:4096])
        file.truncate(len(data))
        file.flush()
        candidate = candidate_of(path, said=False)
        assert isinstance(settle(candidate, 0.0), NotYet)
        stamp = settle(candidate, 0.5)
        assert isinstance(stamp, Stamp)
        assert isinstance(examine(candidate, stamp, limits=limits, now_s=0.5), NotYet)
        assert isinstance(examine(candidate, stamp, limits=limits, now_s=29.0), NotYet)
        assert isinstance(examine(candidate, stamp, limits=limits, now_s=30.0), Ready)  # nobody goes on with it
        file.seek(4096)
        file.write(data[4096:])
    assert isinstance(settle(candidate, 31.0), NotYet)
    stamp = settle(candidate, 31.5)
    assert isinstance(stamp, Stamp)
    ready = examine(candidate, stamp, limits=limits, now_s=31.5)
    assert isinstance(ready, Ready)
    assert ready.data == data


def test_a_picture_that_is_said_to_be_written_may_have_holes(tmp_path: Path) -> None:
    data, path = picture(1, suffix=".bmp", side_px=64), tmp_path / "a.bmp"
    with path.open("wb") as file:
        file.write(data[:4096])
        file.truncate(len(data))
    candidate = candidate_of(path)
    stamp = settle(candidate, 0.0)
    assert isinstance(stamp, Stamp)
    limits = Limits(max_bytes=100_000, max_pixels=10_000, unchanged_s=30.0)
    assert isinstance(examine(candidate, stamp, limits=limits, now_s=0.0), Ready)
