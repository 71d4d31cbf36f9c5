"""What judges the boards, as configured: the golden board's part of it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from station import judge
from station.commands import check as checking
from station.config import Settings
from station.decide import decide
from station.detectors.both import BothDetector
from station.detectors.golden import GoldenDetector
from station.errors import ConfigError, DetectorError
from station.judge import build_golden, build_judge, judges, ready_judge
from station.model_choice import Ready
from station.parts import build_recipe, build_reference, recipe_sha256
from station.types import Verdict
from tests.detectors.layouts import COPPER, layout, photo
from tests.detectors.models import save
from tests.detectors.outputs import rows
from tests.detectors.test_both import Says


def settings(**sections: object) -> Settings:
    return Settings.model_validate(sections)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.png"
    cv2.imwrite(str(path), layout(1))
    return path


@pytest.mark.parametrize("kind", ["golden", "both"])
def test_the_golden_board_needs_a_template_and_the_settings_say_so(kind: str) -> None:
    with pytest.raises(ValueError, match=f'kind = "{kind}" needs recipe.template: the picture of a defect-free board'):
        settings(detector={"kind": kind})
    with pytest.raises(ConfigError, match=r"\[recipe\] template: the golden board needs one"):
        build_golden(settings())


def test_a_network_passes_its_self_test_beside_a_template_of_a_product_that_it_was_not_tested_with(
    template: Path, tmp_path: Path
) -> None:
    wanted = settings(station={"data_dir": tmp_path}, recipe={"template": template})
    ready = ready_judge(wanted, on_progress=lambda _doing: None)
    assert ready.fallback is None
    with pytest.raises(DetectorError, match="does not fit its template"):
        ready.detector.detect(photo(layout(2)))


def test_the_golden_board_judges_alone_and_loads_no_model(template: Path) -> None:
    wanted = settings(detector={"kind": "golden", "model": "/no/such.onnx"}, recipe={"template": template})
    ready = ready_judge(wanted, on_progress=lambda _doing: None)
    assert isinstance(ready.detector, GoldenDetector)
    assert ready.fallback is None
    board = layout(1)
    assert decide(ready.detector.detect(photo(board)), build_recipe(wanted)).verdict is Verdict.PASS
    cv2.circle(board, (320, 320), 60, COPPER, cv2.FILLED)
    assert decide(ready.detector.detect(photo(board)), build_recipe(wanted)).verdict is Verdict.FAIL


def test_both_judge_side_by_side_and_a_model_that_gave_way_is_still_told(
    template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "ready_detector", lambda *_, **__: Ready(Says("net"), "net judges in its place"))
    wanted = settings(detector={"kind": "both"}, recipe={"template": template})
    ready = ready_judge(wanted, on_progress=lambda _doing: None)
    assert isinstance(ready.detector, BothDetector)
    assert ready.detector.labels == ("net", "darker", "brighter")
    assert ready.fallback == "net judges in its place"


def test_without_a_golden_board_the_network_judges_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Says("net")
    monkeypatch.setattr(judge, "build_detector", lambda _settings: network)
    assert build_judge(settings()).detector is network


def test_what_the_recipe_counts_is_listed_by_the_golden_board_too(template: Path) -> None:
    board = layout(1)
    cv2.circle(board, (320, 320), 60, COPPER, cv2.FILLED)
    nearly_all = settings(
        detector={"kind": "golden", "confidence": 1.0}, recipe={"template": template, "threshold": 0.3}
    )
    assert build_golden(nearly_all).detect(photo(board))


def test_the_template_and_its_limit_are_part_of_the_recipes_identity(tmp_path: Path, template: Path) -> None:
    other = tmp_path / "other.png"
    cv2.imwrite(str(other), layout(2))
    same = tmp_path / "copy.png"
    same.write_bytes(template.read_bytes())

    def identity(**recipe: object) -> str:
        return recipe_sha256(build_recipe(settings(recipe=recipe)))

    assert identity(template=template) == identity(template=same)
    identities = {
        identity(),
        identity(template=template),
        identity(template=other),
        identity(template=template, registration_limit=0.8),
    }
    assert len(identities) == 4
    assert identity(registration_limit=0.8) == identity(), "it limits nothing without a template"


def test_a_recipe_whose_template_cannot_be_read_is_refused(tmp_path: Path) -> None:
    wanted = settings(recipe={"template": tmp_path / "none.png"})
    for build in (build_recipe, build_reference, build_golden):
        with pytest.raises(ConfigError, match=r"none\.png: cannot be read \(No such file"):
            build(wanted)


def test_check_shows_the_template_and_its_size(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checking, "Console", lambda **_: Console(soft_wrap=True, highlight=False, no_color=True))
    wanted = {"detector": {"kind": "golden"}, "mqtt": {"enabled": False}, "station": {"data_dir": tmp_path / "data"}}
    assert checking.check(settings(**wanted, recipe={"template": template}))
    told = capsys.readouterr().out
    assert "ok    template: template (640x640; sha256 " in told
    assert "ok    model: golden board template (640x640; " in told
    assert not checking.check(settings(**wanted, recipe={"template": tmp_path / "none.png"}))
    told = capsys.readouterr().out
    assert f"FAIL  template: [recipe] template = {tmp_path / 'none.png'}: cannot be read" in told
    assert "Traceback" not in told


def test_each_recipe_tells_the_detector_what_counts_by_it(tmp_path: Path) -> None:
    """400 vias that no threshold lets count, and a short that is less sure: by the one recipe it fails the board."""
    places = [(8 + 30 * x, 8 + 30 * y, 20, 20) for y in range(20) for x in range(20)]
    network = rows(*[(*place, 0.9, 0) for place in places], (320, 320, 30, 30, 0, 0.8), (320, 320, 30, 30, 0, 0))
    model = save(tmp_path / "m.onnx", network, names="{0: 'via', 1: 'short'}", size=(640, 640))
    wanted = settings(
        station={"data_dir": tmp_path},
        detector={"model": str(model), "backend": "onnxruntime"},
        recipe={"thresholds": {"via": 1.0}},
        recipes={"vias": {"name": "vias", "thresholds": {"via": 0.5}}},
    )
    board = np.full((640, 640, 3), 114, np.uint8)
    by_recipe = judges(wanted, build_judge(wanted).detector)
    found = by_recipe["default"].detect(board)
    assert decide(found, build_recipe(wanted)).reason.startswith("short 0.80")
    assert len(found) == 300
    with pytest.raises(DetectorError, match="more than 300 detections that count"):
        by_recipe["vias"].detect(board)


def test_each_recipe_tells_the_detector_what_it_hides(tmp_path: Path) -> None:
    """Two tiles that share a half: what the left one cut and calls open, the right one knows as a short."""
    network = rows((52, 32, 24, 20, 0.8, 0), (20, 32, 24, 20, 0, 0.7), (20, 32, 24, 20, 0, 0))
    model = save(tmp_path / "m.onnx", network)
    wanted = settings(
        station={"data_dir": tmp_path},
        detector={"model": str(model), "backend": "onnxruntime"},
        recipes={"large": {"name": "large", "min_area_px": 24 * 20 + 1}},
    )
    by_recipe = judges(wanted, build_judge(wanted).detector)
    found = {
        name: sorted((one.label, one.box.x) for one in detector.detect(np.zeros((64, 96, 3), np.uint8)))
        for name, detector in by_recipe.items()
    }
    assert found == {
        "default": [("open", 72), ("short", 8), ("short", 40)],
        "large": [("open", 40), ("open", 72), ("short", 8), ("short", 40)],
    }
