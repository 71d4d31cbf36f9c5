"""
What a bare board looks like from the other side: negatives, turned boards and shifted templates, for training.

A binary picture of a board has a twin in which copper and gap have changed places. Every class has its twin too: an
open is a short of the gap, a mousebite is a spur of it, a pin-hole is a piece of copper in it. Learning from both
halves what a network can know by heart of one family of layouts.
"""

from __future__ import annotations

import random
from typing import Any

import cv2
import deeppcb
import numpy as np
import torch
from numpy.typing import NDArray
from ultralytics.engine import trainer as ultralytics_trainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.loss import v8DetectionLoss

TWIN = np.asarray(
    [deeppcb.CLASSES.index(name) for name in ("short", "open", "spur", "mousebite", "pin-hole", "copper")], np.float32
)  # by class
SHIFT_PX = 2.0  # registration on the line is better than that; the pairs of the dataset are off by one or two
STRETCH_PX = 1.5  # and their edges by as much again, here and there
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class Negative:
    """Half of the time: copper becomes gap, and every class its twin. *labels* is ultralytics' own sample dict."""

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        if random.random() < 0.5:  # noqa: S311  # ultralytics seeds this generator
            labels["img"] = 255 - labels["img"]
            labels["cls"] = TWIN[labels["cls"].astype(int)]
        return labels


class Transposed:
    """Half of the time: rows become columns. With the two flips this makes all eight ways to lay a board down."""

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        if random.random() < 0.5:  # noqa: S311  # ultralytics seeds this generator
            labels["img"] = np.ascontiguousarray(labels["img"].transpose(1, 0, 2))
            instances = labels["instances"]
            instances.convert_bbox("xyxy")
            instances._bboxes.bboxes = instances.bboxes[:, [1, 0, 3, 2]]  # noqa: SLF001  # there is no public setter
        return labels


class Paired:
    """
    A pair (``deeppcb.pair``) as another line would see it: etched more or less, registered worse.

    The difference is worked out anew at the end, as the station does it: it belongs to what the pair has become.
    """

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        _, template, board = cv2.split(labels["img"])
        kind = random.random()  # noqa: S311  # ultralytics seeds this generator
        if kind < 0.7:
            template = registered_badly(template)
        if kind < 0.15:
            template = np.asarray(cv2.erode(template, CROSS), np.uint8)
        elif kind < 0.3:
            template = np.asarray(cv2.dilate(template, CROSS), np.uint8)
        labels["img"] = deeppcb.pair(np.asarray(board, np.uint8), template)
        return labels


def registered_badly(template: Any) -> NDArray[np.uint8]:
    """*template* moved as a whole by up to ``SHIFT_PX``, and here a little more than there: boards stretch."""
    height, width = template.shape
    coarse = np.random.uniform(-STRETCH_PX, STRETCH_PX, (2, 5, 5)).astype(np.float32)
    moved = coarse + np.random.uniform(-SHIFT_PX, SHIFT_PX, (2, 1, 1)).astype(np.float32)
    right, down = (cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in moved)
    columns, rows = np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]
    return np.asarray(
        cv2.remap(template, right + columns, down + rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8
    )


class BoardTrainer(DetectionTrainer):  # type: ignore[misc]  # ultralytics has no types
    """ultralytics' trainer with the steps above before its last transform, and all that a CPU can do."""

    pairs = False

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        dataset = super().build_dataset(img_path, mode, batch)
        if mode == "train":
            steps = dataset.transforms.transforms
            steps[-1:-1] = [Negative(), Transposed(), *([Paired()] if self.pairs else [])]
        if self.device.type == "cpu":
            torch.set_num_threads(torch.multiprocessing.cpu_count())  # ultralytics leaves one core idle
            compute_in_bfloat16()
        return dataset

    def get_model(self, *args: Any, **options: Any) -> Any:
        return super().get_model(*args, **options).to(memory_format=torch.channels_last)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        return batch


class PairTrainer(BoardTrainer):
    """The same for pairs of board and template."""

    pairs = True


def compute_in_bfloat16() -> None:
    """
    Convolutions in bfloat16 on a CPU (three times as fast where it has AMX), the loss in float32.

    ultralytics has the switch for GPUs only.
    """
    if hasattr(v8DetectionLoss, "in_bfloat16"):
        return
    in_its_own = v8DetectionLoss.loss

    def in_float32(self: Any, preds: dict[str, Any], batch: dict[str, Any]) -> Any:
        with torch.autocast("cpu", enabled=False):
            preds = {
                name: one.float() if isinstance(one, torch.Tensor) else [each.float() for each in one]
                for name, one in preds.items()
            }
            return in_its_own(self, preds, batch)

    v8DetectionLoss.loss = in_float32
    v8DetectionLoss.in_bfloat16 = True
    ultralytics_trainer.autocast = lambda *_, **__: torch.autocast("cpu", dtype=torch.bfloat16)
