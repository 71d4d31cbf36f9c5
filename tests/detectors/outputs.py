"""The same detections as each kind of network would give them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rows(*candidates: tuple[float, ...]) -> NDArray[np.float32]:
    """YOLOv8's way: 1 x (4 + C) x N."""
    return np.asarray(candidates, np.float32).T[None]


def columns(*candidates: tuple[float, ...]) -> NDArray[np.float32]:
    """YOLOv5's way, and the end-to-end one: 1 x N x (5 + C), 1 x N x 6."""
    return np.asarray(candidates, np.float32)[None]


# Centre 20,30, size 10,8: corner 15,26. The second overlaps the first, the third is of the other class, the last weak.
V8 = rows((20, 30, 10, 8, 0.1, 0.9), (21, 30, 10, 8, 0.1, 0.8), (20, 30, 10, 8, 0.7, 0.1), (50, 50, 4, 4, 0.2, 0.1))
V5 = columns(
    (20, 30, 10, 8, 0.9, 0.1, 1.0),
    (21, 30, 10, 8, 0.8, 0.1, 1.0),
    (20, 30, 10, 8, 0.7, 1.0, 0.1),
    (50, 50, 4, 4, 0.2, 1.0, 0.1),
)
FINAL = columns((15, 26, 25, 34, 0.7, 0), (15, 26, 25, 34, 0.9, 1), (48, 48, 52, 52, 0.2, 0))
# Relative to an input of 64 x 64; nothing that overlaps: it has no suppression.
DETR = columns(
    *[
        (cx / 64, cy / 64, w / 64, h / 64, *scores)
        for cx, cy, w, h, *scores in (
            (20, 30, 10, 8, 0.1, 0.9),
            (20, 30, 10, 8, 0.7, 0.1),
            (50, 50, 4, 4, 0.2, 0.1),
        )
    ]
)
DETR_FINAL = columns(
    *[
        (cx / 64, cy / 64, w / 64, h / 64, *answer)
        for cx, cy, w, h, *answer in (
            (20, 30, 10, 8, 0.9, 1),
            (20, 30, 10, 8, 0.7, 0),
            (50, 50, 4, 4, 0.2, 0),
        )
    ]
)
