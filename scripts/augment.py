"""
What a bare board looks like from the other side: negatives and turned boards, for training.

A binary picture of a board has a twin in which copper and gap have changed places. Every class has its twin too: an
open is a short of the gap, a mousebite is a spur of it, a pin-hole is a piece of copper in it. Learning from both
halves what a network can know by heart of one family of layouts.
"""

from __future__ import annotations

import random
from typing import Any

import deeppcb
import numpy as np
import torch
from ultralytics.models.yolo.detect import DetectionTrainer

TWIN = tuple(
    deeppcb.CLASSES.index(name) for name in ("short", "open", "spur", "mousebite", "pin-hole", "copper")
)  # by class


class Negative:
    """Half of the time: copper becomes gap, and every class its twin. *labels* is ultralytics' own sample dict."""

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        if random.random() < 0.5:  # noqa: S311  # ultralytics seeds this generator
            labels["img"] = 255 - labels["img"]
            labels["cls"] = np.asarray(TWIN, np.float32)[labels["cls"].astype(int)]
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


class BoardTrainer(DetectionTrainer):  # type: ignore[misc]  # ultralytics has no types
    """ultralytics' trainer with the two added before its last transform, and all cores on a CPU."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        dataset = super().build_dataset(img_path, mode, batch)
        if mode == "train":
            steps = dataset.transforms.transforms
            steps[-1:-1] = [Negative(), Transposed()]
            if self.device.type == "cpu":
                torch.set_num_threads(torch.multiprocessing.cpu_count())  # ultralytics leaves one core idle
        return dataset
