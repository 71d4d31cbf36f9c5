"""
Turns a .pt into ONNX with ultralytics. A program of its own: the station runs it as a child and never imports it.

    python -c "$(cat pt_child.py)" BEST.pt FOLDER PICTURE...

Loading a .pt unpickles it, which runs whatever code it holds: here, and nowhere else. FOLDER gets ``model.onnx``, and
for each PICTURE ``NUMBER.png``, as the network was given it, and ``NUMBER.json``: what the original found there. On
stdout there is one line of JSON a step: {"step": TEXT}, and last {"done": true} or {"error": TEXT}.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

PAD = 114  # the grey that YOLO networks are trained with around the picture
CONFIDENCE = 0.001  # nearly everything: on boards of another kind the best there is may be weak
IOU = 0.45
MOST = 300
PR_SET_PDEATHSIG = 1
SIGKILL = 9


def main(arguments: list[str]) -> int:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)  # a station that is killed while it starts leaves nothing behind
    # What ultralytics prints is not for our parent: it goes where warnings go.
    said = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def say(**line: object) -> None:
        said.write(json.dumps(line) + "\n")

    pt, folder, pictures = Path(arguments[0]), Path(arguments[1]), arguments[2:]
    try:
        say(step="importing ultralytics")
        from ultralytics import YOLO
    except ImportError as error:
        say(error=f"ultralytics is not installed ({error})", missing=True)
        return 1
    try:
        say(step=f"loading {pt.name}")
        model = YOLO(str(pt))
        if model.task != "detect":
            say(error=f"{pt.name} is a model for the task {model.task}: only detection models can be used")
            return 1
        size = size_of(model)
        say(step=f"exporting at {size[1]}x{size[0]}")
        slim = importlib.util.find_spec("onnxslim") is not None
        made = model.export(format="onnx", imgsz=list(size), opset=17, simplify=slim, device="cpu", half=False)
        Path(made).replace(folder / "model.onnx")
        judge = YOLO(str(pt))  # exporting has changed the first one
        tell_every_label()
        for number, picture in enumerate(pictures):
            say(step=f"judging board {number + 1} of {len(pictures)} with the original")
            compare(judge, picture, folder, number, size)
    except Exception as error:  # noqa: BLE001  # a stranger's code has run: whatever it raises is told, not thrown
        say(error=f"{type(error).__name__}: {error}"[:500])
        return 1
    say(done=True)
    return 0


def size_of(model: Any) -> tuple[int, int]:
    """Height and width that it was trained for."""
    told = getattr(model, "overrides", {}).get("imgsz") or getattr(model.model, "args", {}).get("imgsz", 640)
    sides = [int(one) for one in told] if isinstance(told, (list, tuple)) else [int(told)]
    return (sides[0], sides[-1])


def tell_every_label() -> None:
    """
    Has ``predict`` tell a box under every label that it reaches the confidence with, as the station does.

    By itself it tells the best of them only, and has no setting for it: its suppression of overlaps has.
    """
    for name in ("ultralytics.utils.nms", "ultralytics.utils.ops"):  # where it is now, and where it was at first
        with contextlib.suppress(ImportError, KeyError):
            known = vars(importlib.import_module(name))
            known["non_max_suppression"] = partial(known["non_max_suppression"], multi_label=True)


def compare(judge: Any, picture: str, folder: Path, number: int, size: tuple[int, int]) -> None:
    """Puts *picture* into a frame of the network's own size, so that both are given the same pixels, and judges it."""
    import cv2
    import numpy as np

    image = cv2.imread(picture)
    if image is None:
        return
    scale = min(size[0] / image.shape[0], size[1] / image.shape[1])
    inside = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    frame = np.full((*size, 3), PAD, np.uint8)
    left, top = (size[1] - inside[0]) // 2, (size[0] - inside[1]) // 2
    frame[top : top + inside[1], left : left + inside[0]] = cv2.resize(image, inside)
    cv2.imwrite(str(folder / f"{number}.png"), frame)
    found = judge.predict(frame, imgsz=list(size), conf=CONFIDENCE, iou=IOU, max_det=MOST, device="cpu", verbose=False)[
        0
    ]
    rows = [
        {"label": found.names[int(kind)], "confidence": float(score), "box": [float(side) for side in box]}
        for box, score, kind in zip(
            found.boxes.xyxy.tolist(), found.boxes.conf.tolist(), found.boxes.cls.tolist(), strict=True
        )
    ]
    (folder / f"{number}.json").write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
