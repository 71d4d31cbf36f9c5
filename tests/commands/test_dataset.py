"""``station ledger export --dataset``: which classes, pictures and boards it writes."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from station.commands.dataset import export_dataset
from station.config import Settings, load
from station.errors import ModelError
from station.events import GATE_OFF, Aftermath, event_of
from station.labelled import read_labelled
from station.ledger import SqliteLedger, open_ledger
from station.reviews import Call, Reviews
from station.sources.names import printable
from station.types import Box, Defect, Verdict
from tests.boards import board
from tests.daemon import encoded, picture
from tests.detectors.models import save_seeing

LABELS = ("open", "short", "mousebite")


class Shop:
    """A station's ledger and inbox, into whose ``done/`` boards come as they are inspected and reviewed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox = folder / "inbox"
        self.model = save_seeing(folder / "tiny.onnx", metadata={"names": str(dict(enumerate(LABELS)))})
        (folder / "data").mkdir()
        self.ledger: SqliteLedger = open_ledger(folder / "data" / "ledger.db").ledger
        self.reviews = Reviews(self.ledger, station="aoi-1")

    def board(self, name: str, call: Call, *labels: str, seed: int = 1, place: str = "done/2026-11-23") -> str:
        """One board that failed for *labels*, or passed, and what was said of it."""
        path = self.inbox / place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(seed)))
        defects = [Defect(label, 0.9, Box(8, 8, 16, 16), "tiny") for label in labels]
        verdict = Verdict.FAIL if labels else Verdict.PASS
        inspected = board(None, verdict=verdict, image=picture(seed), file=printable(name), defects=defects)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        inspected = replace(inspected, frame=replace(inspected.frame, sha256=sha256))
        aftermath = Aftermath(GATE_OFF, None)
        made = partial(event_of, inspected, aftermath=aftermath, station="aoi-1")
        assert self.ledger.record(inspected, made, owed=False)
        event_id = inspected.frame.id
        self.reviews.add(event_id, verdict=verdict.value, call=call, by=None, note="")
        return event_id

    def settings(self, **detector: str) -> Settings:
        path = self.folder / "station.toml"
        model = detector.get("model", str(self.model))
        path.write_text(
            f'[station]\nname = "aoi-1"\ndata_dir = "{self.folder / "data"}"\n[source]\npath = "{self.inbox}"\n'
            f'[detector]\nmodel = "{model}"\nbackend = "onnxruntime"\nthreads = 1\n'
        )
        return load(path)

    def export(self, name: str = "made", **detector: str) -> tuple[Path, str]:
        """The folder that was written, and what was said."""
        target, out = self.folder / name, io.StringIO()
        export_dataset(self.settings(**detector), target, console=Console(file=out, width=200))
        return target, out.getvalue()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    with closing(made.ledger):
        yield made


def names_in(target: Path) -> str:
    return (target / "data.yaml").read_text().partition("names:\n")[2]


def test_classes_have_the_numbers_of_the_model_whatever_boards_were_reviewed(shop: Shop) -> None:
    mousebite = shop.board("1.png", "confirmed", "mousebite", seed=1)
    first, _ = shop.export("first")
    short = shop.board("2.png", "confirmed", "short", seed=2)
    second, _ = shop.export("second")
    assert names_in(first) == names_in(second) == '  0: "open"\n  1: "short"\n  2: "mousebite"\n'
    numbers = [(second / "labels" / f"{one}.txt").read_text()[0] for one in (mousebite, short)]
    assert (numbers, (first / "labels" / f"{mousebite}.txt").read_text()[0]) == (["2", "1"], "2")


def test_the_classes_are_told_though_no_board_has_a_defect(shop: Shop) -> None:
    shop.board("1.png", "false", "short")
    assert names_in(shop.export()[0]).count("\n") == len(LABELS)


def test_a_label_of_an_earlier_model_comes_after_those_of_the_present_one(shop: Shop) -> None:
    made = shop.board("1.png", "confirmed", "burnt")
    target, said = shop.export()
    assert names_in(target).endswith('  2: "mousebite"\n  3: "burnt"\n')
    assert (target / "labels" / f"{made}.txt").read_text().startswith("3 ")
    assert "class 3, burnt: of an earlier model" in said


def test_without_the_model_nothing_is_numbered(shop: Shop) -> None:
    shop.board("1.png", "confirmed", "short")
    with pytest.raises(ModelError, match="classes have the numbers of the configured model"):
        shop.export(model=str(shop.folder / "gone.onnx"))
    assert not (shop.folder / "made").exists()


@pytest.mark.parametrize("name", ["board.txt", "board", "board.PNG", "board.jpg"])
def test_a_picture_is_named_by_what_it_is(shop: Shop, name: str) -> None:
    made = shop.board(name, "confirmed", "short")
    target, _ = shop.export()
    assert [one.name for one in (target / "images").iterdir()] == [f"{made}.png"]
    assert [one.name for one in read_labelled(target)] == [made]


@pytest.mark.parametrize("place", ["done/2026-11-23", ""])
@pytest.mark.parametrize("name", [b"latin\xe9.jpg", b"l\xe9\xe9.png", b"a*?[1].png", b"sub/1.png", b"s\xfcb/1.png"])
def test_an_original_is_found_whatever_its_name_is(shop: Shop, name: bytes, place: str) -> None:
    shop.board(os.fsdecode(name), "confirmed", "short", place=place)
    target, said = shop.export()
    assert (len([*(target / "images").iterdir()]), said) == (1, "")
