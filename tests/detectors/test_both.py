"""A network and the golden board side by side: each thing once, by whom it was found, and nothing hidden."""

from __future__ import annotations

import numpy as np
import pytest

from station.decide import decide
from station.detectors.both import BothDetector, unite
from station.errors import DetectorError
from station.types import Box, Defect, Image, ModelInfo, Recipe, Region, Verdict

RECIPE = Recipe("default", 0.5, {"short": 0.6})
PICTURE = np.zeros((8, 8, 3), np.uint8)


class Says:
    """A detector that says what it was told to say."""

    def __init__(self, name: str, *found: Defect, refuses: bool = False) -> None:
        self.model = ModelInfo(name, f"sha of {name}")
        self.labels = (name,)
        self.description = f"{name} itself"
        self._found = list(found)
        self._refuses = refuses

    def half(self) -> Says:
        return self

    def detect(self, image: Image) -> list[Defect]:
        if self._refuses:
            raise DetectorError(f"{self.model.name} cannot judge {image.shape}")
        return self._found


def network(confidence: float, box: Box, *, label: str = "short") -> Defect:
    return Defect(label, confidence, box, "net")


def golden(confidence: float, box: Box) -> Defect:
    return Defect("darker", confidence, box, "golden")


HERE, NEAR, THERE = Box(100, 100, 40, 30), Box(104, 98, 40, 30), Box(300, 300, 40, 30)


def both(net: list[Defect], gold: list[Defect], *, recipe: Recipe = RECIPE) -> list[tuple[str, float, str]]:
    found = BothDetector(Says("net", *net), Says("golden", *gold), recipe=recipe).detect(PICTURE)
    return [(one.label, one.confidence, one.found_by) for one in found]


def test_what_either_finds_is_listed_and_marked_by_whom_the_surest_first() -> None:
    assert both([network(0.7, HERE)], [golden(0.9, THERE)]) == [("darker", 0.9, "golden"), ("short", 0.7, "net")]


def test_what_both_find_is_listed_once_as_the_network_tells_it() -> None:
    assert both([network(0.7, HERE)], [golden(0.9, NEAR)]) == [("short", 0.7, "net+golden")]


def test_what_only_the_golden_board_is_sure_of_is_told_as_it_tells_it() -> None:
    assert both([network(0.55, HERE)], [golden(0.9, NEAR)]) == [("darker", 0.9, "net+golden")]


def test_what_neither_is_sure_of_is_told_as_the_network_tells_it() -> None:
    assert both([network(0.3, HERE)], [golden(0.4, NEAR)]) == [("short", 0.3, "net+golden")]


def test_fragments_that_the_golden_board_saw_of_one_thing_are_that_thing() -> None:
    fragments = [golden(0.6, Box(100, 100, 12, 12)), golden(0.8, Box(120, 115, 14, 12))]
    assert both([network(0.7, HERE)], fragments) == [("short", 0.7, "net+golden")]


def test_a_large_difference_around_a_small_defect_stays() -> None:
    around = golden(0.9, Box(20, 20, 300, 300))
    assert both([network(0.7, HERE)], [around]) == [("darker", 0.9, "golden"), ("short", 0.7, "net")]


def test_two_defects_of_the_network_within_one_difference_stay_two() -> None:
    two = [network(0.7, HERE), network(0.8, Box(102, 101, 38, 30), label="open")]
    assert both(two, [golden(0.9, NEAR)]) == [("open", 0.8, "net+golden"), ("short", 0.7, "net+golden")]


def test_what_only_the_golden_board_is_sure_of_is_told_once_whatever_labels_the_network_has_for_it() -> None:
    two = [network(0.55, HERE), network(0.3, HERE, label="open")]
    assert both(two, [golden(0.9, NEAR)]) == [("darker", 0.9, "net+golden"), ("open", 0.3, "net+golden")]


@pytest.mark.parametrize("turn", [1, -1])
def test_what_the_network_is_sure_of_is_told_once_also_where_it_has_a_weak_label_for_it(turn: int) -> None:
    two = [network(0.9, HERE), network(0.3, HERE, label="open")][::turn]
    assert both(two, [golden(0.8, NEAR)]) == [("short", 0.9, "net+golden"), ("open", 0.3, "net+golden")]


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        Recipe("r", 0.2),
        Recipe("r", 0.9),
        Recipe("r", 0.5, min_area_px=900.0),
        Recipe("r", 0.5, ignore=(Region("logo", Box(30, 30, 40, 40)),)),
    ],
)
def test_a_board_that_either_would_fail_fails(recipe: Recipe) -> None:
    random = np.random.default_rng(5)
    failed = 0
    for _ in range(300):
        boxes = [Box(*random.uniform(0, 60, 2).tolist(), *random.uniform(10, 60, 2).tolist()) for _ in range(6)]
        scores = random.uniform(0, 1, 6).tolist()
        net = [network(score, box) for score, box in zip(scores[:3], boxes[:3], strict=True)]
        gold = [golden(score, box) for score, box in zip(scores[3:], boxes[3:], strict=True)]
        alone = [decide(part, recipe).verdict for part in (net, gold)]
        together = decide(unite(net, gold, recipe=recipe, found_by="net+golden"), recipe).verdict
        assert (together is Verdict.FAIL) == (Verdict.FAIL in alone)
        failed += together is Verdict.FAIL
    assert failed > 0


def test_it_is_named_after_both_and_has_the_checksum_of_the_network() -> None:
    detector = BothDetector(Says("net"), Says("golden"), recipe=RECIPE)
    assert detector.model == ModelInfo("net+golden", "sha of net")
    assert detector.labels == ("net", "golden")
    assert detector.description == "net itself, beside the golden itself"
    assert detector.detect(PICTURE) == []


@pytest.mark.parametrize("which", ["net", "golden"])
def test_a_board_that_one_of_them_cannot_judge_is_not_judged(which: str) -> None:
    detector = BothDetector(
        Says("net", refuses=which == "net"), Says("golden", refuses=which == "golden"), recipe=RECIPE
    )
    with pytest.raises(DetectorError, match=f"{which} cannot judge"):
        detector.detect(PICTURE)
