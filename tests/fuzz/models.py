"""``python -m tests.fuzz.models RUNTIME FIRST LAST FOLDER``: loads and runs networks that somebody meddled with."""

from __future__ import annotations

import json
import os
import random
import resource
import sys
from collections import Counter
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np  # after the choice above, which onnxruntime reads when it is imported

from station.detectors.backends import Runtime, open_network
from station.detectors.yolo import NetworkDetector
from station.errors import DetectorError, ModelError
from tests.detectors.models import save
from tests.detectors.outputs import V8

LIMITS_BYTES: dict[Runtime, int] = {"onnxruntime": 4_000_000_000, "openvino": 16_000_000_000}  # of addresses


def main(runtime: Runtime, first: int, last: int, folder: Path) -> None:
    limit_bytes = LIMITS_BYTES[runtime]
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    whole = save(folder / "whole.onnx", V8).read_bytes()
    came: Counter[str] = Counter()
    grey = np.full((64, 64, 3), 114, np.uint8)
    for number in range(first, last):
        sys.stderr.write(f"{number}\n")  # who reads it knows where it crashed
        path = folder / "mutant.onnx"
        path.write_bytes(mutant(whole, number))
        try:
            detector = NetworkDetector(
                open_network(path, backend=runtime, threads=1), name="m", confidence=0.25, iou=0.45
            )
            detector.warm_up()
            found = detector.detect(grey)
        except ModelError:
            came["refused when loaded"] += 1
        except DetectorError:
            came["not judged"] += 1
        else:
            came["judged"] += 1
            assert all(np.isfinite([one.confidence, *_sides(one.box)]).all() for one in found)
    sys.stdout.write(json.dumps(came))


def mutant(whole: bytes, number: int) -> bytes:
    chance = random.Random(number)  # noqa: S311  # a replay, no secret
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(data))
        match chance.randrange(5):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del data[at:]
                data += b"\0"
            case 3:
                del data[at : at + chance.randrange(1, 20)]
                data += b"\0"
            case _:
                data[at:at] = chance.randbytes(chance.randrange(1, 20))
    return bytes(data)


def _sides(box: object) -> list[float]:
    return [float(getattr(box, name)) for name in ("x", "y", "width", "height")]


if __name__ == "__main__":
    main(
        "openvino" if sys.argv[1] == "openvino" else "onnxruntime",
        int(sys.argv[2]),
        int(sys.argv[3]),
        Path(sys.argv[4]),
    )
