"""
The model store: imported models on disk.

    DATA_DIR/models/NAME/model.onnx card.json selftest/...    one model: complete, or not there
    DATA_DIR/models/current.json good.json                    which is used, which ran well: choices.py
    DATA_DIR/models/.converted/SHA256.onnx SHA256.json        what .pt files were converted to: converted.py

Everything is written beside its place, synced, and renamed into it, by one process at a time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from station.detectors.card import Card, read_card, sha256_of, write_card
from station.disk import sync_directory
from station.durable import DRAFT, adopt, replace_file, write_synced
from station.errors import ModelError
from station.locks import held, is_held

BUNDLED = "pcb-demo"
PAIRED = "pcb-pair"  # compares each board with its template
SHIPPED = (BUNDLED, PAIRED)
STORE = "store"
IMPORTING = ".importing-"  # a model that is not whole yet, in a folder that its import holds locked
CONVERTED = ".converted"
DAMAGED = ".damaged-"  # one that was put aside for a whole one of its name
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Where a model lies, its name in events, and the sha256 (hex) that it must have; None: whatever it has."""

    path: Path
    name: str
    sha256: str | None


class ModelStore:
    """
    The models in *folder* (``DATA_DIR/models``), which need not be there yet. Errors of the disk are ModelErrors.

    Commands and a running station may use one store at a time: what is read is always whole, and of two that change it
    one waits for the other.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """The models that are there, good or damaged, by name."""
        try:
            there = [one.name for one in self.folder.iterdir() if one.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ModelError(f"the model store {self.folder} cannot be read: {error.strerror}") from None
        return sorted(name for name in there if NAME.fullmatch(name))

    def card(self, name: str) -> Card:
        """The card of *name*. Raises ModelError when there is no such model or its card is damaged."""
        if name not in self.names():
            known = ", ".join([*self.names(), *SHIPPED])
            raise ModelError(f"there is no model {name} in {self.folder}, but: {known}")
        return read_card(self.folder / name / "card.json")

    def file(self, name: str) -> ModelFile:
        """*name*'s file with the checksum of its card, which whoever loads it must check."""
        return ModelFile(self.folder / name / "model.onnx", name, self.card(name).sha256)

    def damage(self, name: str) -> str | None:
        """What is damaged of *name*, card or file; None: nothing. Raises ModelError where there is no such model."""
        try:
            file = self.file(name)
            whole = sha256_of(file.path) == file.sha256
        except (ModelError, OSError) as error:
            if name not in self.names():
                raise
            return str(error)
        return None if whole else f"{file.path} is damaged: import the model again, under the same name"

    def make(self) -> None:
        """Makes the store, where it is not there yet. Raises ModelError."""
        with self.changing():
            pass

    def check_free(self, name: str) -> None:
        """
        Raises ModelError unless *name* is valid and free.

        A damaged model's name counts as free: the new model replaces it.
        """
        check_name(name)
        if name in self.names() and self.damage(name) is None:
            raise ModelError(f"there is a model {name} already: choose another with --name")

    def picture(self, name: str, file: str, sha256: str) -> bytes:
        """One picture of *name*'s self-test. Raises ModelError when it is not the one that was locked."""
        path = self.folder / name / "selftest" / file
        try:
            if sha256_of(path) == sha256:
                return path.read_bytes()
        except OSError as error:
            raise ModelError(f"the self-test of {name} is damaged: {file}: {error.strerror}") from None
        raise ModelError(f"the self-test of {name} is damaged: {file} has changed; import the model again")

    def add(self, card: Card, *, model: Path, boards: Mapping[str, Path]) -> None:
        """
        Takes a copy of *model* and of *boards* (the pictures of ``card.boards`` by their file name), all or nothing.

        A damaged model of that name is put aside, into a hidden folder. Raises ModelError when the name is taken or is
        none, or a copy is not what the card says.
        """
        self.check_free(card.name)
        target = self.folder / card.name
        try:
            self._make_folder()
            with ExitStack() as stack:
                with self.changing() as alone:
                    if alone:
                        self._clear_drafts()
                    draft = stack.enter_context(tempfile.TemporaryDirectory(dir=self.folder, prefix=IMPORTING))
                    stack.enter_context(held(Path(draft)))
                made = Path(draft) / "model"
                (made / "selftest").mkdir(parents=True)
                copy_synced(model, made / "model.onnx", card.sha256)
                for board in card.boards:
                    for file, sha256 in board.pictures():
                        copy_synced(boards[file], made / "selftest" / file, sha256)
                write_synced(made / "card.json", write_card(card))
                for path in (made, *made.rglob("*")):
                    self.adopt(path)
                for folder in (made / "selftest", made):
                    sync_directory(folder)
                with self.changing():
                    self.check_free(card.name)  # again: another import may have taken it meanwhile
                    if target.exists():
                        target.rename(self.folder / f"{DAMAGED}{card.name}-{time.time_ns()}")
                    made.rename(target)
                    sync_directory(self.folder)
        except OSError as error:
            raise ModelError(f"{card.name} cannot be stored in {self.folder}: {error.strerror or error}") from None

    def write(self, name: str, document: Mapping[str, object]) -> None:
        """Puts the JSON file *name* into the store's folder, whole. Raises ModelError."""
        path = self.folder / name
        try:
            replace_file(path, (json.dumps(document, indent=1) + "\n").encode(), adopted=True)
        except OSError as error:
            raise ModelError(f"{path} cannot be written: {error.strerror or error}") from None

    @contextmanager
    def changing(self) -> Iterator[bool]:
        """The store, made if need be, is ours to change until the block ends; False: its file system has no locks."""
        with ExitStack() as stack:
            try:
                self._make_folder()
                alone = stack.enter_context(held(self.folder))
            except OSError as error:
                raise ModelError(f"{self.folder} cannot be written: {error.strerror or error}") from None
            yield alone

    def adopt(self, path: Path) -> None:
        """Gives what root made in the store to the owner of the data folder; the store's own may be root's, too."""
        adopt(path, like=self.folder.parent)

    def _clear_drafts(self) -> None:
        """Deletes what imports and changes left that were killed. Raises OSError."""
        for draft in self.folder.glob(f"{IMPORTING}*"):
            if is_held(draft) is False:
                shutil.rmtree(draft, ignore_errors=True)
        for draft in (*self.folder.glob(f"{DRAFT}*"), *self.folder.glob(f"{CONVERTED}/{DRAFT}*")):
            draft.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.adopt(self.folder)
            sync_directory(self.folder.parent)


def check_name(name: str) -> None:
    """Raises ModelError for what cannot be a model's name in the store: it becomes a folder, and a word in events."""
    if not NAME.fullmatch(name) or Path(name).suffix in {".onnx", ".pt"}:
        raise ModelError(f"{name!r} is no name for a model: letters, digits, . _ - (64 at most), not .onnx or .pt")
    if name in {*SHIPPED, STORE}:
        raise ModelError(f"the name {name} is taken by the station itself: choose another with --name")


def copy_synced(source: Path, target: Path, sha256: str) -> None:
    """A copy that is on the disk, and is what *sha256* says: the file may have changed since it was looked at."""
    with source.open("rb") as given, target.open("wb") as taken:
        shutil.copyfileobj(given, taken)
        taken.flush()
        os.fsync(taken.fileno())
    if sha256_of(target) != sha256:
        raise ModelError(f"{source} changed while it was imported: import it again")
