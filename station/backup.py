"""
The archive of a backup: a gzipped tar that begins with a manifest of all that follows. Nothing in it is believed.

    manifest.json   {"schema": "station.backup/1", "about": {...}, "files": {NAME: {"sha256": ..., "bytes": ...}}}
    NAME ...        the files, in the manifest's order
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from station.disk import sync_directory
from station.errors import BackupError

SCHEMA = "station.backup/1"
MANIFEST = "manifest.json"
MANIFEST_BYTES = 10_000_000
CHUNK_BYTES = 1 << 20
HEADER_BYTES = 1 << 20  # of a long name or the like: tarfile takes it into memory, whatever size it claims
# Names are ours: plain parts, none of them ".." or "."; so none is absolute either, and none holds a backslash.
NAME = re.compile(r"(?!\.{1,2}(/|$))[A-Za-z0-9._~ +@=-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9._~ +@=-]+)*")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive, as its manifest has it."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive says that it holds; *about* is what its maker wanted to say."""

    about: Mapping[str, object]
    files: tuple[Member, ...]


def write_archive(target: Path, files: Mapping[str, Path], *, about: Mapping[str, object], replace: bool) -> Manifest:
    """
    Writes *files* (by their name in the archive) into *target*, readable for its owner only; whole, or not there.

    The files must not change meanwhile. Raises BackupError, also when *target* is there and *replace* is not said.
    """
    if target.exists() and not replace:
        raise BackupError(f"{target} is there already: choose another name, or say --force")
    draft = target.with_name(f".{target.name}.part")
    try:
        manifest = Manifest(about, tuple(_member(name, path) for name, path in files.items()))
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out:
                _write(out, manifest, files)
                out.flush()
                os.fsync(out.fileno())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        sync_directory(target.parent)
    except OSError as error:
        raise BackupError(f"the backup {target} cannot be written: {error.strerror or error}") from None
    return manifest


class Archive:
    """An archive that is being read, from its beginning to its end; ``open_archive`` makes it."""

    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self._path = path
        self._tar = tar
        self.manifest = self._read_manifest()

    def read_next(self, name: str, *, most_bytes: int) -> bytes:
        """The next file, which must be *name*, in memory. Raises BackupError."""
        member = self._member_of(name)
        if member.bytes > most_bytes:
            raise BackupError(
                f"{self._path}: {name} is larger than anything of its kind: this is no backup of a station"
            )
        into = io.BytesIO()
        self._copy_next(member, into)
        return into.getvalue()

    def extract_rest(self, folder: Path, *, after: int) -> None:
        """
        All files but the first *after* into the empty *folder*, checked and synced, for their owner only.

        Raises BackupError for a file that is not what the manifest says; OSError is the caller's.
        """
        needed, free = sum(one.bytes for one in self.manifest.files[after:]), shutil.disk_usage(folder).free
        if needed > free:
            raise BackupError(
                f"{self._path} holds {needed / 1e6:.0f} MB, and {folder.parent} has room for {free / 1e6:.0f} MB"
            )
        for member in self.manifest.files[after:]:
            path = folder / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                self._copy_next(member, out)
                out.flush()
                os.fsync(out.fileno())
        if self._next() is not None:
            raise BackupError(f"{self._path} holds more than its manifest says: it is not used")

    def _read_manifest(self) -> Manifest:
        found = self._next()
        if found is None or found.name != MANIFEST or not found.isreg() or found.size > MANIFEST_BYTES:
            raise BackupError(f"{self._path} does not begin with a manifest: it is no backup of a station")
        stream = self._tar.extractfile(found)
        data = b"" if stream is None else stream.read()
        try:
            document = json.loads(data)
            if document["schema"] != SCHEMA:
                raise BackupError(f"{self._path} is a {document['schema']}, this station reads {SCHEMA}: update it")
            files = tuple(
                Member(name, str(one["sha256"]), int(one["bytes"])) for name, one in document["files"].items()
            )
            about = dict(document["about"])
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise BackupError(f"{self._path}: its manifest is damaged: use another backup") from None
        for member in files:
            if not NAME.fullmatch(member.name):
                raise BackupError(f"{self._path} names a file {member.name!r}, which no station writes: it is not used")
        return Manifest(about, files)

    def _member_of(self, name: str) -> Member:
        member = next((one for one in self.manifest.files if one.name == name), None)
        if member is None:
            raise BackupError(f"{self._path} has no {name}: it is no backup of a station")
        return member

    def _copy_next(self, member: Member, out: IO[bytes]) -> None:
        found = self._next()
        if found is None or found.name != member.name:
            raise BackupError(f"{self._path} is cut off or disordered: {member.name} is not where it should be")
        if (
            not found.isreg() or found.issparse() or found.size != member.bytes
        ):  # a link would be followed, a device opened
            raise BackupError(
                f"{self._path}: {member.name} is not the plain file that the manifest says: it is not used"
            )
        stream, digest = self._tar.extractfile(found), hashlib.sha256()
        while stream is not None and (chunk := stream.read(CHUNK_BYTES)):
            digest.update(chunk)
            out.write(chunk)
        if digest.hexdigest() != member.sha256:
            raise BackupError(f"{self._path}: {member.name} is damaged (its checksum is wrong): use another backup")

    def _next(self) -> tarfile.TarInfo | None:
        return self._tar.next()


class _BoundedInfo(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _BoundedInfo:
        info = super().frombuf(buf, encoding, errors)
        if info.type not in tarfile.REGULAR_TYPES and info.size > HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Opens *path* and reads its manifest. Raises BackupError for what is no whole archive, also while it is read."""
    try:
        with tarfile.open(path, "r|gz", tarinfo=_BoundedInfo) as tar:
            yield Archive(path, tar)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise BackupError(f"{path} is damaged or no backup of a station: {error}") from None
    except OSError as error:
        if error.errno is None:  # gzip's own: BadGzipFile
            raise BackupError(f"{path} is damaged or no backup of a station: {error}") from None
        raise BackupError(f"{error.filename or path}: {error.strerror}") from None


def _write(out: IO[bytes], manifest: Manifest, files: Mapping[str, Path]) -> None:
    listed = {one.name: {"sha256": one.sha256, "bytes": one.bytes} for one in manifest.files}
    text = json.dumps({"schema": SCHEMA, "about": manifest.about, "files": listed}, indent=1).encode()
    # Models hardly shrink, and a ledger does at once: the fastest level gives nearly all there is to gain.
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        tar.addfile(_info(MANIFEST, len(text)), io.BytesIO(text))
        for member in manifest.files:
            with files[member.name].open("rb") as file:
                tar.addfile(_info(member.name, member.bytes), file)


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


def _member(name: str, path: Path) -> Member:
    if not NAME.fullmatch(name):
        raise BackupError(f"{path}: a backup cannot hold a file of the name {name!r}: rename it")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
        return Member(name, digest.hexdigest(), file.tell())
