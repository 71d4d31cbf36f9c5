"""
A model of a disk that loses power: which states can be left of a recorded run.

Files are inodes, and folders are tables of names, as POSIX promises them and no more: bytes are kept once their file
was synced, names once their folder was. What was not may be lost or kept, each change for itself, and a write may end
in its middle. A rename is one change, kept when either of its folders was synced: journalling file systems do that.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HEAD = struct.Struct("=cIIIq")
SECTOR = 512
NAMES = frozenset("crulm")  # changes of names: create, rename, unlink, link, make a folder


@dataclass(frozen=True, slots=True)
class Op:
    """One call. *kind*: a NAMES letter, ``w``rite, ``t``runcate, ``f``sync, m``a``p, or ``s``aid to the outside."""

    kind: str
    path: str
    second: str
    at: int
    data: bytes


def read(path: Path) -> list[Op]:
    """What the recorder wrote."""
    blob = path.read_bytes()
    found, here = [], 0
    while here < len(blob):
        kind, first, second, size, at = HEAD.unpack_from(blob, here)
        here += HEAD.size
        texts = blob[here : here + first].decode(), blob[here + first : here + first + second].decode()
        here += first + second
        found.append(Op(kind.decode(), *texts, at, blob[here : here + size]))
        here += size
    return found


@dataclass(slots=True)
class Disk:
    """Names below *root* to inodes, and inodes to bytes; a folder is a name whose inode is None."""

    root: str
    names: dict[str, int | None] = field(default_factory=dict)
    files: dict[int, bytes] = field(default_factory=dict)

    def copy(self) -> Disk:
        return Disk(self.root, dict(self.names), dict(self.files))

    def apply(self, change: Change, *, whole: bool = True) -> None:
        """*whole* False: only the first half of what it writes, to a sector."""
        op, inode = change.op, change.inode
        match op.kind:
            case "c":
                self.names[op.path] = inode
            case "m":
                self.names[op.path] = None
            case "u":
                self.names.pop(op.path, None)
            case "l":
                self.names[op.second] = inode
            case "r":
                if self.names.get(op.path) == inode:
                    del self.names[op.path]
                self.names[op.second] = inode
            case "w":
                data = op.data if whole else op.data[: max(SECTOR, len(op.data) // 2 // SECTOR * SECTOR)]
                before = self.files.get(inode, b"").ljust(op.at, b"\0")
                self.files[inode] = before[: op.at] + data + before[op.at + len(data) :]
            case "t":
                self.files[inode] = self.files.get(inode, b"")[: op.at].ljust(op.at, b"\0")

    def lies(self) -> dict[str, bytes]:
        """The files that can be reached, by their names below the root: a lost folder takes with it what is in it."""
        start = f"{self.root}/"
        return {
            name.removeprefix(start): self.files.get(inode, b"")
            for name, inode in self.names.items()
            if inode is not None and all(one in self.names for one in self._folders(name))
        }

    def _folders(self, name: str) -> list[str]:
        found = []
        while (name := _folder(name)) != self.root:
            found.append(name)
        return found


@dataclass(frozen=True, slots=True)
class Change:
    """An op that changes the disk, and the file that it is about."""

    op: Op
    inode: int


@dataclass(frozen=True, slots=True)
class State:
    """What is left after the power failed *after* so many ops; *how* it came to that, for a person."""

    after: int
    how: str
    disk: Disk


class Recording:
    """The ops of one run on what lay below *root* before, all of which was durable."""

    def __init__(self, root: Path, before: dict[str, bytes], folders: list[str], ops: list[Op]) -> None:
        self.ops = ops
        self.start = Disk(str(root))
        for folder in folders:
            self.start.names[folder] = None
        for number, (name, data) in enumerate(before.items()):
            self.start.names[name] = -1 - number
            self.start.files[-1 - number] = data

    def states(self, *, samples: int, chance: random.Random, every: int = 1) -> Iterator[State]:
        """
        For every *every*-th moment: all of it kept, all that was not synced lost, each such change lost or kept alone,
        each write torn, and *samples* draws of any.
        """
        durable, alive = self.start.copy(), self.start.copy()
        pending: list[Change] = []
        for number, op in enumerate(self.ops, start=1):
            if op.kind == "f":
                pending = self._synced(durable, pending, op, alive)
            elif op.kind in NAMES or op.kind in "wt":
                change = Change(op, self._inode(op, alive, number))
                alive.apply(change)
                pending.append(change)
            if number % every == 0 or number == len(self.ops):
                yield from _cuts(number, durable, pending, samples=samples, chance=chance)

    def _inode(self, op: Op, alive: Disk, number: int) -> int:
        if op.kind == "c":
            return number
        found = alive.names.get(op.path)
        return 0 if found is None else found

    def _synced(self, durable: Disk, pending: list[Change], op: Op, alive: Disk) -> list[Change]:
        inode = alive.names.get(op.path)
        rest = []
        for change in pending:
            if inode is None:
                kept = change.op.kind in NAMES and op.path in {_folder(change.op.path), _folder(change.op.second)}
            else:
                kept = change.op.kind in "wt" and change.inode == inode
            if kept:
                durable.apply(change)
            else:
                rest.append(change)
        return rest


def _cuts(number: int, durable: Disk, pending: list[Change], *, samples: int, chance: random.Random) -> Iterator[State]:
    def cut(how: str, kept: list[bool], *, torn: int | None = None) -> State:
        disk = durable.copy()
        for index, change in enumerate(pending):
            if index == torn:
                disk.apply(change, whole=False)
            elif kept[index]:
                disk.apply(change)
        return State(number, how, disk)

    size = len(pending)
    yield cut("all kept", [True] * size)
    if not pending:
        return
    yield cut("all lost", [False] * size)
    for index, change in enumerate(pending):
        told = f"{change.op.kind} {change.op.path}"
        if size > 1:
            yield cut(f"only lost: {told}", [one != index for one in range(size)])
            yield cut(f"only kept: {told}", [one == index for one in range(size)])
        if change.op.kind == "w" and len(change.op.data) > SECTOR:
            yield cut(f"torn: {told}", [True] * size, torn=index)
    if size > 2:
        for _ in range(samples):
            yield cut("some", [chance.random() < 0.5 for _ in range(size)])


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
