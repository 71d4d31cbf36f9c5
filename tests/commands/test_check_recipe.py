"""A recipe that hides more than anybody means is told before a board is."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from station.commands.check_recipe import hidden, recipes
from station.config import Settings, load
from station.sections import RecipeSection
from tests.detectors.layouts import layout

SIZE = (640, 480)


def region(x: float, y: float, width: float, height: float, name: str = "logo") -> dict[str, object]:
    return {"name": name, "x": x, "y": y, "width": width, "height": height}


def test_an_ordinary_recipe_is_nothing_to_tell_of() -> None:
    recipe = RecipeSection(
        threshold=0.99, thresholds={"open": 0.3}, min_area_px=50, ignore=(region(0, 0, 640, 479), region(9, 9, 5, 5))
    )
    assert not list(hidden(recipe, SIZE))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"threshold": 1.0}, "threshold = 1: none reaches that"),
        ({"thresholds": {"short": 1}}, "thresholds.short = 1: no short reaches that"),
        ({"min_area_px": 640 * 480}, "min_area_px = 307200 is the whole picture of 640x480"),
        ({"ignore": (region(0, 0, 640, 480),)}, "ignore covers the whole picture"),
        ({"ignore": (region(0, 0, 320, 480), region(320, 0, 320, 480))}, "ignore covers the whole picture"),
        ({"ignore": (region(10, 10, 700, 20),)}, 'ignore "logo" reaches beyond the picture of 640x480'),
        ({"ignore": (region(-1, 10, 7, 20),)}, 'ignore "logo" reaches beyond the picture of 640x480'),
    ],
)
def test_what_hides_every_defect_is_told(wrong: dict[str, object], said: str) -> None:
    assert any(said in one for one in hidden(RecipeSection.model_validate(wrong), SIZE))


def test_where_nobody_knows_the_size_only_thresholds_are_looked_at() -> None:
    recipe = RecipeSection(min_area_px=1e9, threshold=1.0)
    assert len(list(hidden(recipe, None))) == 1


def settings_of(folder: Path, text: str) -> Settings:
    file = folder / "station.toml"
    file.write_text(f'[source]\npath = "{folder}/in"\n{text}')
    return load(file)


def told(folder: Path, text: str) -> list[tuple[str, str]]:
    return [(one.part, one.seen) for one in recipes(settings_of(folder, text)) if not one.works and not one.needed]


def test_the_size_is_the_templates_and_each_recipe_is_told_apart(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "template.png"), layout(1))
    height, width = layout(1).shape[:2]
    text = f'[recipes.board-b]\nserial_pattern = "^B"\ntemplate = "{tmp_path}/template.png"\nmin_area_px = 1e8\n'
    ((part, seen),) = told(tmp_path, text)
    assert part == "recipe of [recipes.board-b]"
    assert f"{width}x{height}" in seen
    assert not told(tmp_path, text.replace("1e8", "10"))


def test_a_challenge_that_nothing_can_pass_is_told(tmp_path: Path) -> None:
    text = '[recipe]\nchallenge = { serials = ["BAD-1"], expect = ["short"] }\n'
    ((_, seen),) = told(tmp_path, text)
    assert "serial_pattern" in seen
    assert "commands of [mqtt] or [http]" in seen
    assert not told(tmp_path, f'{text}[mqtt]\ncommands = ["challenge"]\n')
    assert not told(tmp_path, f"serial_pattern = '(BAD-.)'\n{text}")
