"""Finding a model by name or path."""

from __future__ import annotations

from pathlib import Path

import pytest

from station.detectors.store import BUNDLED, find_model
from station.errors import ModelError


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


@pytest.mark.parametrize(("wanted", "words"), [("best.pt", "yolo export"), ("nothing", "neither pcb-demo nor")])
def test_a_model_that_is_not_there_says_what_would_be_accepted(wanted: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        find_model(wanted)
