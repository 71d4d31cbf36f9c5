"""The archive of a backup: whole or not there, and nothing in it is believed."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from station.backup import MANIFEST, open_archive, write_archive
from station.errors import BackupError


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "one").write_bytes(b"first" * 1000)
    (tmp_path / "two").write_bytes(b"")
    return {"station.toml": tmp_path / "one", "models/a b/model.onnx": tmp_path / "two"}


def read(archive: Path, into: Path) -> bytes:
    with open_archive(archive) as opened:
        first = opened.read_next("station.toml", most_bytes=10_000)
        opened.extract_rest(into, after=1)
    return first


def rewritten(archive: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> Path:
    """The archive with its members changed, and no sums made right."""
    with tarfile.open(archive) as tar:
        members = [(one, b"" if (file := tar.extractfile(one)) is None else file.read()) for one in tar.getmembers()]
    change(members)
    with tarfile.open(archive, "w:gz") as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive


def test_what_was_archived_comes_back_for_its_owner_only(tmp_path: Path, files: dict[str, Path]) -> None:
    target = tmp_path / "b.tar.gz"
    write_archive(target, files, about={"station": "aoi-1"}, replace=False)
    assert target.stat().st_mode & 0o777 == 0o600
    out = tmp_path / "out"
    out.mkdir()
    assert read(target, out) == b"first" * 1000
    restored = out / "models" / "a b" / "model.onnx"
    assert restored.read_bytes() == b""
    assert restored.stat().st_mode & 0o777 == 0o600


def test_a_backup_that_is_there_is_replaced_only_when_that_is_said(tmp_path: Path, files: dict[str, Path]) -> None:
    target = tmp_path / "b.tar.gz"
    target.write_text("precious")
    with pytest.raises(BackupError, match="--force"):
        write_archive(target, files, about={}, replace=False)
    assert target.read_text() == "precious"
    write_archive(target, files, about={}, replace=True)
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_backup_that_cannot_be_written_leaves_nothing(tmp_path: Path, files: dict[str, Path]) -> None:
    files["models/gone"] = tmp_path / "gone"
    with pytest.raises(BackupError, match="No such file"):
        write_archive(tmp_path / "b.tar.gz", files, about={}, replace=False)
    with pytest.raises(BackupError, match="cannot be written"):
        write_archive(tmp_path / "no" / "b.tar.gz", {}, about={}, replace=False)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["one", "two"]


def test_a_name_that_could_leave_the_folder_is_not_even_written(tmp_path: Path, files: dict[str, Path]) -> None:
    for name in ("../x", "/etc/passwd", "a/../../b", "a//b", "a\\b", ".", "a/..", "a\nb", ""):
        with pytest.raises(BackupError, match="cannot hold"):
            write_archive(tmp_path / "b.tar.gz", {name: files["station.toml"]}, about={}, replace=False)


def _rename_in_manifest(name: str) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        document = json.loads(members[0][1])
        document["files"][name] = document["files"].pop("models/a b/model.onnx")
        members[0] = (members[0][0], json.dumps(document).encode())
        members[2][0].name = name

    return change


def _link(kind: bytes) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[2][0].type = kind
        members[2][0].linkname = "/etc/passwd"

    return change


def _more(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.append((tarfile.TarInfo("extra"), b"x"))


def _less(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.pop()


def _other_bytes(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[1] = (members[1][0], b"FIRST" * 1000)


def _longer(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[2] = (members[2][0], b"longer than the manifest says")


def _no_manifest(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members.pop(0)


def _manifest_of(text: bytes) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        members[0] = (members[0][0], text)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_rename_in_manifest("../escaped"), "no station writes"),
        (_rename_in_manifest("/absolute"), "no station writes"),
        (_rename_in_manifest("models/../../escaped"), "no station writes"),
        (_link(tarfile.SYMTYPE), "not the plain file"),
        (_link(tarfile.LNKTYPE), "not the plain file"),
        (_link(tarfile.CHRTYPE), "not the plain file"),
        (_more, "more than its manifest"),
        (_less, "cut off"),
        (_other_bytes, "damaged"),
        (_longer, "not the plain file"),
        (_no_manifest, "begin with a manifest"),
        (_manifest_of(b"{"), "manifest is damaged"),
        (_manifest_of(b"[]"), "manifest is damaged"),
        (_manifest_of(b'{"schema": "station.backup/9"}'), "station.backup/9"),
    ],
)
def test_an_archive_that_is_not_what_it_says_is_refused(
    tmp_path: Path,
    files: dict[str, Path],
    change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None],
    words: str,
) -> None:
    target = tmp_path / "b.tar.gz"
    write_archive(target, files, about={}, replace=False)
    out = tmp_path / "in" / "out"
    out.mkdir(parents=True)
    with pytest.raises(BackupError, match=words):
        read(rewritten(target, change), out)
    assert [one.name for one in (tmp_path / "in").iterdir()] == ["out"]


def test_any_cut_and_any_other_file_is_a_clear_refusal(tmp_path: Path, files: dict[str, Path]) -> None:
    target, broken = tmp_path / "b.tar.gz", tmp_path / "broken"
    write_archive(target, files, about={}, replace=False)
    whole = target.read_bytes()
    cuts = (whole[:size] for size in range(10, len(whole) // 2, 23))
    for number, data in enumerate([b"", b"PK", b"\x1f\x8b", *cuts]):
        broken.write_bytes(data)
        out = tmp_path / f"out{number}"
        out.mkdir()
        with pytest.raises(BackupError):
            read(broken, out)
    with pytest.raises(BackupError, match="No such file"):
        read(tmp_path / "nowhere", tmp_path)


def test_the_manifest_comes_first(tmp_path: Path, files: dict[str, Path]) -> None:
    write_archive(tmp_path / "b.tar.gz", files, about={}, replace=False)
    with tarfile.open(tmp_path / "b.tar.gz") as tar:
        assert tar.getnames() == [MANIFEST, *files]
