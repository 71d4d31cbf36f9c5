"""What ``station check`` says of recipes that hide more than anybody means, or wait for what cannot come."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from station.commands.finding import Finding
from station.config import Settings
from station.errors import ConfigError
from station.parts import build_reference, build_trust
from station.sections import FolderSection, RecipeSection

NEVER = 1.0  # a confidence that no network has


def recipes(settings: Settings) -> Iterator[Finding]:
    """Warnings only: such a recipe is allowed, and passes boards that nobody wants passed."""
    for part, own in recipes_of(settings):
        for seen in (*hidden(own.recipe, _size(own)), *_challenge(own)):
            yield Finding(f"recipe{part}", works=False, needed=False, seen=seen)


def recipes_of(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Each recipe's own settings, and how its findings are told apart."""
    yield "", settings
    for name in settings.recipes:
        yield f" of [recipes.{name}]", settings.of_recipe(name)


def hidden(recipe: RecipeSection, size: tuple[int, int] | None) -> Iterator[str]:
    """What *recipe* keeps from ever failing a board of *size* (width, height in pixels; None: not known). Pure."""
    if recipe.threshold >= NEVER:
        yield "threshold = 1: none reaches that, and every board passes, but for labels with a threshold of their own"
    for label, threshold in recipe.thresholds.items():
        if threshold >= NEVER:
            yield f"thresholds.{label} = 1: no {label} reaches that, and none ever fails a board"
    if size is None:
        return
    width, height = size
    if recipe.min_area_px >= width * height:
        yield f"min_area_px = {recipe.min_area_px:g} is the whole picture of {width}x{height}: every defect is hidden"
    left = np.ones((height, width), np.bool_)
    for region in recipe.ignore:
        if region.x < 0 or region.y < 0 or region.x + region.width > width or region.y + region.height > height:
            yield f'ignore "{region.name}" reaches beyond the picture of {width}x{height}: is it meant for another?'
        across = slice(max(0, round(region.x)), max(0, round(region.x + region.width)))
        left[max(0, round(region.y)) : max(0, round(region.y + region.height)), across] = False
    if not left.any():
        yield f"ignore covers the whole picture of {width}x{height}: every defect is hidden, and every board passes"


def _size(settings: Settings) -> tuple[int, int] | None:
    """Width and height of its boards, where a trust file or a template tells; who cannot be read is told elsewhere."""
    try:
        limits, reference = build_trust(settings), build_reference(settings)
    except ConfigError:
        return None
    if limits is not None:
        return limits.width, limits.height
    return None if reference is None else (reference.template.shape[1], reference.template.shape[0])


def _challenge(settings: Settings) -> Iterator[str]:
    challenge, source = settings.recipe.challenge, settings.source
    if challenge is None or not isinstance(source, FolderSection) or source.serial_pattern:
        return
    if "challenge" not in (*settings.mqtt.commands, *settings.http.commands):
        yield (
            "a challenge that nothing can pass, so no board ever does: this folder's boards have no serials ([source] "
            "serial_pattern), and the command challenge is allowed nowhere (commands of [mqtt] or [http])"
        )
