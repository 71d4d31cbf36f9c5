"""
The peer of scripts/bench: ``ultralytics predict`` over a folder, in its own interpreter.

    bench_ultralytics.py MODEL FOLDER [FORMAT]: with FORMAT (onnx, openvino) it exports MODEL by itself beforehand.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

began_s = time.perf_counter()
os.environ["YOLO_OFFLINE"] = "True"
os.environ["YOLO_AUTOINSTALL"] = "False"

from torchvision_stand_in import allow_missing_torchvision  # noqa: E402  # the clock starts before the imports, as for any process

allow_missing_torchvision()
from ultralytics import YOLO  # noqa: E402

model, folder = sys.argv[1], sys.argv[2]
if len(sys.argv) > 3:
    model = YOLO(model).export(format=sys.argv[3], imgsz=640, verbose=False)
times = []
for _ in YOLO(model, task="detect").predict(folder, stream=True, imgsz=640, verbose=False, device="cpu", save=False):
    times.append(time.perf_counter())  # noqa: PERF401  # the loop is what is timed
line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
print(
    json.dumps(
        {
            "first_s": times[0] - began_s,
            "board_ms": (times[-1] - times[0]) / (len(times) - 1) * 1e3,
            "peak_mb": int(line.split()[1]) / 1024,
        }
    )
)
