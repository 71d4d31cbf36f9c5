"""Who may read and write what a station leaves on the disk, and that no crash leaves its memory there."""

from __future__ import annotations

import resource
import stat
from pathlib import Path

import cv2
import httpx
import pytest

from tests.daemon import PATIENCE_S, Daemon, Overrides, drop, encoded, picture
from tests.security.processes import with_children
from tests.waiting import until

OWNERS_ALONE = (
    "ledger.db",
    "ledger.db-wal",
    "ledger.db-shm",
    "keys.json",
    "jwt-secret",
    "triggers.db",
    "backup.tar.gz",
)
BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def with_umask(mask: int) -> list[str]:
    """The program, as a shell with that umask starts it."""
    return ["-c", f"import os; os.umask({mask:#o}); from station.cli import main; main()"]


def loose(folder: Path) -> list[str]:
    """What in *folder* others may write, and what others may read that is the owner's alone."""
    found = []
    for one in (folder, *folder.rglob("*")):
        mode = one.lstat().st_mode
        open_to = stat.S_IRWXG | stat.S_IRWXO if one.name in OWNERS_ALONE else BY_OTHERS
        if mode & open_to:
            found.append(f"{one} {stat.filemode(mode)}")
    return found


@pytest.mark.parametrize("mask", [0o000, pytest.param(0o022, marks=pytest.mark.long)], ids=oct)
def test_nobody_else_may_write_what_a_folder_station_leaves(tmp_path: Path, mask: int) -> None:
    changes: Overrides = {"mqtt": {"enabled": False}, "evidence": {"keep": "all"}, "detector": {"model": "store"}}
    with Daemon(tmp_path / "station", changes=changes, program=with_umask(mask)) as station:
        for words in (("import", str(station.folder / "tiny.onnx"), "--name", "line-3"), ("use", "line-3")):
            assert station.call("model", *words).returncode == 0
        station.start()
        drop(station.inbox, "board.png", encoded(picture(1)))
        drop(station.inbox, "broken.png", encoded(picture(2))[:-100])
        (station.inbox / "link.png").symlink_to(station.config)
        until(lambda: list(station.data_dir.rglob("*.jpg")), within_s=PATIENCE_S, what="evidence")
        until(lambda: list((station.inbox / "failed").glob("link.png*")), within_s=PATIENCE_S, what="a refusal")
        assert loose(station.data_dir) == []
        ours = [station.inbox / name for name in ("done", "failed", "processing")]
        assert [one for folder in ours for one in loose(folder) if "link.png " not in one] == []
        assert station.stop() == 0
        assert loose(station.data_dir) == []


@pytest.mark.parametrize("mask", [0o000, pytest.param(0o022, marks=pytest.mark.long)], ids=oct)
def test_keys_secrets_triggers_and_backups_are_their_owners_alone(tmp_path: Path, mask: int) -> None:
    (tmp_path / "camera").mkdir()
    cv2.imwrite(str(tmp_path / "camera" / "0.png"), picture(1))
    changes: Overrides = {
        "mqtt": {"enabled": False},
        "http": {"auth": "required"},
        "source": {"kind": "camera", "device": str(tmp_path / "camera"), "frozen_s": 0, "path": None, "scan_s": None},
        "trigger": {"kind": "http"},
    }
    with Daemon(tmp_path / "station", changes=changes, program=with_umask(mask)) as station:
        station.data_dir.mkdir()
        station.data_dir.chmod(0o755)
        key = station.call("key", "create", "plc", "--scope", "command", "--scope", "read").stdout.strip()
        assert station.call("token", "create", "plc", "--scope", "read").returncode == 0
        station.start()
        url = f"http://127.0.0.1:{station.http_port}/command/trigger"
        said = httpx.post(url, json={}, headers={"X-API-Key": key}, timeout=PATIENCE_S, trust_env=False)
        assert said.status_code == httpx.codes.OK, said.text
        assert station.call("backup", "--secrets", str(station.data_dir / "backup.tar.gz")).returncode == 0
        assert {one.name for one in station.data_dir.iterdir()} >= set(OWNERS_ALONE)
        assert loose(station.data_dir) == []
        done = station.call(
            "restore", str(station.data_dir / "backup.tar.gz"), "--data-dir", str(tmp_path / "new"), "--force"
        )
        assert done.returncode == 0, done.stderr
        assert {one.name for one in (tmp_path / "new").iterdir()} >= {"ledger.db", "keys.json", "jwt-secret"}
        assert loose(tmp_path / "new") == []


def test_a_crash_leaves_no_core_of_the_station_or_of_its_children(tmp_path: Path) -> None:
    (tmp_path / "camera").mkdir()
    cv2.imwrite(str(tmp_path / "camera" / "0.png"), picture(1))
    changes: Overrides = {
        "mqtt": {"enabled": False},
        "source": {"kind": "camera", "device": str(tmp_path / "camera"), "frozen_s": 0, "path": None, "scan_s": None},
        "trigger": {"kind": "http"},
    }
    generous = "import resource as r; r.setrlimit(r.RLIMIT_CORE, (r.getrlimit(r.RLIMIT_CORE)[1],) * 2); "
    program = ["-c", f"{generous}from station.cli import main; main()"]
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("nothing here may leave a core anyway")
    with Daemon(tmp_path / "station", changes=changes, program=program) as station:
        station.start()
        pids = with_children(station.process.pid)
        assert len(pids) > 1, "the camera has a process of its own"
        for pid in pids:
            line = next(one for one in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in one)
            assert line.split()[4] == "0", line
