"""A YOLO detection network on ONNX Runtime, checked at load, warm before the first board."""

from __future__ import annotations

import ast
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from station.detectors.decode import Layout, decode, layout_of
from station.detectors.preprocess import Letterbox, Placement
from station.errors import DetectorError, ModelError
from station.types import Box, Defect, Image, ModelInfo

PREFERRED = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
DTYPES: dict[str, type[np.float32 | np.float16]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
EXPORT_HINT = "export it again with: yolo export model=YOUR.pt format=onnx imgsz=640"

# onnxruntime's errors share no base of their own.
ERRORS: tuple[type[Exception], ...] = (
    *(one for one in vars(state).values() if isinstance(one, type) and issubclass(one, Exception)),
    RuntimeError,
    ValueError,
    MemoryError,
)

onnxruntime.disable_telemetry_events()
onnxruntime.set_default_logger_severity(
    4
)  # what matters comes as an exception; the rest is noise on a service's stderr


class OnnxDetector:
    """
    Implements ``types.Detector`` for YOLOv5, v8, 11 and end-to-end exports.

    Boxes are in pixels of the original image, clipped to it, best first. Raises ModelError at construction for a
    file that cannot be used, with what to do about it.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        confidence: float,
        iou: float,
        threads: int = 0,
        sha256: str | None = None,
        providers: tuple[str, ...] = PREFERRED,
    ) -> None:
        self.model = ModelInfo(name, _checksum(path, sha256))
        self._confidence = confidence
        self._iou = iou
        self._path = path
        self._session = _session(path, threads or _cores(), providers)
        self.labels = _labels(self._session, path)
        self._input, self.input_size, dtype = _checked_input(self._session, path)
        self._output, self._layout = _checked_output(self._session, path, len(self.labels))
        self._letterbox = Letterbox(height=self.input_size[0], width=self.input_size[1], dtype=dtype)

    @property
    def provider(self) -> str:
        """What computes it: CPU, CUDA or TensorRT, as onnxruntime names it."""
        return str(self._session.get_providers()[0])

    @property
    def description(self) -> str:
        """One line for ``station check``."""
        height, width = self.input_size
        return (
            f"{self.model.name} ({len(self.labels)} labels: {', '.join(self.labels)}; {width}x{height}; "
            f"{self.provider.removesuffix('ExecutionProvider')}; sha256 {self.model.sha256[:12]})"
        )

    def warm_up(self) -> None:
        """Judges one grey picture, so that the first board is as fast as the second. Raises ModelError."""
        height, width = self.input_size
        try:
            self.detect(np.full((height, width, 3), 114, np.uint8))
        except DetectorError as error:
            raise ModelError(f"{self._path}: the model fails on a plain grey picture: {error}") from None

    def detect(self, image: Image) -> list[Defect]:
        """*image*: H x W x 3 uint8 BGR. Raises DetectorError when it cannot be judged."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise DetectorError(f"not a colour picture of bytes: shape {image.shape}, {image.dtype}")
        placement = self._letterbox.fill(image)
        try:
            output = self._session.run([self._output], {self._input: self._letterbox.tensor})[0]
        except ERRORS as error:
            raise DetectorError(f"the network failed: {error}") from None
        output = np.asarray(output, np.float32)
        if not np.isfinite(output.sum()):  # one pass: any NaN or infinity survives a sum
            raise DetectorError("the network answered with numbers that are none (NaN or infinity)")
        corners, scores, classes = decode(output, self._layout, confidence=self._confidence, iou=self._iou)
        return [
            Defect(self._label(int(kind)), float(score), box, self.model.name)
            for box, score, kind in zip(
                _boxes(corners, placement, image.shape[1], image.shape[0]), scores, classes, strict=True
            )
        ]

    def _label(self, kind: int) -> str:
        if not 0 <= kind < len(self.labels):
            raise DetectorError(f"the network found class {kind}, but knows only {len(self.labels)}")
        return self.labels[kind]


def _boxes(corners: Any, placement: Placement, width: int, height: int) -> list[Box]:
    offset = np.array([placement.left_px, placement.top_px, placement.left_px, placement.top_px], np.float32)
    there = (corners - offset) / placement.scale
    there[:, [0, 2]] = there[:, [0, 2]].clip(0, width)
    there[:, [1, 3]] = there[:, [1, 3]].clip(0, height)
    return [Box(float(x1), float(y1), float(x2 - x1), float(y2 - y1)) for x1, y1, x2, y2 in there]


def _checksum(path: Path, expected: str | None) -> str:
    """The sha256 of the file, in hex; the file is there, is no other kind of model, and is what it should be."""
    if path.suffix != ".onnx":
        raise ModelError(f"{path} is no .onnx file: {EXPORT_HINT}")
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            size = file.tell()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check [detector] model") from None
    if size == 0:
        raise ModelError(f"{path} is empty: copy the model again")
    if expected is not None and digest.hexdigest() != expected:
        raise ModelError(f"{path} is damaged: its sha256 is not {expected[:12]}...: install it again")
    return digest.hexdigest()


def _session(path: Path, threads: int, providers: tuple[str, ...]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Measured with YOLO11n at 640 on two cores: planning memory ahead costs 36 MB at the peak and gains no time,
    # while the arena pays: without it a run takes a third longer.
    options.enable_mem_pattern = False
    # Idle threads must sleep: spinning costs a core between boards, and the decoder and the ledger work meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    there = set(onnxruntime.get_available_providers())
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[one for one in providers if one in there])
    except ERRORS as error:
        raise ModelError(f"{path} cannot be loaded as ONNX: {_first_line(error)}; {EXPORT_HINT}") from None


def _labels(session: Any, path: Path) -> tuple[str, ...]:
    """Class names as ultralytics writes them into the metadata: a Python dict literal, {0: 'open', ...}."""
    metadata = session.get_modelmeta().custom_metadata_map
    task = metadata.get("task", "detect")
    if task != "detect":
        raise ModelError(f"{path} is a model for the task {task}: only detection models can be used")
    try:
        names = ast.literal_eval(metadata["names"])
        named = dict(enumerate(names)) if isinstance(names, list | tuple) else dict(names)
        return tuple(str(named[number]) for number in range(len(named)))
    except (KeyError, ValueError, SyntaxError, TypeError):
        raise ModelError(f"{path} has no class names in its metadata: {EXPORT_HINT}") from None


def _checked_input(session: Any, path: Path) -> tuple[str, tuple[int, int], type[np.float32 | np.float16]]:
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] not in {3, "3"}:
        shapes = [one.shape for one in inputs]
        raise ModelError(f"{path} takes {shapes}, not one picture 1 x 3 x H x W: is it a YOLO detection export?")
    batch, _, height, width = inputs[0].shape
    if isinstance(batch, int) and batch != 1:
        raise ModelError(f"{path} takes {batch} pictures at a time: export it with batch=1")
    if inputs[0].type not in DTYPES:
        raise ModelError(f"{path} takes {inputs[0].type}, not float or half: {EXPORT_HINT}")
    size = (height if isinstance(height, int) else 640, width if isinstance(width, int) else 640)
    return str(inputs[0].name), size, DTYPES[inputs[0].type]


def _checked_output(session: Any, path: Path, classes: int) -> tuple[str, Layout]:
    output = session.get_outputs()[0]
    layout = layout_of(output.shape, classes)
    if layout is None:
        raise ModelError(
            f"{path} gives {output.shape} for {classes} class names: no YOLOv5, v8/11 or end-to-end detection output"
        )
    return str(output.name), layout


def _cores() -> int:
    """The cores we may use, not those the machine has: a service can be bound to some of them."""
    return len(os.sched_getaffinity(0))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
