"""A model is found by its name or its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from station.detectors.card import sha256_of
from station.detectors.choices import Choices
from station.detectors.find import find_model
from station.detectors.store import BUNDLED, ModelStore
from station.errors import ModelError
from tests.detectors.stores import LABELS


def test_the_bundled_model_is_found_with_the_checksum_of_its_card(tmp_path: Path) -> None:
    (tmp_path / "pcb-demo.json").write_text('{"sha256": "abc", "figures": {}}')
    found = find_model(BUNDLED, assets=tmp_path)
    assert (found.name, found.path, found.sha256) == ("pcb-demo", tmp_path / "pcb-demo.onnx", "abc")


@pytest.mark.parametrize("card", [None, "", "{", "{}", "[]", "null"])
def test_a_bundled_model_without_a_good_card_is_not_used(tmp_path: Path, card: str | None) -> None:
    if card is not None:
        (tmp_path / "pcb-demo.json").write_text(card)
    with pytest.raises(ModelError, match="install the station again"):
        find_model(BUNDLED, assets=tmp_path)


def test_a_file_is_named_by_its_stem(tmp_path: Path) -> None:
    (tmp_path / "line-3.onnx").touch()
    found = find_model(str(tmp_path / "line-3.onnx"))
    assert (found.name, found.sha256) == ("line-3", None)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("best.pt", "no such file"),
        ("best.onnx", "no such file"),
        ("./line", "no such file"),
        ("line", "pcb-demo, pcb-pair, a, b"),
    ],
)
def test_a_model_that_is_not_there_says_what_would_be_accepted(filled: ModelStore, wanted: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        find_model(wanted, store=filled)


def test_the_store_is_the_bundled_model_until_another_is_chosen(filled: ModelStore) -> None:
    assert find_model("store", store=filled).name == BUNDLED
    Choices(filled).use("b", LABELS)
    found = find_model("store", store=filled)
    assert (found.name, found.path) == ("b", filled.folder / "b" / "model.onnx")
    assert found.sha256 == sha256_of(found.path)


def test_a_name_in_the_configuration_wins_over_the_choice(filled: ModelStore) -> None:
    Choices(filled).use("b", LABELS)
    assert find_model("a", store=filled).name == "a"
    assert find_model(BUNDLED, store=filled).name == BUNDLED


def test_one_changed_digit_in_a_card_is_noticed(filled: ModelStore) -> None:
    path = filled.folder / "a" / "card.json"
    path.write_text(path.read_text().replace("0.9", "0.8"))
    with pytest.raises(ModelError, match="its checksum is wrong"):
        find_model("a", store=filled)
