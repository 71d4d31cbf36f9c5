"""Which model of the store is used, what was used before, and which ones ran well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from station.detectors.store import BUNDLED, NAME, SHIPPED, ModelStore
from station.errors import ModelError

CURRENT, GOOD = "current.json", "good.json"
REMEMBERED = 10  # earlier choices, and models that ran well


@dataclass(frozen=True, slots=True)
class Good:
    """A model of the store, or the bundled one, that a station has run with, and the labels it knew."""

    name: str
    sha256: str
    labels: tuple[str, ...]


class Choices:
    """
    The choices of *store*.

    ``current.json``: the model in use, those that were in use before it, and the labels of each; ``good.json``: those
    that a station started with and found well.
    """

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    def current(self) -> str:
        """What ``use`` chose last; the bundled model while it has chosen none."""
        return self._choices()[0]

    def use(self, name: str, labels: Sequence[str]) -> None:
        """
        From the next start on, *name*. Atomic: after a crash the old choice holds, or this. Raises ModelError.

        Its *labels* are written down too: no other may stand in for it that does not know them all.
        """
        if name not in SHIPPED:
            self._store.card(name)
        with self._store.changing():
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
        with self._store.changing():
            if self.previous() != name:
                raise ModelError(f"{name} is not what was used before any more: somebody else has chosen meanwhile")
            self._choose(self._choices()[1:], labels)

    def labels(self, name: str) -> set[str] | None:
        """
        What *name* knows, good or damaged, as its card says; else whatever was known of it when it was chosen, or ran.

        None: nobody can tell any more.
        """
        try:
            return set(self._store.card(name).labels)
        except ModelError:
            noted = [*self._noted().items(), *((one.name, one.labels) for one in self.good())]
            known = [labels for of, labels in noted if of == name]
            return set[str]().union(*known) or None  # no model is without a label

    def good(self) -> list[Good]:
        """What ran well, the last one first. A damaged list is an empty one: it is a memory, not a promise."""
        try:
            listed = json.loads((self._store.folder / GOOD).read_text(encoding="utf-8"))["good"]
            return [Good(str(one["name"]), str(one["sha256"]), tuple(map(str, one["labels"]))) for one in listed]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def remember(self, good: Good) -> None:
        """*good* ran well just now. Raises ModelError when that cannot be written down."""
        if self.good()[:1] == [good]:
            return
        with self._store.changing():
            others = [one for one in self.good() if one.name != good.name]
            self._store.write(GOOD, {"good": [asdict(one) for one in [good, *others][:REMEMBERED]]})

    def _choices(self, *, damaged_is_none: bool = False) -> list[str]:
        path = self._store.folder / CURRENT
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
            listed = json.loads((self._store.folder / CURRENT).read_text(encoding="utf-8"))["labels"]
            return {str(name): tuple(map(str, labels)) for name, labels in listed.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _choose(self, names: Sequence[str], labels: Sequence[str]) -> None:
        """Writes down that the first of *names* is in use and knows *labels*, and the others were before it."""
        noted = {**self._noted(), names[0]: labels}
        kept = {name: list(noted[name]) for name in names if name in noted}
        self._store.write(CURRENT, {"use": list(names), "labels": kept})
