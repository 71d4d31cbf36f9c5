"""
The model store: which models there are, which one is used, and which ran well; and the finding of a model by its name.

    DATA_DIR/models/NAME/model.onnx card.json selftest/...    one model: complete, or not there
    DATA_DIR/models/current.json                              what ``station model use`` chose, what it was before, and
                                                              the labels of these
    DATA_DIR/models/good.json                                 what the station started with and found well
    DATA_DIR/models/.converted/SHA256.onnx SHA256.json        .pt files, by their own sha256, as ONNX

Everything is written beside its place, synced, and renamed into it, by one process at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from station.assets import ASSETS
from station.detectors.card import Card, read_card, sha256_of, write_card
from station.detectors.kept import DRAFT, replace_file
from station.disk import sync_directory
from station.errors import ModelError

BUNDLED = "pcb-demo"
PAIRED = "pcb-pair"  # compares each board with its template
SHIPPED = (BUNDLED, PAIRED)
STORE = "store"
IMPORTING = ".importing-"  # a model that is not whole yet, in a folder that its import holds locked
DAMAGED = ".damaged-"  # one that was put aside for a whole one of its name
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
REMEMBERED = 10  # earlier choices, and models that ran well


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Where a model lies, its name in events, and the sha256 (hex) that it must have; None: whatever it has."""

    path: Path
    name: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Good:
    """A model of the store, or the bundled one, that a station has run with, and the labels it knew."""

    name: str
    sha256: str
    labels: tuple[str, ...]


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
        with self._changing():
            pass

    def check_free(self, name: str) -> None:
        """Raises ModelError for what is no name for a new model. That of a damaged one is: its place will be taken."""
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
                with self._changing() as alone:
                    if alone:
                        self._clear_drafts()
                    draft = stack.enter_context(tempfile.TemporaryDirectory(dir=self.folder, prefix=IMPORTING))
                    stack.enter_context(_locked(Path(draft)))
                made = Path(draft) / "model"
                (made / "selftest").mkdir(parents=True)
                _copy(model, made / "model.onnx", card.sha256)
                for board in card.boards:
                    for file, sha256 in board.pictures():
                        _copy(boards[file], made / "selftest" / file, sha256)
                _write_synced(made / "card.json", write_card(card))
                for path in (made, *made.rglob("*")):
                    self._adopt(path)
                for folder in (made / "selftest", made):
                    sync_directory(folder)
                with self._changing():
                    self.check_free(card.name)  # again: another import may have taken it meanwhile
                    if target.exists():
                        target.rename(self.folder / f"{DAMAGED}{card.name}-{time.time_ns()}")
                    made.rename(target)
                    sync_directory(self.folder)
        except OSError as error:
            raise ModelError(f"{card.name} cannot be stored in {self.folder}: {error.strerror or error}") from None

    def current(self) -> str:
        """What ``use`` chose last; the bundled model while it has chosen none."""
        return self._choices()[0]

    def use(self, name: str, labels: Sequence[str]) -> None:
        """
        From the next start on, *name*. Atomic: after a crash the old choice holds, or this. Raises ModelError.

        Its *labels* are written down too: no other may stand in for it that does not know them all.
        """
        if name not in SHIPPED:
            self.card(name)
        with self._changing():
            before = [one for one in self._choices(damaged_is_none=True) if one != name]
            self._choose([name, *before][:REMEMBERED], labels)

    def previous(self) -> str:
        """What ``rollback`` would choose. Raises ModelError when there is none."""
        before = self._choices()[1:]
        if not before:
            raise ModelError(f"there is nothing to roll back to: {self.current()} is the first model in use")
        return before[0]

    def rollback(self, name: str, labels: Sequence[str]) -> None:
        """Goes back to *name*, which was used before, and forgets the present choice; else as ``use``."""
        with self._changing():
            if self.previous() != name:
                raise ModelError(f"{name} is not what was used before any more: somebody else has chosen meanwhile")
            self._choose(self._choices()[1:], labels)

    def labels(self, name: str) -> set[str] | None:
        """
        What *name* knows, good or damaged, as its card says; else whatever was known of it when it was chosen, or ran.

        None: nobody can tell any more.
        """
        try:
            return set(self.card(name).labels)
        except ModelError:
            noted = [*self._noted().items(), *((one.name, one.labels) for one in self.good())]
            known = [labels for of, labels in noted if of == name]
            return set[str]().union(*known) or None  # a model without a label there is not

    def good(self) -> list[Good]:
        """What ran well, the last one first. A damaged list is an empty one: it is a memory, not a promise."""
        try:
            listed = json.loads((self.folder / "good.json").read_text(encoding="utf-8"))["good"]
            return [Good(str(one["name"]), str(one["sha256"]), tuple(map(str, one["labels"]))) for one in listed]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def remember(self, good: Good) -> None:
        """*good* ran well just now. Raises ModelError when that cannot be written down."""
        if self.good()[:1] == [good]:
            return
        with self._changing():
            others = [one for one in self.good() if one.name != good.name]
            self._write("good.json", {"good": [asdict(one) for one in [good, *others][:REMEMBERED]]})

    def converted(self, pt: Path) -> ModelFile | None:
        """
        The ONNX that was made of exactly this .pt before; None: it has to be made. Raises ModelError.

        One that is damaged or gone is made again, which overwrites what is there: nobody could import it.
        """
        folder, sha256 = self.folder / ".converted", _sha256(pt)
        try:
            note = json.loads((folder / f"{sha256}.json").read_text(encoding="utf-8"))
            made = ModelFile(folder / f"{sha256}.onnx", pt.stem, str(note["sha256"]))
            whole = sha256_of(made.path) == made.sha256
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return made if whole else None

    def keep_converted(self, pt: Path, onnx: Path) -> ModelFile:
        """Moves *onnx*, made of *pt*, to where ``converted`` finds it. Raises ModelError."""
        folder, sha256, made = self.folder / ".converted", _sha256(pt), _sha256(onnx)
        target = folder / f"{sha256}.onnx"
        with self._changing():
            try:
                folder.mkdir(exist_ok=True)
                self._adopt(folder)
                _copy(onnx, folder / f"{sha256}.part", made)
                self._adopt(folder / f"{sha256}.part")
                (folder / f"{sha256}.part").replace(target)
            except OSError as error:
                raise ModelError(f"the converted model cannot be kept in {folder}: {error.strerror or error}") from None
            self._write(f".converted/{sha256}.json", {"sha256": made, "source": pt.name})
        return ModelFile(target, pt.stem, made)

    def _choices(self, *, damaged_is_none: bool = False) -> list[str]:
        path = self.folder / "current.json"
        try:
            names = json.loads(path.read_text(encoding="utf-8"))["use"]
            if names and all(isinstance(one, str) and NAME.fullmatch(one) for one in names):
                return list(names)
        except FileNotFoundError:
            return [BUNDLED]
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if damaged_is_none:
            return []
        raise ModelError(f"{path} is damaged: choose the model again with station model use NAME")

    def _noted(self) -> dict[str, tuple[str, ...]]:
        """The labels of what was chosen; an older station did not write them down."""
        try:
            listed = json.loads((self.folder / "current.json").read_text(encoding="utf-8"))["labels"]
            return {str(name): tuple(map(str, labels)) for name, labels in listed.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _choose(self, names: Sequence[str], labels: Sequence[str]) -> None:
        """Writes down that the first of *names* is in use and knows *labels*, and the others were before it."""
        noted = {**self._noted(), names[0]: labels}
        kept = {name: list(noted[name]) for name in names if name in noted}
        self._write("current.json", {"use": list(names), "labels": kept})

    def _write(self, name: str, document: Mapping[str, object]) -> None:
        path = self.folder / name
        try:
            replace_file(path, (json.dumps(document, indent=1) + "\n").encode(), synced=True)
        except OSError as error:
            raise ModelError(f"{path} cannot be written: {error.strerror or error}") from None

    @contextmanager
    def _changing(self) -> Iterator[bool]:
        """The store, made if need be, is ours to change until the block ends; False: its file system has no locks."""
        with ExitStack() as stack:
            try:
                self._make_folder()
                alone = stack.enter_context(_locked(self.folder))
            except OSError as error:
                raise ModelError(f"{self.folder} cannot be written: {error.strerror or error}") from None
            yield alone

    def _clear_drafts(self) -> None:
        """Deletes what imports and changes left that were killed. Raises OSError."""
        for draft in self.folder.glob(f"{IMPORTING}*"):
            if not _is_held(draft):
                shutil.rmtree(draft, ignore_errors=True)
        for draft in self.folder.glob(f"{DRAFT}*"):
            draft.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._adopt(self.folder)
            sync_directory(self.folder.parent)

    def _adopt(self, path: Path) -> None:
        """What root puts into a service's data folder has to be the service's, which reads it and writes beside it."""
        if os.geteuid() == 0:
            owner = self.folder.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def find_model(wanted: str, *, store: ModelStore | None = None, assets: Path = ASSETS) -> ModelFile:
    """
    *wanted* as ``[detector] model`` has it: ``store`` (what ``use`` chose), a shipped one, a file, or one in *store*.

    A file is what ends in .onnx or .pt or has a / in it; of a .pt, what it was converted to before. Raises ModelError
    saying what would be accepted.
    """
    if wanted == STORE:
        wanted = BUNDLED if store is None else store.current()
    if wanted in SHIPPED:
        return ModelFile(assets / f"{wanted}.onnx", wanted, _pinned(assets / f"{wanted}.json"))
    path = Path(wanted)
    if path.suffix == ".pt":
        return _converted(path, store)
    if path.is_file():
        return ModelFile(path, path.stem, None)
    if path.suffix == ".onnx" or "/" in wanted:
        raise ModelError(f"[detector] model = {wanted}: there is no such file")
    names = [] if store is None else store.names()
    if store is None or wanted not in names:
        known = ", ".join([*SHIPPED, *names])
        raise ModelError(f"[detector] model = {wanted}: neither {known}, nor an .onnx or .pt file that is there")
    return store.file(wanted)


def check_name(name: str) -> None:
    """Raises ModelError for what cannot be a model's name in the store: it becomes a folder, and a word in events."""
    if not NAME.fullmatch(name) or Path(name).suffix in {".onnx", ".pt"}:
        raise ModelError(f"{name!r} is no name for a model: letters, digits, . _ - (64 at most), not .onnx or .pt")
    if name in {*SHIPPED, STORE}:
        raise ModelError(f"the name {name} is taken by the station itself: choose another with --name")


def _converted(pt: Path, store: ModelStore | None) -> ModelFile:
    if not pt.is_file():
        raise ModelError(f"[detector] model = {pt}: there is no such file")
    found = None if store is None else store.converted(pt)
    if found is None:
        raise ModelError(
            f"{pt} is not converted to ONNX yet: station run does that at its start (it needs the ultralytics extra); "
            f"or do it where ultralytics is installed: yolo export model={pt} format=onnx imgsz=640"
        )
    return found


def _pinned(card: Path) -> str:
    """The sha256 that a bundled model's card names: without it a damaged model could not be told from a good one."""
    try:
        return str(json.loads(card.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{card} names no sha256 ({error}): install the station again") from None


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _copy(source: Path, target: Path, sha256: str) -> None:
    """A copy that is on the disk, and is what *sha256* says: the file may have changed since it was looked at."""
    with source.open("rb") as given, target.open("wb") as taken:
        shutil.copyfileobj(given, taken)
        taken.flush()
        os.fsync(taken.fileno())
    if sha256_of(target) != sha256:
        raise ModelError(f"{source} changed while it was imported: import it again")


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Waits for whoever holds *folder*, and holds it; False: its file system has no locks. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            held = True
        except OSError:  # some shares: then each file is still whole, and the last one to write wins
            held = False
        yield held
    finally:
        os.close(descriptor)


def _is_held(folder: Path) -> bool:
    """Whether somebody has *folder* locked, or that cannot be told."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
