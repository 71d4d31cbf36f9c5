"""Builds what judges by each recipe: its detector, its limits, and its challenge."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import structlog

from station.challenge import Announcement, Challenge, Rule
from station.clock import Clock
from station.config import Settings
from station.detectors.network import cores
from station.folders import make_folder
from station.health import Health
from station.inspection import Bench
from station.judge import judges
from station.ledger import SqliteLedger
from station.parts import build_recipe, recipe_sha256
from station.recipes import Recipes
from station.turns import Turns
from station.types import Decision, Defect, Frame, Image, ModelDetector, ModelInfo

log = structlog.get_logger(__name__)

Withhold = Callable[[Frame, Decision], Decision]


def build_recipes(
    settings: Settings,
    detector: ModelDetector,
    *,
    ledger: SqliteLedger,
    health: Health,
    announcement: Announcement,
    clock_synced: Callable[[], bool],
) -> Recipes:
    """The benches of all recipes. Raises ConfigError naming the recipe, LedgerError, ModelError."""
    data_dir = settings.station.data_dir
    benches: dict[str, Bench] = {}
    for name, judge in judges(settings, detector).items():
        own = settings.of_recipe(name)
        recipe = build_recipe(own)
        sha256 = recipe_sha256(recipe)
        table, withhold = own.recipe.challenge, _no_challenge(announcement, name)
        if table is not None:
            challenge = Challenge(
                Rule(frozenset(table.serials), table.expect, table.every_boards, table.starts, table.on_change),
                kept=make_folder(data_dir / "challenges", "[station] data_dir") / f"{name}.json",
                announcement=announcement,
                boards_after=ledger.boards_after,
                health=health,
            )
            withhold = _withhold(challenge, judge, sha256)
        benches[name] = Bench(
            detector=judge,
            recipe=recipe,
            recipe_sha256=sha256,
            station=settings.station.name,
            clock_synced=clock_synced,
            withhold=withhold,
            half=judge.half(),
        )
    patterns = [(re.compile(one.serial_pattern), name) for name, one in settings.recipes.items() if one.serial_pattern]
    return Recipes(benches, plain=settings.recipe.name, patterns=patterns, kept=data_dir / "recipe.json")


def plain_benches(settings: Settings, detector: ModelDetector, *, abreast: bool = False) -> dict[str, Bench]:
    """
    The benches without a ledger and without challenges, for those who only judge pictures.

    *abreast*: two at a time. Raises ConfigError, ModelError.
    """
    benches: dict[str, Bench] = {}
    for name, judge in judges(settings, detector).items():
        recipe = build_recipe(settings.of_recipe(name))
        half = judge.half() if abreast else None
        benches[name] = Bench(judge, recipe, recipe_sha256(recipe), settings.station.name, Clock().synced, half=half)
    return benches


def turns_at(settings: Settings, *, guests_abreast: bool) -> Turns:
    """Who may use the network of *settings*, and when."""
    return Turns(settings.detector.threads or cores(), guests_abreast=guests_abreast)


def guest(bench: Bench, turns: Turns) -> Bench:
    """*bench* for the inspection API: it takes a guest's turns, and the line's challenges are none of its business."""
    return replace(bench, detector=GuestDetector(bench, turns), withhold=None, half=None)


class GuestDetector:
    """The detector of *bench*, run in a guest's turns."""

    def __init__(self, bench: Bench, turns: Turns) -> None:
        self._bench = bench
        self._turns = turns

    @property
    def model(self) -> ModelInfo:
        return self._bench.detector.model

    def detect(self, image: Image) -> list[Defect]:
        with self._turns.guest() as alone:
            return self._bench.detector_for(alone=alone).detect(image)


def _no_challenge(announcement: Announcement, recipe: str) -> Withhold:
    """An announced challenge is for the next board only: where its recipe has none, no later board gets it instead."""

    def withhold(frame: Frame, decision: Decision) -> Decision:
        if announcement.take(frame):
            log.warning("challenge not taken", event_id=frame.id, reason=f"the recipe {recipe} has no challenge")
        return decision

    return withhold


def _withhold(challenge: Challenge, judge: ModelDetector, recipe_sha256: str) -> Withhold:
    def withhold(frame: Frame, decision: Decision) -> Decision:
        return challenge.judge(frame, decision, model=judge.model, recipe_sha256=recipe_sha256)

    return withhold
