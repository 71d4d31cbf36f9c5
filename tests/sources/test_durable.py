from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from station.disk import make_directory
from station.sources import durable
from station.sources.durable import rename_exclusive, write_whole


def no_renameat2(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(durable, "_renameat2", refuse)


def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    no_renameat2(monkeypatch)
    monkeypatch.setattr(os, "link", refuse)


@pytest.fixture(params=["renameat2", "links", "neither"])
def _file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local one, one that does not know the flag, and one that has no hard links either."""
    if request.param == "links":
        no_renameat2(monkeypatch)
    elif request.param == "neither":
        no_links(monkeypatch)


@pytest.mark.usefixtures("_file_system")
def test_a_file_is_moved_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("1")
    rename_exclusive(source, target)
    assert (source.exists(), target.read_text()) == (False, "1")


@pytest.mark.usefixtures("_file_system")
def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("1")
    target.write_text("2")
    with pytest.raises(FileExistsError):
        rename_exclusive(source, target)
    assert (source.read_text(), target.read_text()) == ("1", "2")


@pytest.mark.usefixtures("_file_system")
def test_a_link_is_moved_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nowhere")
    rename_exclusive(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").is_symlink()
    (tmp_path / "c").write_text("1")
    with pytest.raises(FileExistsError):
        rename_exclusive(tmp_path / "c", tmp_path / "b")


@pytest.mark.usefixtures("_file_system")
def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        rename_exclusive(tmp_path / "a", tmp_path / "b")


def test_a_move_by_links_that_a_crash_cut_in_half_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_renameat2(monkeypatch)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("1")
    os.link(source, target)
    rename_exclusive(source, target)
    assert (source.exists(), target.read_text()) == (False, "1")


def test_a_text_is_replaced_whole(tmp_path: Path) -> None:
    make_directory(tmp_path / "x/y")
    path = tmp_path / "x/y/counter"
    for text in ("1", "2"):
        write_whole(path, text)
    assert path.read_text() == "2"
    assert list(path.parent.iterdir()) == [path]
