"""What the store knows of one model: its card, which vouches for the model's file, its boards and itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from station.errors import ModelError
from station.picture import DEEP_BITS

SCHEMA = "station.model/1"
USUAL_THRESHOLD = 0.5  # the recipe's own default


@dataclass(frozen=True, slots=True)
class KnownBoard:
    """
    One picture of the locked set, and what the model said of it when it was imported.

    *file* is its name in the model's ``selftest`` folder, *verdict* "pass" or "fail"; *label* and *confidence* are of
    the strongest defect that counted, None and 0 where none did. *template* is beside it, for a model that compares.
    *depth_bits*: how many of 16 bits these pictures use.
    """

    file: str
    sha256: str
    verdict: str
    label: str | None
    confidence: float
    template: str | None = None
    template_sha256: str = ""
    depth_bits: int = DEEP_BITS

    def pictures(self) -> list[tuple[str, str]]:
        """(file, sha256) of all that is kept of it."""
        both = [(self.file, self.sha256)]
        return both if self.template is None else [*both, (self.template, self.template_sha256)]


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a board took, in the median of *runs*, from picture to defects, and what computed it."""

    median_ms: float
    runs: int
    computed_by: str


@dataclass(frozen=True, slots=True)
class Card:
    """
    One model of the store. *sha256* is of ``model.onnx``, *source* the file that it came from, *made_at* UTC text.

    *thresholds* by label hold for the self-test, and are what a recipe should begin with; labels without one have 0.5.
    *facts* is what else was measured when it was made, for people: how it was quantised, converted, compared.
    """

    name: str
    sha256: str
    source: str
    made_at: str
    made_by: str
    labels: tuple[str, ...]
    width_px: int
    height_px: int
    boards: tuple[KnownBoard, ...] = ()
    timing: Timing | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    miss_cost: float | None = None
    facts: dict[str, str | float] = field(default_factory=dict)

    def threshold(self, label: str) -> float:
        return self.thresholds.get(label, USUAL_THRESHOLD)


def write_card(card: Card) -> str:
    """*card* as the text of ``card.json``; it ends in the sha256 of all the rest."""
    document = {"schema": SCHEMA, **asdict(card)}
    return json.dumps(document | {"card_sha256": _sealed(document)}, indent=2) + "\n"


def read_card(path: Path) -> Card:
    """The card at *path*. Raises ModelError when it is missing, damaged or of a newer station."""
    again = "import the model again under another name"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        seal = document.pop("card_sha256")
        if document["schema"] != SCHEMA:
            raise ModelError(f"{path} is a {document['schema']}, this station knows {SCHEMA}: {again}")
        if seal != _sealed(document):
            raise ModelError(f"{path} is damaged: its checksum is wrong; {again}")
        return _card(document)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): {again}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{path} is damaged: it is no model's card; {again}") from None


def sha256_of(path: Path) -> str:
    """The sha256 (hex) of a file. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def model_sha256(path: Path) -> str:
    """The same of a model, whatever its format. Raises ModelError."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _card(document: dict[str, Any]) -> Card:
    fields = {name: value for name, value in document.items() if name != "schema"}
    boards = tuple(KnownBoard(**one) for one in fields.pop("boards"))
    timing = fields.pop("timing")
    labels = tuple(fields.pop("labels"))
    return Card(**fields, labels=labels, boards=boards, timing=None if timing is None else Timing(**timing))


def _sealed(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
