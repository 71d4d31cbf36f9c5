"""What a station runs on: pinned to the byte, listed with its licence, and free of what would bind its users."""

from __future__ import annotations

import re
import sys

import pytest

from tests.deploy.servers import ROOT, run


@pytest.mark.parametrize("name", ["run", "demo", "dev", "build"])
def test_every_locked_package_is_pinned_to_the_bytes_that_were_tested(name: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements" / f"{name}.lock").read_text().strip())
    assert len(entries) > 5
    for entry in entries:
        assert re.match(r"[a-z0-9._-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry
        assert "://" not in entry, "a package comes from the index, not from an address"


def test_pip_is_told_to_install_nothing_without_its_checksum() -> None:
    for script in ("scripts/lib.sh", "scripts/install", "Dockerfile"):
        assert "--require-hashes" in (ROOT / script).read_text(), script


def listed(text: str) -> list[tuple[str, ...]]:
    """(package, version, licence), without the table's head."""
    return [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in text.splitlines() if line[:2] == "| "][1:]


def test_the_list_of_dependencies_is_the_locks() -> None:
    printed = run(sys.executable, ROOT / "scripts" / "dependencies.py")
    assert printed.returncode == 0, printed.stderr
    kept = listed((ROOT / "requirements" / "LICENCES.md").read_text())
    assert len(kept) > 40
    assert [one[:2] for one in kept] == [one[:2] for one in listed(printed.stdout)]


def test_nothing_that_a_station_needs_binds_its_users() -> None:
    kept = listed((ROOT / "requirements" / "LICENCES.md").read_text())
    assert [(package, licence) for package, _, licence in kept if "GPL" in licence or not licence] == []
