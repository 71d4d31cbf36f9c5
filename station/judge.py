"""What judges the boards of a station: a network, the golden board, or both, each ready to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from station.config import Settings
from station.decide import fails
from station.detectors.both import BothDetector
from station.detectors.golden import GoldenDetector
from station.detectors.yolo import NetworkDetector, needs_template
from station.errors import ConfigError
from station.model_choice import OnProgress, Ready, ready_detector
from station.parts import build_detector, build_limits, build_recipe, build_reference, check_labels, floor_of
from station.types import ModelDetector


def ready_judge(settings: Settings, *, on_progress: OnProgress) -> Ready:
    """What the daemon runs: its network, if any, self-tested or the last good one. Raises ModelError, ConfigError."""
    return _judge(settings, lambda: ready_detector(settings, on_progress=on_progress))


def build_judge(settings: Settings) -> Ready:
    """The same with the configured network as it is. Raises ModelError, ConfigError."""
    return _judge(settings, lambda: Ready(build_detector(settings)))


def build_golden(settings: Settings) -> GoldenDetector:
    """The golden board of the recipe's template. Raises ConfigError."""
    reference = build_reference(settings)
    if reference is None:  # the settings refuse that already
        raise ConfigError('[recipe] template: the golden board needs one: template = "FILE"')
    return GoldenDetector(reference, confidence=floor_of(settings))


def judges(settings: Settings, ready: ModelDetector) -> dict[str, ModelDetector]:
    """What judges by each recipe, by its name; the network of *ready* is in all of them. Raises ConfigError."""
    found = {settings.recipe.name: ready}
    found |= {name: _of_recipe(name, settings, ready) for name in settings.recipes}
    return found


def _of_recipe(name: str, settings: Settings, ready: ModelDetector) -> ModelDetector:
    try:
        return _beside(settings.of_recipe(name), ready)
    except ConfigError as error:
        raise ConfigError(str(error).replace("[recipe]", f"[recipes.{name}]")) from None


def _beside(settings: Settings, ready: ModelDetector) -> ModelDetector:
    check_labels(settings, ready.labels)
    match ready:
        case NetworkDetector():
            if ready.paired and settings.recipe.template is None:
                raise ConfigError(needs_template(ready.model.name))
            return _on(ready, settings)
        case BothDetector(network=NetworkDetector() as network):
            return BothDetector(_on(network, settings), build_golden(settings), recipe=build_recipe(settings))
        case _:
            return build_golden(settings)


def _on(network: NetworkDetector, settings: Settings) -> NetworkDetector:
    return network.beside(
        build_reference(settings),
        confidence=floor_of(settings),
        counts_from=settings.recipe.threshold_of,
        fails=partial(fails, recipe=build_limits(settings)),
    )


def _judge(settings: Settings, network: Callable[[], Ready]) -> Ready:
    """By kind; mypy proves that none is left out, since a Ready must come of each."""
    match settings.detector.kind:
        case "network":
            return network()
        case "golden":
            return Ready(build_golden(settings))
        case "both":
            golden = build_golden(settings)  # first: it takes no time, and what is wrong with it is said at once
            ready = network()
            return replace(ready, detector=BothDetector(ready.detector, golden, recipe=build_recipe(settings)))
