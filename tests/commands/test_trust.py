"""``station trust learn``: what it makes of a folder of good boards, and how the line judges by it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from station.commands.trust import Taught, limits_of
from station.config import Settings, load, load_trust
from station.errors import ConfigError
from station.inspection import Bench, inspect
from station.judge import build_judge
from station.parts import build_recipe, recipe_sha256
from station.trust import Look
from station.types import Image, Recipe, Verdict
from tests.boards import board
from tests.detectors.layouts import layout, photo, shifted

GOOD = 6


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one product: a little shifted, noisy, in changing light."""
    folder = tmp_path_factory.mktemp("good")
    for number in range(GOOD):
        cv2.imwrite(str(folder / f"{number}.png"), one(number))
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "template.png"
    cv2.imwrite(str(path), layout(1))
    return path


def one(number: int, *, right_px: int | None = None) -> Image:
    by = number % 3 if right_px is None else right_px
    return photo(shifted(layout(1), by, -by), noise=3, gain=0.9 + number / 50, seed=number)


def partly_covered(image: Image) -> Image:
    """A corner, so little that the picture as a whole is bright enough."""
    covered = image.copy()
    covered[: covered.shape[0] // 4, covered.shape[1] // 2 :] = 0
    return covered


def learned(folder: Path, target: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "station", "trust", "learn", str(folder), "--save", str(target), *more],
        cwd=target.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def settings(good: Path, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A station with the golden board, whose recipe trusts what the good pictures taught."""
    folder = tmp_path_factory.mktemp("station")
    config = folder / "station.toml"
    recipe = f'[detector]\nkind = "golden"\n[recipe]\ntemplate = "{template}"\n'
    config.write_text(recipe)
    done = learned(good, folder / "limits.toml", "-c", str(config))
    assert done.returncode == 0, done.stderr
    assert f'[recipe]\ntrust = "{folder / "limits.toml"}"' in done.stdout
    config.write_text(f'{recipe}trust = "{folder / "limits.toml"}"\n')
    return load(config)


def judged(settings: Settings, image: Image) -> tuple[Verdict, str]:
    recipe: Recipe = build_recipe(settings)
    bench = Bench(
        detector=build_judge(settings).detector,
        recipe=recipe,
        recipe_sha256=recipe_sha256(recipe),
        station="aoi-1",
        clock_synced=lambda: True,
    )
    decision = inspect(board(image=image).frame, bench).decision
    return decision.verdict, decision.reason


def test_the_good_pictures_pass_by_their_own_limits(settings: Settings) -> None:
    for number in range(GOOD):
        assert judged(settings, one(number))[0] is Verdict.PASS


SPOILT: dict[str, Callable[[Image], Image]] = {
    "wrong size": lambda image: image[:600],
    "too dark": lambda image: (image * 0.3).astype(np.uint8),
    "dark in places: 2 of 16": partly_covered,
    "too bright": lambda image: np.clip(image.astype(np.int16) + 70, 0, 255).astype(np.uint8),
    "too flat": lambda image: (image * 0.2 + 130).astype(np.uint8),
    "out of focus": lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5), np.uint8),
    "shifted": lambda _image: one(0, right_px=12),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_picture_that_is_spoilt_is_unknown_with_the_figure_in_its_reason(what: str, settings: Settings) -> None:
    verdict, reason = judged(settings, SPOILT[what](one(0)))
    assert verdict is Verdict.UNKNOWN
    assert what in reason
    assert "trust limits" in reason or what == "wrong size"


def test_a_network_that_compares_nothing_does_not_judge_a_board_out_of_place_either(settings: Settings) -> None:
    network = settings.model_copy(update={"detector": settings.detector.model_copy(update={"kind": "network"})})
    verdict, reason = judged(network, one(0, right_px=12))
    assert verdict is Verdict.UNKNOWN
    assert "shifted" in reason
    assert "shifted" not in judged(network, one(0))[1]


def test_the_limits_are_part_of_what_the_recipe_is(settings: Settings) -> None:
    plain = settings.model_copy(update={"recipe": settings.recipe.model_copy(update={"trust": None})})
    assert recipe_sha256(build_recipe(settings)) != recipe_sha256(build_recipe(plain))


def test_limits_that_were_learned_before_parts_were_looked_at_still_hold(settings: Settings, tmp_path: Path) -> None:
    assert settings.recipe.trust is not None
    older = tmp_path / "limits.toml"
    older.write_text(
        "".join(
            line
            for line in settings.recipe.trust.read_text().splitlines(keepends=True)
            if not line.startswith("min_parts")
        )
    )
    recipe = settings.recipe.model_copy(update={"trust": older})
    assert judged(settings.model_copy(update={"recipe": recipe}), one(0))[0] is Verdict.PASS


def test_a_file_of_limits_is_never_written_over(good: Path, tmp_path: Path) -> None:
    target = tmp_path / "limits.toml"
    target.write_text("mine")
    done = learned(good, target)
    assert done.returncode == 2
    assert "is there already" in done.stderr
    assert target.read_text() == "mine"


def test_limits_that_were_mistyped_are_refused_with_their_key(good: Path, tmp_path: Path) -> None:
    target = tmp_path / "limits.toml"
    assert learned(good, target).returncode == 0
    target.write_text(target.read_text().replace("min_contrast", "min_contrasts"))
    with pytest.raises(ConfigError, match=r"min_contrast.*station trust learn"):
        load_trust(target)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: [(folder / f"{n}.png").unlink() for n in range(2, GOOD)], "2 pictures teach too little"),
        (lambda folder: (folder / "notes.txt").write_text("x"), "notes.txt"),
        (lambda folder: cv2.imwrite(str(folder / "odd.png"), one(0)[:600]), "odd.png"),
        (lambda folder: cv2.imwrite(str(folder / "soft.png"), cv2.GaussianBlur(one(0), (0, 0), 3)), "soft.png"),
        (lambda folder: cv2.imwrite(str(folder / "black.png"), one(0) * 0), "black.png"),
    ],
)
def test_what_is_no_good_board_is_named(spoil: object, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "good"
    folder.mkdir()
    for number in range(GOOD):
        cv2.imwrite(str(folder / f"{number}.png"), one(number))
    assert callable(spoil)
    spoil(folder)
    done = learned(folder, tmp_path / "limits.toml")
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "limits.toml").exists()


def test_the_same_picture_several_times_teaches_nothing(good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(good, folder)
    shutil.copy(folder / "1.png", folder / "again.png")
    done = learned(folder, tmp_path / "limits.toml")
    assert done.returncode == 2
    assert "1.png and again.png are the same picture: take one away, and give another board's" in done.stderr
    assert not (tmp_path / "limits.toml").exists()


def test_the_limits_lie_around_what_was_seen() -> None:
    looks = [Look(640, 480, 100 + number, 200 + number, 10 + number, (50.0 + number,) * 16) for number in range(5)]
    limits = limits_of([Taught(str(n), look, float(n)) for n, look in enumerate(looks)])
    assert (limits.width, limits.height) == (640, 480)
    assert (limits.min_brightness, limits.max_brightness) == (80.0, 124.8)
    assert (limits.min_contrast, limits.min_sharpness, limits.max_shift_px) == (140.0, 5.0, 9.0)
    assert limits.min_parts == (25.0,) * 16
    assert limits_of([Taught(str(n), look, None) for n, look in enumerate(looks)]).max_shift_px is None
