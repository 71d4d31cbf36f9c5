"""Which recipe judges a board."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import structlog

from station.errors import CommandError
from station.inspection import Bench
from station.recipes import KEEP_S, Recipes
from station.testing import FakeDetector
from station.types import Frame, Recipe, Trigger


def bench(name: str) -> Bench:
    return Bench(FakeDetector(), Recipe(name, 0.5), "sha", "aoi-1", lambda: True)


def recipes(folder: Path, *, names: str = "default a b", **options: Any) -> Recipes:
    return Recipes(
        {name: bench(name) for name in names.split()},
        plain="default",
        patterns=[(re.compile("^A-"), "a"), (re.compile("-B"), "b")] if "b" in names else [],
        kept=folder / "recipe.json",
        **options,
    )


def chosen(of: Recipes, serial: str | None) -> str:
    frame = Frame("id", None, datetime.now(timezone.utc), "camera", board_serial=serial)
    return of.choose(frame).recipe.name


@pytest.mark.parametrize(
    ("serial", "recipe"), [(None, "default"), ("X", "default"), ("A-1", "a"), ("X-B", "b"), ("A-B", "a")]
)
def test_the_serial_chooses_and_the_first_pattern_wins(tmp_path: Path, serial: str | None, recipe: str) -> None:
    assert chosen(recipes(tmp_path), serial) == recipe


def test_a_command_chooses_for_boards_that_no_serial_decides_also_after_a_restart(tmp_path: Path) -> None:
    first = recipes(tmp_path)
    assert first.use("b") == {"recipe": "b", "before": "default"}
    assert first.use("b") == {"recipe": "b", "before": "b"}
    again = recipes(tmp_path)
    assert (chosen(again, None), chosen(again, "A-1"), again.in_force) == ("b", "a", "b")
    again.use("default")
    assert chosen(recipes(tmp_path), None) == "default"


def test_a_board_that_waits_is_judged_by_the_recipe_of_its_trigger_and_not_by_one_commanded_later(
    tmp_path: Path,
) -> None:
    now_s = 10.0
    of = recipes(tmp_path, monotonic=lambda: now_s)
    of.use("a")
    now_s = 20.0
    of.use("b")

    def judged(at_s: float) -> str:
        now = datetime.now(timezone.utc)
        frame = Frame("id", None, now, "camera", trigger=Trigger("id", "serial", now, at_s))
        return of.choose(frame).recipe.name

    assert [judged(at_s) for at_s in (float("-inf"), 9.0, 10.0, 19.9, 20.0, 21.0)] == [
        "default",
        "default",
        "a",
        "a",
        "b",
        "b",
    ]
    assert chosen(of, None) == "b"
    for _ in range(200):
        of.use("b")
    now_s = 30.0
    of.use("a")
    assert judged(21.0) == "b", "a command that is repeated takes nothing from those who wait"


def test_what_was_in_force_is_forgotten_when_nobody_can_wait_for_it_any_more(tmp_path: Path) -> None:
    now_s = 10.0
    of = recipes(tmp_path, monotonic=lambda: now_s)
    for number in range(100):
        now_s += KEEP_S / 4
        of.use("ab"[number % 2])
    assert len(of._choices) <= 6  # what is kept is nobody's affair, but how much


def test_an_unknown_recipe_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    of = recipes(tmp_path)
    with pytest.raises(CommandError, match='no recipe "x"; known are a, b, default'):
        of.use("x")
    assert chosen(of, None) == "default"


def test_a_choice_that_is_no_longer_configured_is_forgotten(tmp_path: Path) -> None:
    recipes(tmp_path).use("b")
    assert chosen(recipes(tmp_path, names="default a"), None) == "default"
    assert chosen(recipes(tmp_path), None) == "default", "and does not come back with the next configuration"


def test_what_a_command_chose_in_an_earlier_run_is_said_at_the_start(tmp_path: Path) -> None:
    recipes(tmp_path).use("b")
    with structlog.testing.capture_logs() as lines:
        recipes(tmp_path)
    assert [(line["event"], line["recipe"]) for line in lines] == [("recipe in force", "b")]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"recipe": 5}', "\xff"])
def test_a_damaged_memory_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.json").write_bytes(text.encode("latin-1"))
    assert chosen(recipes(tmp_path), None) == "default"


def test_a_choice_that_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    of = recipes(tmp_path / "gone")
    with pytest.raises(CommandError, match="cannot be kept"):
        of.use("b")
    assert chosen(of, None) == "default"
