"""Model stores: an empty one, and one with three models."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from station.detectors.card import KnownBoard
from station.detectors.store import ModelStore
from tests.detectors.stores import BOARD, card_of


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "data" / "models")


@pytest.fixture
def filled(store: ModelStore, tmp_path: Path) -> ModelStore:
    """Models a, b and c, each with a file of its own and one board."""
    picture = tmp_path / "board.png"
    picture.write_bytes(BOARD)
    known = KnownBoard("fail-01.png", hashlib.sha256(BOARD).hexdigest(), "fail", "open", 0.9)
    for name in "abc":
        model = tmp_path / f"{name}.onnx"
        model.write_bytes(name.encode() * 1000)
        store.add(card_of(name, model, known), model=model, boards={"fail-01.png": picture})
    return store
