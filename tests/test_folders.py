"""The folders of a station: made, kept apart, and each held by one station."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from station.errors import ConfigError
from station.folders import check_apart, is_locked, lock_folder, lock_inbox, make_folder


def test_a_folder_that_cannot_be_made_names_its_key(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b", "[station] data_dir").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"\[station\] data_dir = .*/file/data"):
        make_folder(tmp_path / "file" / "data", "[station] data_dir")


def test_an_inbox_that_is_made_is_logged_and_one_that_is_there_is_not(tmp_path: Path) -> None:
    with capture_logs() as logs:
        make_folder(tmp_path / "data", "[station] data_dir")
        make_folder(tmp_path, "[source] path")
        make_folder(tmp_path / "inbx", "[source] path")
        make_folder(tmp_path / "inbx", "[source] path")
    assert logs == [{"event": "inbox made", "log_level": "info", "path": f"{tmp_path}/inbx"}]


@pytest.mark.parametrize(("data", "inbox"), [("a", "a"), ("a/data", "a"), ("a", "a/evidence"), ("a", "link/evidence")])
def test_a_station_never_inspects_what_it_writes_itself(tmp_path: Path, data: str, inbox: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match="choose a folder beside it"):
        check_apart(tmp_path / data, tmp_path / inbox)
    check_apart(tmp_path / "a/data", tmp_path / "a/inbox")


def test_a_data_folder_belongs_to_one_station_until_that_ends(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert not list(tmp_path.iterdir()), "to ask makes nothing"
    with lock_folder(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(ConfigError, match="another station that runs uses it"):
            lock_folder(tmp_path)
    assert not is_locked(tmp_path)
    lock_folder(tmp_path).close()


def test_a_data_folder_that_cannot_be_locked_says_why(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(ConfigError, match=r"\.lock cannot be opened and locked: Is a directory"):
        lock_folder(tmp_path)


def test_an_inbox_belongs_to_one_station_and_nothing_is_written_there(tmp_path: Path) -> None:
    ours = lock_inbox(tmp_path)
    assert ours is not None
    with pytest.raises(ConfigError, match="another station that runs takes boards from it"):
        lock_inbox(tmp_path)
    os.close(ours)
    assert not list(tmp_path.iterdir())
    assert lock_inbox(tmp_path / "away") is None
