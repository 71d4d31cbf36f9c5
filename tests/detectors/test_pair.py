"""The shipped network that compares: a sample board beside its template."""

from __future__ import annotations

import numpy as np
import pytest

from station.assets import SAMPLES
from station.config import Settings
from station.decide import decide
from station.judge import build_judge
from station.parts import build_recipe
from station.picture import decode
from station.types import Detector, Image, Verdict

BOARD, TEMPLATE = SAMPLES / "fail-open-44000062.jpg", SAMPLES / "pass-template-44000062.jpg"


@pytest.fixture(scope="module")
def settings() -> Settings:
    return Settings.model_validate(
        {
            "detector": {"model": "pcb-pair", "backend": "onnxruntime"},
            "recipe": {"template": TEMPLATE, "threshold": 0.25},
        }
    )


@pytest.fixture(scope="module")
def detector(settings: Settings) -> Detector:
    return build_judge(settings).detector


def picture(name: object) -> Image:
    image = decode(SAMPLES.joinpath(str(name)).read_bytes())
    assert image is not None
    return image


def test_it_finds_five_of_six_labelled_defects_and_nothing_else(settings: Settings, detector: Detector) -> None:
    """The sixth is a spur at the picture's edge that grows together with the short beside it: it tells the short."""
    decision = decide(detector.detect(picture(BOARD)), build_recipe(settings))
    assert decision.verdict is Verdict.FAIL
    found = sorted(one.defect.label for one in decision.defects if one.counts)
    assert found == ["copper", "mousebite", "open", "pin-hole", "short"]


@pytest.mark.parametrize(("right_px", "down_px"), [(0, 0), (3, -2)])
def test_the_template_itself_passes_also_where_it_lies_a_little_off(
    settings: Settings, detector: Detector, right_px: int, down_px: int
) -> None:
    image = np.roll(picture(TEMPLATE), (down_px, right_px), axis=(0, 1))
    assert decide(detector.detect(image), build_recipe(settings)).verdict is Verdict.PASS
