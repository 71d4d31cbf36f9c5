"""What the tests of the model store put into it."""

from __future__ import annotations

from pathlib import Path

from station.detectors.card import Card, KnownBoard, sha256_of

BOARD = b"a picture"
LABELS = ("open", "short")


def card_of(name: str, model: Path, *boards: KnownBoard) -> Card:
    return Card(name, sha256_of(model), "best.onnx", "2026-11-23T10:00:00Z", "test", LABELS, 64, 64, boards)
