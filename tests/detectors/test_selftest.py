"""The self-test: which boards are locked, and when a model is no longer the one that it was."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from station.assets import SAMPLES
from station.detectors.card import Card
from station.detectors.selftest import (
    AT_START,
    LOCKED,
    Candidate,
    lock,
    read_shipped,
    sample_of_size,
    self_test,
    shipped_boards,
)
from station.errors import DetectorError, ModelError
from station.types import Box, Defect, Image, ModelInfo

CARD = Card("m", "", "", "", "", ("open",), 8, 8, thresholds={"open": 0.6})


class Reddish:
    """Finds one "open" whose confidence is the picture's red, 0..1; nothing where there is none. *off* is added."""

    model = ModelInfo("reddish", "")

    def __init__(self, *, off: float = 0.0, refuses: bool = False) -> None:
        self._off = off
        self._refuses = refuses

    def detect(self, image: Image) -> list[Defect]:
        if self._refuses:
            raise DetectorError("the network failed")
        red = float(image[..., 2].mean()) / 255 + self._off
        return [Defect("open", red, Box(0, 0, 1, 1), "reddish")] if red > 0.001 else []


def board(folder: Path, name: str, red: float) -> Path:
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 2] = round(red * 255)
    cv2.imwrite(str(folder / f"{name}.png"), image)
    return folder / f"{name}.png"


def threshold(label: str) -> float:
    return CARD.threshold(label)


def test_boards_that_are_judged_right_and_clearly_are_locked_bad_and_good_in_turn(tmp_path: Path) -> None:
    candidates = [
        Candidate(board(tmp_path, "bad", 0.9), bad=True),
        Candidate(board(tmp_path, "missed", 0.2), bad=True),
        Candidate(board(tmp_path, "near", 0.62), bad=True),
        Candidate(board(tmp_path, "worse", 1.0), bad=True),
        Candidate(board(tmp_path, "good", 0.0), bad=False),
        Candidate(board(tmp_path, "dusty", 0.3), bad=False),
        Candidate(board(tmp_path, "false-call", 0.8), bad=False),
    ]
    locked = lock(Reddish(), candidates, threshold=threshold)
    assert [one.verdict for one in locked.boards] == ["fail", "pass", "fail", "pass"]
    assert [locked.pictures[one.file].stem for one in locked.boards] == ["bad", "good", "worse", "dusty"]
    assert locked.passed_over == 3
    assert (locked.boards[0].label, locked.boards[0].confidence) == ("open", 0.902)


def test_no_more_boards_are_locked_than_a_self_test_needs(tmp_path: Path) -> None:
    many = [Candidate(board(tmp_path, f"b{number}", number % 2), bad=number % 2 == 1) for number in range(3 * LOCKED)]
    assert len(lock(Reddish(), many, threshold=threshold).boards) == LOCKED


def test_a_model_that_finds_nothing_on_bad_boards_is_none_for_them(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no clear defect on any of 1"):
        lock(Reddish(), [Candidate(board(tmp_path, "b", 0.1), bad=True)], threshold=threshold)


def test_a_model_that_judges_as_it_did_passes_and_one_that_drifts_fails(tmp_path: Path) -> None:
    candidates = [
        Candidate(board(tmp_path, "bad", 0.9), bad=True),
        Candidate(board(tmp_path, "good", 0.1), bad=False),
    ]
    locked = lock(Reddish(), candidates, threshold=threshold)

    def read(file: str, _sha256: str) -> bytes:
        return locked.pictures[file].read_bytes()

    def run(detector: Reddish, *, floor: float = 0.25) -> int:
        return self_test(detector, locked.boards, card=CARD, floor=floor, read=read)

    assert run(Reddish()) == 2
    with pytest.raises(ModelError, match=r"fail-01\.png should fail, and it sees open 0\.4"):
        run(Reddish(off=-0.5))
    with pytest.raises(ModelError, match=r"pass-01\.png should pass, and it sees open 0\.8"):
        run(Reddish(off=0.7))
    with pytest.raises(ModelError, match="cannot be judged: the network failed"):
        run(Reddish(refuses=True))


def test_a_board_whose_defect_this_station_does_not_look_for_tells_nothing(tmp_path: Path) -> None:
    locked = lock(Reddish(), [Candidate(board(tmp_path, "bad", 0.8), bad=True)], threshold=threshold)
    assert self_test(Reddish(off=-0.7), locked.boards, card=CARD, floor=0.9, read=lambda *_: b"") == 0


def test_the_shipped_boards_begin_with_both_kinds(tmp_path: Path) -> None:
    boards = shipped_boards(compared=False)
    assert sorted(one.verdict for one in boards) == ["fail"] * 6 + ["pass"] * 3
    assert {one.verdict for one in boards[:AT_START]} == {"fail", "pass"}
    assert all(read_shipped(one.file, one.sha256) == (SAMPLES / one.file).read_bytes() for one in boards)


@pytest.mark.parametrize("size", [(640, 640), (320, 480), (700, 1300)])
def test_a_sample_can_be_had_in_any_size(size: tuple[int, int]) -> None:
    assert sample_of_size(*size).shape == (*size, 3)


class Differing(Reddish):
    """Compares with a template: one "open" as strong as the two differ on average."""

    paired = True

    def detect(self, image: Image) -> list[Defect]:
        raise AssertionError("no template was given")

    detect_alone = detect

    def detect_beside(self, image: Image, template: NDArray[np.uint8]) -> list[Defect]:
        apart = float(np.abs(image[..., 2].astype(int) - template).mean()) / 255
        return [Defect("open", apart + self._off, Box(0, 0, 1, 1), "differing")]


def test_a_model_that_compares_is_tested_beside_each_boards_own_template() -> None:
    bad, template = SAMPLES / "fail-open-44000062.jpg", SAMPLES / "pass-template-44000062.jpg"
    candidates = [
        Candidate(template, bad=True),  # a board without a template cannot be one of them
        Candidate(bad, bad=True, template=template),
        Candidate(template, bad=False, template=template),
    ]

    def threshold(_label: str) -> float:
        return 0.004

    locked = lock(Differing(), candidates, threshold=threshold)
    assert [(one.verdict, one.template) for one in locked.boards] == [
        ("fail", "template-fail-01.jpg"),
        ("pass", "template-pass-01.jpg"),
    ]
    card = Card("m", "", "", "", "", ("open",), 8, 8, thresholds={"open": 0.004})

    def run(off: float) -> int:
        return self_test(
            Differing(off=off),
            locked.boards,
            card=card,
            floor=-1,
            read=lambda file, _: locked.pictures[file].read_bytes(),
        )

    assert run(0.0) == 2
    with pytest.raises(ModelError, match=r"pass-01\.jpg should pass"):
        run(0.1)
    assert self_test(Differing(), shipped_boards(compared=False), card=None, floor=0.25, read=read_shipped) == 0
