"""Finds a model: the bundled one by its name, or a file by its path."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from station.assets import ASSETS
from station.errors import ModelError

BUNDLED = "pcb-demo"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Where a model lies, its name in events, and the sha256 (hex) that it must have; None: whatever it has."""

    path: Path
    name: str
    sha256: str | None


def find_model(wanted: str, *, assets: Path = ASSETS) -> ModelFile:
    """*wanted*: ``pcb-demo``, or the path of an ``.onnx`` file. Raises ModelError saying what would be accepted."""
    if wanted == BUNDLED:
        return ModelFile(assets / f"{BUNDLED}.onnx", BUNDLED, _pinned(assets / f"{BUNDLED}.json"))
    path = Path(wanted)
    if path.suffix == ".pt":
        raise ModelError(
            f"{path}: a .pt is not run by the station. Export it once, where ultralytics is installed: "
            f"yolo export model={path} format=onnx imgsz=640"
        )
    if not path.is_file():
        raise ModelError(f"[detector] model = {wanted}: neither {BUNDLED} nor an .onnx file that is there")
    return ModelFile(path, path.stem, None)


def _pinned(card: Path) -> str:
    """The sha256 that a bundled model's card names: without it a damaged model could not be told from a good one."""
    try:
        return str(json.loads(card.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{card} names no sha256 ({error}): install the station again") from None
