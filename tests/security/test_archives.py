"""Backups that somebody has made to do harm, into ``station restore``: refused in one line, and nothing is changed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from station.backup import MANIFEST, SCHEMA
from station.commands import backup
from station.commands.backup import restore
from station.errors import BackupError

CONFIG = b'[station]\nname = "aoi-1"\n[source]\npath = "inbox"\n'
Members = list[tuple[tarfile.TarInfo, bytes]]


def member(name: str, data: bytes = b"", **more: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def listed(files: dict[str, bytes]) -> dict[str, dict[str, object]]:
    return {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}


def archived(path: Path, members: Members, *, manifest: object = None, about: dict[str, str] | None = None) -> Path:
    """An archive whose manifest tells the truth about *members*, unless another *manifest* is given."""
    document = {"schema": SCHEMA, "about": about or {}, "files": listed({info.name: data for info, data in members})}
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest or document).encode()
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as tar:
        for info, data in (member(MANIFEST, text), *members):
            tar.addfile(info, io.BytesIO(data) if info.size else None)
    return path


def refused(archive: Path, machine: Path, *, say_where: bool = True) -> str:
    """The words in which it is refused; nothing is on the *machine* then."""
    machine.mkdir(exist_ok=True)
    config, data_dir = (machine / "etc" / "station.toml", machine / "data") if say_where else (None, None)
    with pytest.raises(BackupError) as error:
        restore(archive, config=config, data_dir=data_dir, force=False, console=Console(quiet=True))
    left = [one for one in machine.rglob("*") if not one.is_dir() and one.name != ".lock"]
    assert left == []
    return str(error.value)


TOML = member("station.toml", CONFIG)
LINKS: dict[str, Members] = {
    "a symbolic link": [TOML, member("keys.json", type=tarfile.SYMTYPE, linkname="/etc/passwd")],
    "a hard link": [TOML, member("keys.json", type=tarfile.LNKTYPE, linkname="station.toml")],
    "a device": [TOML, member("keys.json", type=tarfile.BLKTYPE, devmajor=8)],
    "a pipe": [TOML, member("keys.json", type=tarfile.FIFOTYPE)],
    "a folder": [TOML, member("keys.json", type=tarfile.DIRTYPE)],
    "a folder that is a link": [
        TOML,
        member("models", type=tarfile.SYMTYPE, linkname="/tmp"),  # noqa: S108  # a name in an archive
        member("models/a", b"x"),
    ],
}


@pytest.mark.parametrize("what", LINKS)
def test_what_is_no_plain_file_is_never_made(tmp_path: Path, what: str) -> None:
    said = refused(archived(tmp_path / "b.tar.gz", LINKS[what]), tmp_path / "machine")
    assert "not the plain file" in said or "does not know" in said


NAMES = (
    "/etc/passwd",
    "../x",
    "models/../../x",
    "models//x",
    "models/./x",
    "models\\..\\x",
    "models/a\nb",
    "",
    "models/\x00",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_is_not_used(tmp_path: Path, name: str) -> None:
    files = {"station.toml": CONFIG, name: b"x"}
    document = {"schema": SCHEMA, "about": {}, "files": listed(files)}
    archive = archived(tmp_path / "b.tar.gz", [TOML, member(name, b"x")], manifest=document)
    assert "which no station writes" in refused(archive, tmp_path / "machine")


def test_a_member_twice_and_a_member_too_many_are_refused(tmp_path: Path) -> None:
    document = {"schema": SCHEMA, "about": {}, "files": listed({"station.toml": CONFIG, "keys.json": b"{}"})}
    for number, more in enumerate([[member("keys.json", b"{}")] * 2, [member("recipe.json", b"{}")] * 2]):
        archive = archived(tmp_path / f"{number}.tar.gz", [TOML, *more], manifest=document)
        said = refused(archive, tmp_path / "machine")
        assert "more than its manifest says" in said or "not where it should be" in said


BEGUN = b'{"schema": "station.backup/1", "about": {}, "files": '
MANIFESTS = {
    "a hundred thousand brackets": b"[" * 100_000,
    "an infinite size": BEGUN + b'{"station.toml": {"sha256": "", "bytes": 1e999}}}',
    "a size that is no number": BEGUN + b'{"station.toml": {"sha256": "", "bytes": NaN}}}',
    "a number of 5,000 digits": BEGUN + b'{"station.toml": {"sha256": "", "bytes": ' + b"9" * 5000 + b"}}}",
    "half a character": BEGUN + b'{"\\ud800": {"sha256": "", "bytes": 1}}}',
    "a list": b"[]",
    "nothing": b"null",
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_manifest_made_to_break_its_reader_is_a_clear_refusal(tmp_path: Path, what: str) -> None:
    said = refused(archived(tmp_path / "b.tar.gz", [TOML], manifest=MANIFESTS[what]), tmp_path / "machine")
    assert "manifest" in said or "which no station writes" in said


@pytest.mark.parametrize(
    "change", [lambda n: n + 1, lambda n: n - 1, lambda n: -n, lambda _: 2**62], ids=["+1", "-1", "<0", "2^62"]
)
def test_a_wrong_size_is_refused(tmp_path: Path, change: Callable[[int], int]) -> None:
    files = listed({"station.toml": CONFIG, "keys.json": b"{}"})
    files["keys.json"]["bytes"] = change(2)
    document = {"schema": SCHEMA, "about": {}, "files": files}
    archive = archived(tmp_path / "b.tar.gz", [TOML, member("keys.json", b"{}")], manifest=document)
    refused(archive, tmp_path / "machine")


def test_more_than_the_disk_has_room_for_is_refused_before_it_is_full(tmp_path: Path) -> None:
    """A kilobyte of archive can hold a terabyte of zeros: as a sparse member, or simply packed."""
    files = listed({"station.toml": CONFIG, "models/m": b""})
    files["models/m"]["bytes"] = 10**15
    document = {"schema": SCHEMA, "about": {}, "files": files}
    archive = archived(tmp_path / "b.tar.gz", [TOML, member("models/m", b"x")], manifest=document)
    assert "room for" in refused(archive, tmp_path / "machine")


def test_a_sparse_member_is_no_plain_file(tmp_path: Path) -> None:
    info, _ = member("models/m", type=tarfile.GNUTYPE_SPARSE)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % 10_000_000  # its real size, of which nothing is stored
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    files = listed({"station.toml": CONFIG, "models/m": b"\0" * 10_000_000})
    text = json.dumps({"schema": SCHEMA, "about": {}, "files": files}).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for plain, data in (member(MANIFEST, text), TOML):
            tar.addfile(plain, io.BytesIO(data))
    body = out.getvalue()
    end = -(-(1024 + -(-len(text) // 512) * 512 + 512) // 512) * 512  # after the two members
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(body[:end] + bytes(header) + b"\0" * 1024))
    assert "not the plain file" in refused(tmp_path / "b.tar.gz", tmp_path / "machine")


def test_a_header_that_claims_gigabytes_is_not_taken_into_memory(tmp_path: Path) -> None:
    info, _ = member("././@LongLink", type=tarfile.GNUTYPE_LONGNAME)
    info.size = 300_000_000
    archive = tmp_path / "b.tar.gz"
    with gzip.open(archive, "wb", compresslevel=1) as out:
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(300):
            out.write(b"a" * 1_000_000)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "header of 300000000 bytes" in refused(archive, tmp_path / "machine")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before_kb + 50_000


@pytest.mark.parametrize(
    "place", ["/etc/cron.d/station", "/etc/station/../cron.d/x", "/etc/profile.d/a.toml", "/etc/station"]
)
def test_an_archive_cannot_choose_where_root_writes_its_configuration(tmp_path: Path, place: str) -> None:
    archive = archived(tmp_path / "b.tar.gz", [TOML], about={"config": place})
    assert "say it with -c FILE" in refused(archive, tmp_path / "machine", say_where=False)


def test_an_archive_cannot_choose_a_data_folder_by_which_its_files_come_to_lie_anywhere(tmp_path: Path) -> None:
    config = CONFIG.replace(b"[source]", b'data_dir = "/etc/cron.d"\n[source]')
    archive = archived(
        tmp_path / "b.tar.gz", [member("station.toml", config)], about={"config": "/etc/station/aoi-1.toml"}
    )
    assert "say it with --data-dir DIR" in refused(archive, tmp_path / "machine", say_where=False)


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("stands_in", ["/", "", "etc", "var/lib"])
def test_standing_above_the_stations_places_opens_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stands_in: str, user: int
) -> None:
    """Cron, a container, ``ssh root@line "cd / && ..."``: all that there is lies below /."""
    machine = tmp_path / "machine"
    for folder in ("etc", "var/lib"):
        (machine / folder).mkdir(parents=True)
    monkeypatch.setattr(backup, "PLACES", (machine / "etc" / "station", machine / "var" / "lib" / "station"))
    monkeypatch.chdir(machine / stands_in)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    own, foreign = machine / "etc" / "station", machine / stands_in.strip("/") / "cron.d" / "x"
    for config, data_dir, option in ((foreign, own / "data", "-c FILE"), (own / "a.toml", foreign, "--data-dir DIR")):
        text = CONFIG.replace(b"[source]", f'data_dir = "{data_dir}"\n[source]'.encode())
        archive = archived(tmp_path / "b.tar.gz", [member("station.toml", text)], about={"config": str(config)})
        assert f"say it with {option}" in refused(archive, machine, say_where=False)


def test_where_root_stands_is_not_opened_to_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``ssh root@line`` stands in /root, whose ``.profile`` the next login runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    archive = archived(tmp_path / "b.tar.gz", [TOML], about={"config": str(tmp_path / "machine" / ".profile")})
    assert "say it with -c FILE" in refused(archive, tmp_path / "machine", say_where=False)


def test_anybody_else_restores_a_project_into_the_folder_they_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    config = CONFIG.replace(b"[source]", b'data_dir = "data"\n[source]')
    archive = archived(
        tmp_path / "b.tar.gz", [member("station.toml", config)], about={"config": str(tmp_path / "aoi.toml")}
    )
    restore(archive, config=None, data_dir=None, force=False, console=Console(quiet=True))
    assert (tmp_path / "aoi.toml").read_bytes() == config
    assert (tmp_path / "data").is_dir()


@pytest.mark.parametrize("inside", ["link/x.toml", "link/../x.toml", ".ssh/x.toml", ".profile"])
def test_a_link_or_a_hidden_name_inside_a_place_is_not_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    place, outside = tmp_path / "place", tmp_path / "outside"
    place.mkdir()
    outside.mkdir()
    (place / "link").symlink_to(outside / "below")
    monkeypatch.setattr(backup, "PLACES", (place,))
    archive = archived(tmp_path / "b.tar.gz", [TOML], about={"config": str(place / inside)})
    assert "say it with -c FILE" in refused(archive, tmp_path / "machine", say_where=False)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("board.png", True),
        ("recipes/board.png", True),
        ("sitecustomize.py", False),
        ("aoi-1.env", False),
        ("aoi-2.toml", False),
        (".bash_profile", False),
        ("link/board.png", False),
    ],
)
def test_a_named_file_goes_where_it_is_named_only_if_nothing_runs_it_there(
    tmp_path: Path, name: str, own: bool
) -> None:
    home = tmp_path / "machine"
    home.mkdir()
    (home / "link").symlink_to(tmp_path / "outside")
    template = home / name
    text = CONFIG + f'[recipe]\ntemplate = "{template}"\n'.encode()
    members = [member("station.toml", text), member("files/recipe.template", b"\x89PNG")]
    archive = archived(tmp_path / "b.tar.gz", members)
    restore(archive, config=home / "aoi.toml", data_dir=home / "data", force=False, console=Console(quiet=True))
    assert template.exists() == own
    assert (home / "data" / "restored" / template.name).exists() != own
