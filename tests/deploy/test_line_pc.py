"""What a line PC gets besides the service: firewall, lasting device names, a journal that is kept."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.deploy.servers import DEPLOY, ROOT, program, run
from tests.test_systemd import installed

SYSTEMD = ROOT / "systemd"
FIREWALL = DEPLOY / "firewall.nft"


def test_nftables_understands_the_firewall() -> None:
    nft = program("nft")
    if os.geteuid() != 0:
        pytest.skip("nft looks at rules as root only")
    said = run(nft, "-c", "-f", FIREWALL)
    assert said.returncode == 0, said.stderr


def test_the_firewall_lets_nothing_in_that_it_does_not_name() -> None:
    text = FIREWALL.read_text()
    assert "hook input priority filter; policy drop;" in text
    opened = re.findall(r"(?m)^ *(.*tcp dport .*) accept$", text)
    assert len(opened) == 5
    assert all("saddr $" in one for one in opened)  # each for named addresses only


def test_the_journal_is_kept_and_bounded_by_keys_that_journald_knows() -> None:
    set_here = dict(re.findall(r"(?m)^(\w+)=(.*)$", (SYSTEMD / "station-journald.conf").read_text()))
    assert set_here["Storage"] == "persistent"
    assert {"SystemMaxUse", "MaxRetentionSec"} <= set(set_here)
    shipped = Path("/etc/systemd/journald.conf")
    if not shipped.exists():
        pytest.skip("systemd's own journald.conf, which lists its keys, is not here")
    assert set(set_here) <= set(re.findall(r"(?m)^#?(\w+)=", shipped.read_text()))


def test_the_device_names_are_below_one_folder_and_each_is_given_once() -> None:
    rules = [line for line in (SYSTEMD / "station-udev.rules").read_text().splitlines() if line and line[0] != "#"]
    for rule in rules:
        for part in rule.split(", "):
            assert re.fullmatch(r'[A-Z]+(\{\w+\})?(==|\+=|=)"[^"]+"', part), part
    names = [name for rule in rules for name in re.findall(r'SYMLINK\+="([^"]+)"', rule)]
    assert len(set(names)) == len(names) == 4
    assert all(name.startswith("station/") for name in names)


def test_an_instance_that_serves_is_a_unit_that_systemd_understands(tmp_path: Path) -> None:
    unit = installed(tmp_path, "station-serve.conf")
    drop_in = tmp_path / "station@.service.d" / "station-serve.conf"
    drop_in.write_text(drop_in.read_text().replace("/opt/station/venv/bin/station", "/bin/true"))
    said = run(program("systemd-analyze"), "verify", "--man=no", unit)
    assert said.returncode == 0, said.stderr
    assert "station" not in said.stderr
