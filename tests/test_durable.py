"""Files that are whole or not there, and moves that overwrite nothing."""

from __future__ import annotations

import ctypes
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from station import durable
from station.disk import make_directory
from station.durable import keep_secret, read_kept, rename_exclusive, replace_file, write_kept


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


def test_a_file_is_replaced_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    make_directory(tmp_path / "x/y")
    path = tmp_path / "x/y/counter"
    for content in (b"1", b"2"):
        replace_file(path, content)
    assert path.read_bytes() == b"2"
    assert list(path.parent.iterdir()) == [path]


def test_a_kept_document_is_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    for number in range(3):
        write_kept(path, {"number": number})
        assert read_kept(path) == {"number": number}
    assert [one.name for one in tmp_path.iterdir()] == ["kept.json"]


def test_a_secret_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    keep_secret(tmp_path / "secret", "first")
    keep_secret(tmp_path / "secret", "second")
    assert (tmp_path / "secret").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_a_disk_that_is_full_leaves_the_old_file_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept"
    replace_file(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("kept", b"old")]


def test_two_that_replace_one_file_at_a_time_do_not_write_into_each_others_draft(tmp_path: Path) -> None:
    path, contents = tmp_path / "kept", [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: replace_file(path, content, synced=False), contents * 5))
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("private", "mode"), [(False, 0o640), (True, 0o600)])
def test_who_may_read_it_is_said_by_the_umask_or_nobody_else_may(tmp_path: Path, private: bool, mode: int) -> None:
    before = os.umask(0o027)  # the unit's
    try:
        replace_file(tmp_path / "kept", b"", private=private)
    finally:
        os.umask(before)
    assert (tmp_path / "kept").stat().st_mode & 0o777 == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_writes_for_the_service_is_the_services(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    for name, adopted in (("theirs", True), ("ours", False)):
        replace_file(tmp_path / name, b"", adopted=adopted)
    keep_secret(tmp_path / "secret", "hush")
    owners = {one.name: (one.stat().st_uid, one.stat().st_gid) for one in tmp_path.iterdir()}
    assert owners == {"theirs": (12345, 12346), "secret": (12345, 12346), "ours": (os.getuid(), os.getgid())}
