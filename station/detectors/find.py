"""Finds a model by the name that the configuration gives it."""

from __future__ import annotations

import json
from pathlib import Path

from station.assets import ASSETS
from station.detectors.choices import Choices
from station.detectors.converted import converted
from station.detectors.store import BUNDLED, SHIPPED, STORE, ModelFile, ModelStore
from station.errors import ModelError


def find_model(wanted: str, *, store: ModelStore | None = None, assets: Path = ASSETS) -> ModelFile:
    """
    *wanted* as ``[detector] model`` has it: ``store`` (what ``use`` chose), a shipped one, a file, or one in *store*.

    A file is what ends in .onnx or .pt or has a / in it; of a .pt, what it was converted to before. Raises ModelError
    saying what would be accepted.
    """
    if wanted == STORE:
        wanted = BUNDLED if store is None else Choices(store).current()
    if wanted in SHIPPED:
        return ModelFile(assets / f"{wanted}.onnx", wanted, _pinned(assets / f"{wanted}.json"))
    path = Path(wanted)
    if path.suffix == ".pt":
        return _converted(path, store)
    if path.is_file():
        return ModelFile(path, path.stem, None)
    if path.suffix == ".onnx" or "/" in wanted:
        raise ModelError(f"[detector] model = {wanted}: there is no such file")
    names = [] if store is None else store.names()
    if store is None or wanted not in names:
        known = ", ".join([*SHIPPED, *names])
        raise ModelError(f"[detector] model = {wanted}: neither {known}, nor an .onnx or .pt file that is there")
    return store.file(wanted)


def _converted(pt: Path, store: ModelStore | None) -> ModelFile:
    if not pt.is_file():
        raise ModelError(f"[detector] model = {pt}: there is no such file")
    found = None if store is None else converted(pt, store)
    if found is None:
        raise ModelError(
            f"{pt} is not converted to ONNX yet: station run and serve do that at their start (it needs the extra "
            "ultralytics); "
            f"or do it where ultralytics is installed: yolo export model={pt} format=onnx imgsz=640"
        )
    return found


def _pinned(card: Path) -> str:
    """The sha256 that a bundled model's card names: without it a damaged model could not be told from a good one."""
    try:
        return str(json.loads(card.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{card} names no sha256 ({error}): install the station again") from None
