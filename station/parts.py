"""Builds single parts from Settings: what the daemon and the commands both need."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from station import __version__
from station.config import Settings, load_trust
from station.decide import fails
from station.detectors.backends import Places, open_network
from station.detectors.find import find_model
from station.detectors.reference import Reference
from station.detectors.store import ModelFile, ModelStore
from station.detectors.yolo import NetworkDetector, Tiling, needs_template
from station.errors import ConfigError
from station.events import state_of, to_bytes
from station.health import Health
from station.line_sections import MqttTrigger
from station.memory import give_back
from station.mqtt import MqttLink, OnCommand
from station.mqtt_options import LinkOptions, Tls
from station.picture import DEEP_BITS
from station.sections import MB, FolderSection
from station.types import Box, Recipe, Region, TrustLimits

CREDENTIAL = "mqtt-password"  # the name in the unit's LoadCredential


def model_store(settings: Settings) -> ModelStore:
    """Where ``station model import`` puts models; the folder need not be there."""
    return ModelStore(settings.station.data_dir / "models")


def build_detector(settings: Settings, model: ModelFile | None = None) -> NetworkDetector:
    """The configured detector, or one of *model* in its place, loaded and warm. Raises ModelError, ConfigError."""
    wanted = settings.detector
    model = model or find_model(wanted.model, store=model_store(settings))
    network = open_network(
        model.path,
        backend=wanted.backend,
        threads=wanted.threads,
        sha256=model.sha256,
        places=Places.below(settings.station.data_dir),
    )
    detector = NetworkDetector(
        network,
        name=model.name,
        confidence=floor_of(settings),
        iou=wanted.iou,
        counts_from=settings.recipe.threshold_of,
        fails=partial(fails, recipe=build_limits(settings)),
        reference=build_reference(settings),
        tiling=build_tiling(settings),
    )
    if detector.paired and settings.recipe.template is None:
        raise ConfigError(needs_template(model.name))
    give_back()  # what building the network took, before the first run takes its own
    detector.warm_up()
    return detector


def build_tiling(settings: Settings) -> Tiling | None:
    """How big pictures are cut; None: they are scaled to fit."""
    match settings.detector.tiles:
        case "auto":
            return Tiling()
        case "off":
            return None
        case wanted:
            return Tiling(wanted.size, wanted.overlap_px)


def floor_of(settings: Settings) -> float:
    """
    The confidence from which a detector of these settings reports what it finds.

    Never above the recipe's thresholds: what counts there would pass unseen.
    """
    recipe = settings.recipe
    return min(settings.detector.confidence, recipe.threshold, *recipe.thresholds.values())


def build_reference(settings: Settings) -> Reference | None:
    """The recipe's template; None where it has none. Raises ConfigError that says what to do."""
    wanted, trust = settings.recipe, build_trust(settings)
    if wanted.template is None:
        return None
    max_shift_px = None if trust is None else trust.max_shift_px
    return Reference.read(
        wanted.template, limit=wanted.registration_limit, max_shift_px=max_shift_px, depth_bits=depth_bits(settings)
    )


def build_trust(settings: Settings) -> TrustLimits | None:
    """What good pictures taught; None: nothing was learned. Raises ConfigError."""
    wanted = settings.recipe.trust
    if wanted is None:
        return None
    file = load_trust(wanted)
    return TrustLimits(**{name: getattr(file, name) for name in TrustLimits.__slots__})


def build_recipe(settings: Settings) -> Recipe:
    """The recipe's limits. Raises ConfigError for a template that cannot be used."""
    wanted, reference = settings.recipe, build_reference(settings)
    return replace(
        build_limits(settings),
        template_sha256=None if reference is None else reference.sha256,
        registration_limit=None if reference is None else wanted.registration_limit,
        trust=build_trust(settings),
    )


def build_limits(settings: Settings) -> Recipe:
    """What the recipe says of defects, and of the picture's contrast: all of it for which no file is read."""
    wanted = settings.recipe
    return Recipe(
        name=wanted.name,
        default_threshold=wanted.threshold,
        thresholds=dict(wanted.thresholds),
        min_area_px=wanted.min_area_px,
        ignore=tuple(Region(one.name, Box(one.x, one.y, one.width, one.height)) for one in wanted.ignore),
        min_contrast=wanted.min_contrast,
    )


def check_labels(settings: Settings, labels: tuple[str, ...]) -> None:
    """
    Raises ConfigError for labels that the detector does not know: a threshold would hold for nothing, and a challenge
    that expects one would never be passed.
    """
    recipe = settings.recipe
    expected = () if recipe.challenge is None else recipe.challenge.expect
    for key, named in (("thresholds", recipe.thresholds), ("challenge.expect", expected)):
        unknown = sorted(set(named) - set(labels))
        if unknown:
            raise ConfigError(f"[recipe] {key}: {', '.join(unknown)}, but the model knows: {', '.join(labels)}")


def recipe_sha256(recipe: Recipe) -> str:
    """The recipe's identity: of its limits, in one order, so that two stations with equal limits agree."""
    regions = [[one.name, one.box.x, one.box.y, one.box.width, one.box.height] for one in recipe.ignore]
    limits: dict[str, object] = {
        "default_threshold": recipe.default_threshold,
        "thresholds": dict(sorted(recipe.thresholds.items())),
        "min_area_px": recipe.min_area_px,
        "min_contrast": recipe.min_contrast,
        "ignore": regions,
    }
    if recipe.template_sha256 is not None:
        limits |= {"template": recipe.template_sha256, "registration_limit": recipe.registration_limit}
    if recipe.trust is not None:
        limits |= {"trust": {name: getattr(recipe.trust, name) for name in TrustLimits.__slots__}}
    return hashlib.sha256(to_bytes(limits)).hexdigest()


def build_link(
    settings: Settings, health: Health, on_change: Callable[[], None], on_command: OnCommand
) -> MqttLink | None:
    """The link to the broker, not connected yet; None with ``[mqtt] enabled = false``: events wait in the ledger."""
    if not settings.mqtt.enabled:
        return None
    name = settings.station.name
    return MqttLink(
        link_options(settings),
        state=lambda state, why: state_of(state, station=name, version=__version__, why=why),
        health=health,
        on_change=on_change,
        on_command=on_command,
    )


def link_options(settings: Settings) -> LinkOptions:
    """Where the broker is and who we are, for the link and for those who only listen."""
    wanted = settings.mqtt
    return LinkOptions(
        host=wanted.host,
        port=wanted.port,
        protocol=wanted.protocol,
        client_id=wanted.client_id or f"station-{settings.station.name}",
        topic=settings.station.topic,
        username=wanted.username or None,
        password=lambda: broker_password(wanted.password_file),
        tls=Tls(wanted.ca_file, wanted.cert_file, wanted.key_file) if wanted.tls else None,
        window=wanted.window,
        keepalive_s=wanted.keepalive_s,
        ack_timeout_s=wanted.ack_timeout_s,
        commands=(*wanted.commands, *(["trigger"] if isinstance(settings.trigger, MqttTrigger) else [])),
    )


def picture_limits(settings: Settings) -> tuple[int, int]:
    """How large a picture may be (bytes, pixels): as the inbox says, also for who looks at single files."""
    folder = settings.source if isinstance(settings.source, FolderSection) else FolderSection()
    return int(folder.max_file_mb * MB), int(folder.max_pixels_mp * MB)


def depth_bits(settings: Settings) -> int:
    """How many of 16 bits the pictures use: as the inbox says, for its template and for single files, too."""
    return settings.source.depth_bits if isinstance(settings.source, FolderSection) else DEEP_BITS


def read_password(file: Path | None, key: str) -> str | None:
    """
    The password in *file*, None without one; read anew each time, so that it can be changed.

    Raises ConfigError naming *key* and the file when it cannot be read.
    """
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n") or None
    except OSError as error:
        why = error.strerror
    except UnicodeDecodeError:
        why = "it is not UTF-8 text"
    except ValueError:
        why = "that is no name of a file"
    raise ConfigError(
        f"{key} = {file} cannot be read ({why}): it must hold the password as UTF-8 text, readable by the station"
    )


def broker_password(file: Path | None) -> str | None:
    """The broker's alone: from *file*, else from the systemd credential, else none. Raises ConfigError."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if file is None and folder and (Path(folder) / CREDENTIAL).exists():
        return read_password(Path(folder) / CREDENTIAL, f"the credential {CREDENTIAL}")
    return read_password(file, "[mqtt] password_file")
