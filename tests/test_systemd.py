"""The unit as systemd reads it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parent.parent / "systemd"
EXPOSURE_LIMIT = 1.5  # 10 is a service without any protection; common daemons stand at 9


def tool(name: str) -> str:
    """Where *name* is. On a laptop without systemd the test is skipped; in CI it must run."""
    found = shutil.which(name)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is missing, and in CI it must be there")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run(*command: str) -> str:
    """What *command* said on both streams. Fails the test when it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def installed(tmp_path: Path, drop_in: str | None) -> Path:
    """The unit in a folder of its own, its program one that is there, and *drop_in* beside it as that file says."""
    text = (SYSTEMD / "station@.service").read_text()
    unit = tmp_path / "station@.service"
    unit.write_text(text.replace("/opt/station/venv/bin/station", "/bin/true"))
    if drop_in is not None:
        folder = tmp_path / "station@.service.d"
        folder.mkdir()
        shutil.copy(SYSTEMD / drop_in, folder)
    return unit


DROP_INS = pytest.mark.parametrize("drop_in", [None, "station-gpu.conf", "station-network.conf"])


@DROP_INS
def test_the_unit_is_exposed_to_at_most_the_limit(tmp_path: Path, drop_in: str | None) -> None:
    unit = installed(tmp_path, drop_in)
    said = run(tool("systemd-analyze"), "security", "--offline=true", "--no-pager", str(unit))
    overall = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", said)
    assert overall, said
    assert float(overall[1]) <= EXPOSURE_LIMIT, said


@DROP_INS
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path, drop_in: str | None) -> None:
    unit = installed(tmp_path, drop_in)
    assert str(unit) not in run(tool("systemd-analyze"), "verify", "--man=no", str(unit))


def test_the_unit_keeps_what_the_program_relies_on() -> None:
    lines = (SYSTEMD / "station@.service").read_text().splitlines()
    for line in (
        "Type=notify",
        "NotifyAccess=main",
        "ExecStart=/opt/station/venv/bin/station run -c /etc/station/%i.toml",
        "User=station",
        "StateDirectory=station/%i",
        "WatchdogSec=30",
        "Restart=always",
        "RestartPreventExitStatus=2",
        "StartLimitIntervalSec=0",
        "LimitCORE=0",
    ):
        assert line in lines


def test_systemd_would_make_the_user_and_its_groups(tmp_path: Path) -> None:
    said = run(
        tool("systemd-sysusers"), "--dry-run", f"--root={tmp_path}", str(SYSTEMD / "sysusers.d" / "station.conf")
    )
    assert "Creating user 'station'" in said
    for group in ("dialout", "video"):
        assert f"group '{group}'" in said
