"""
Reads the DeepPCB dataset: names, boxes, and its split by board family.

Source of the format: github.com/tangsanli5201/DeepPCB. One label file per board, one defect a line, ``x1 y1 x2 y2
type`` in pixels of the 640x640 image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
SIZE_PX = 640


@dataclass(frozen=True, slots=True)
class Truth:
    """One labelled defect: class index into ``CLASSES`` and corners in pixels."""

    class_id: int
    x1: float
    y1: float
    x2: float
    y2: float


def names(root: Path, split: str) -> list[str]:
    """Board names of *split*: "train", "val", or "all"."""
    parts = ("train", "val") if split == "all" else (split,)
    return [name for part in parts for name in (root / f"{part}.txt").read_text().split()]


def truths(label_file: Path) -> list[Truth]:
    """The labelled defects of one board, in file order. A board without a label file has none."""
    if not label_file.exists():
        return []
    rows = (line.split() for line in label_file.read_text().splitlines() if line.strip())
    return [Truth(int(kind) - 1, *map(float, (x1, y1, x2, y2))) for x1, y1, x2, y2, kind in rows]


def picture(path: Path) -> NDArray[np.uint8]:
    """The picture at *path*, height x width x 3 bytes. Raises SystemExit when it is not there."""
    image = cv2.imread(str(path))
    if image is None:
        raise SystemExit(f"{path} is no picture: is this the DeepPCB folder?")
    return np.asarray(image, np.uint8)


def grey(path: Path) -> NDArray[np.uint8]:
    """The picture at *path*, height x width bytes. Raises SystemExit as ``picture`` does."""
    return np.asarray(cv2.cvtColor(picture(path), cv2.COLOR_BGR2GRAY), np.uint8)


def pair(board: NDArray[np.uint8], template: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two grey pictures as the three planes (blue: difference, green: template, red: board) of one to train on."""
    return np.dstack([cv2.absdiff(board, template), template, board])


def given(root: Path, name: str, *, pairs: bool) -> NDArray[np.uint8]:
    """Board *name* as a network is given it, 3 x H x W: red first, or board, template and difference."""
    board, template = (root / folder / f"{name}.jpg" for folder in ("images", "templates"))
    planes = pair(grey(board), grey(template)) if pairs else picture(board)
    return np.ascontiguousarray(planes[..., ::-1].transpose(2, 0, 1))


def to_yolo(found: list[Truth]) -> str:
    """*found* as the text of a YOLO label file: ``class cx cy w h``, relative to the image."""
    return "".join(
        f"{t.class_id} {(t.x1 + t.x2) / 2 / SIZE_PX:.6f} {(t.y1 + t.y2) / 2 / SIZE_PX:.6f} "
        f"{(t.x2 - t.x1) / SIZE_PX:.6f} {(t.y2 - t.y1) / SIZE_PX:.6f}\n"
        for t in found
    )
