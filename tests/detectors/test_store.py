"""The model store: what goes in whole, stays whole."""

from __future__ import annotations

import dataclasses
import fcntl
import os
from pathlib import Path

import pytest

from station.detectors.card import KnownBoard, Timing, read_card, sha256_of, write_card
from station.detectors.store import ModelStore
from station.errors import ModelError
from tests.detectors.stores import BOARD, card_of


def test_what_a_killed_import_left_is_cleared_and_what_one_is_making_is_not(filled: ModelStore, tmp_path: Path) -> None:
    left, made = filled.folder / ".importing-left", filled.folder / ".importing-made"
    for draft in (left, made):
        (draft / "model").mkdir(parents=True)
        (draft / "model" / "model.onnx").write_bytes(b"half")
    (filled.folder / ".converted").mkdir()
    for draft in (filled.folder, filled.folder / ".converted"):
        (draft / ".part-left").touch()
    descriptor = os.open(made, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    model = tmp_path / "d.onnx"
    model.write_bytes(b"d")
    filled.add(card_of("d", model), model=model, boards={})
    os.close(descriptor)
    assert sorted(one.name for one in filled.folder.glob(".*")) == [".converted", made.name]
    assert not list((filled.folder / ".converted").iterdir())
    assert filled.names() == ["a", "b", "c", "d"]


def test_an_import_holds_its_draft_until_it_is_through(
    filled: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"m")
    adopt, names = filled.adopt, ["e", "d"]

    def another_import(path: Path) -> None:
        adopt(path)
        if names[1:]:
            names.pop()
            ModelStore(filled.folder).add(card_of("e", model), model=model, boards={})

    monkeypatch.setattr(filled, "adopt", another_import)
    filled.add(card_of("d", model), model=model, boards={})
    assert filled.names() == ["a", "b", "c", "d", "e"]
    assert not list(filled.folder.glob(".*"))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "x y", "a.onnx", "a.pt", "-a", "pcb-demo", "pcb-pair", "store"]
)
def test_a_name_that_could_be_a_path_or_the_stations_own_is_refused(
    store: ModelStore, tmp_path: Path, name: str
) -> None:
    model = tmp_path / "m"
    model.write_bytes(b"m")
    with pytest.raises(ModelError, match="name"):
        store.add(card_of(name, model), model=model, boards={})
    assert not store.folder.exists()


def test_a_taken_name_is_refused_and_the_first_model_stays(filled: ModelStore, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    with pytest.raises(ModelError, match="already"):
        filled.add(card_of("a", other), model=other, boards={})
    assert sha256_of(filled.folder / "a" / "model.onnx") == filled.card("a").sha256


def test_a_model_that_changes_while_it_is_imported_is_not_taken(store: ModelStore, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"before")
    card = card_of("m", model)
    model.write_bytes(b"after!")
    with pytest.raises(ModelError, match="changed while"):
        store.add(card, model=model, boards={})
    assert store.names() == []
    assert list(store.folder.iterdir()) == []


def test_a_card_reads_as_it_was_written(tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.write_bytes(b"m")
    card = dataclasses.replace(
        card_of("m", model, KnownBoard("f", "s", "pass", None, 0.0)),
        timing=Timing(12.5, 20, "CPU"),
        thresholds={"open": 0.3},
        miss_cost=50.0,
        facts={"before": 0.9, "from": "x"},
    )
    (tmp_path / "card.json").write_text(write_card(card))
    assert read_card(tmp_path / "card.json") == card


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"schema": "station.model/1", "card_sha256": 1}', "\x00"])
def test_a_card_that_is_none_is_an_error_and_no_traceback(filled: ModelStore, text: str) -> None:
    (filled.folder / "a" / "card.json").write_text(text)
    with pytest.raises(ModelError, match="damaged"):
        filled.card("a")


def test_a_card_of_a_newer_station_is_not_guessed_at(filled: ModelStore) -> None:
    path = filled.folder / "a" / "card.json"
    path.write_text(path.read_text().replace("station.model/1", "station.model/2"))
    with pytest.raises(ModelError, match=r"station\.model/2"):
        filled.card("a")


def test_a_board_of_the_self_test_that_has_changed_is_not_judged(filled: ModelStore) -> None:
    (board,) = filled.card("a").boards
    assert filled.picture("a", board.file, board.sha256) == BOARD
    (filled.folder / "a" / "selftest" / board.file).write_bytes(b"another")
    with pytest.raises(ModelError, match=r"fail-01\.png has changed"):
        filled.picture("a", board.file, board.sha256)
    (filled.folder / "a" / "selftest" / board.file).unlink()
    with pytest.raises(ModelError, match=r"fail-01\.png: No such file"):
        filled.picture("a", board.file, board.sha256)


def test_other_things_in_the_folder_are_no_models(filled: ModelStore) -> None:
    (filled.folder / ".importing-x").mkdir()
    (filled.folder / "notes.txt").write_text("x")
    assert filled.names() == ["a", "b", "c"]
