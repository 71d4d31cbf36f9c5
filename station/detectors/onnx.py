"""A YOLO detection network on ONNX Runtime: checked at load, and the only import of onnxruntime."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from station.detectors.decode import Floats, Layout, decode, layout_of
from station.detectors.preprocess import PAD, Letterbox
from station.errors import DetectorError, ModelError
from station.types import Defect, Image, ModelInfo


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """What native code writes to stderr goes nowhere for a moment."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# From 1.29 on its Linux builds report every session to their maker, and keep a database for that in ~/.cache. A station
# tells nobody, and this is the only switch that works before the reports begin: at import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# While it is imported it looks for GPUs, and on a Raspberry Pi, in WSL or in a container it warns of what it finds,
# before any of its settings can be made (microsoft/onnxruntime#27092).
with _hushed():
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

log = structlog.get_logger(__name__)

PREFERRED = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
DTYPES: dict[str, type[np.float32 | np.float16]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
# How protobuf writes the key "location" of a tensor that lies in another file (onnx.proto: StringStringEntryProto).
OUTSIDE = b"\x0a\x08location\x12"
EXPORT_HINT = "export it again with: yolo export model=YOUR.pt format=onnx imgsz=640"

# onnxruntime's errors share no base of their own.
ERRORS: tuple[type[Exception], ...] = (
    *(one for one in vars(state).values() if isinstance(one, type) and issubclass(one, Exception)),
    RuntimeError,
    ValueError,
    MemoryError,
)

# What matters comes as an exception; the rest is noise on a service's stderr.
onnxruntime.set_default_logger_severity(4)


class OnnxDetector:
    """
    Implements ``types.Detector`` for YOLOv5, v8, 11 and end-to-end exports.

    Boxes are in pixels of the original image, clipped to it, best first; what lies wholly beside the image is dropped.
    *threads* 0: as many as there are cores for us. *sha256*: what the file must have. *providers*: what computes it,
    the first that works; None: the fastest that this onnxruntime offers. Raises ModelError at construction for a file
    that cannot be used, with what to do about it.
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
        providers: tuple[str, ...] | None = None,
    ) -> None:
        self.model = ModelInfo(name, _checksum(path, sha256))
        self._confidence = confidence
        self._iou = iou
        self._path = path
        self._session = _session(path, threads or _cores(), providers)
        self.labels = _labels(self._session, path)
        self._input, self.input_size, dtype = _checked_input(self._session, path)
        self._letterbox = Letterbox(height=self.input_size[0], width=self.input_size[1], dtype=dtype)
        self._output = _checked_output(self._session, path)
        self._layout = self._find_layout()

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
            self.detect(np.full((height, width, 3), PAD, np.uint8))
        except DetectorError as error:
            raise ModelError(f"{self._path}: the model fails on a plain grey picture: {error}") from None

    def detect(self, image: Image) -> list[Defect]:
        """*image*: H x W x 3 uint8 BGR. Raises DetectorError when it cannot be judged."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise DetectorError(f"not a colour picture of bytes: shape {image.shape}, {image.dtype}")
        placement = self._letterbox.fill(image)
        found = decode(self._run(), self._layout, confidence=self._confidence, iou=self._iou)
        placed = ((one, placement.box(one.x1, one.y1, one.x2, one.y2)) for one in found)
        return [
            Defect(self._label(one.class_id), one.score, box, self.model.name) for one, box in placed if box is not None
        ]

    def _run(self) -> Floats:
        """What the network answers to what lies in the letterbox."""
        try:
            # Binding input and output buffers instead was measured: it saves 0.001 ms.
            (output,) = self._session.run([self._output], {self._input: self._letterbox.tensor})
        except ERRORS as error:
            raise DetectorError(f"the network failed: {_first_line(error)}") from None
        return np.asarray(output, np.float32)

    def _find_layout(self) -> Layout:
        shape = self._session.get_outputs()[0].shape
        try:
            if not all(isinstance(one, int) for one in shape):  # left open in the file: the answer to plain grey tells
                shape = self._run().shape
            return layout_of(shape, len(self.labels), input_size=self.input_size)
        except (ModelError, DetectorError) as error:
            raise ModelError(f"{self._path} cannot be used: {error}; {EXPORT_HINT}") from None

    def _label(self, kind: int) -> str:
        if not 0 <= kind < len(self.labels):
            raise DetectorError(f"the network found class {kind}, but knows only {len(self.labels)}")
        return self.labels[kind]


def _checksum(path: Path, expected: str | None) -> str:
    """The sha256 of the file, in hex; the file is there, is no other kind of model, and is what it should be."""
    if path.suffix != ".onnx":
        raise ModelError(f"{path} is no .onnx file: {EXPORT_HINT}")
    digest, outside, tail = hashlib.sha256(), False, b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                outside = outside or OUTSIDE in tail + chunk
                tail = chunk[-len(OUTSIDE) :]
            size = file.tell()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check [detector] model") from None
    if size == 0:
        raise ModelError(f"{path} is empty: copy the model again")
    if expected is not None and digest.hexdigest() != expected:
        raise ModelError(f"{path} is damaged: its sha256 is not {expected[:12]}...: install it again")
    if outside:  # it would load, but the checksum, which events name the model by, would not cover its weights
        raise ModelError(f"{path} keeps its weights in a second file: export it as one file; {EXPORT_HINT}")
    return digest.hexdigest()


def _session(path: Path, threads: int, providers: tuple[str, ...] | None) -> Any:
    chosen = _offered(providers)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Measured with YOLO11n at 640 on two cores: planning memory ahead costs 36 MB at the peak and gains no time, while
    # the arena pays: without it a run takes a third longer.
    options.enable_mem_pattern = False
    # Threads spin within a run, where they wait for each other hundreds of times, and sleep when it ends: 35.5 ms and
    # 71 ms of CPU a run on two quiet cores. Never spinning takes 38 to 41 ms; the default burns 96 ms of CPU a run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    while True:
        try:
            # Its own fall-back tells of itself on stdout, which belongs to `station inspect --json`.
            session = onnxruntime.InferenceSession(str(path), options, providers=chosen, enable_fallback=0)
        except ERRORS as error:
            if len(chosen) == 1:
                raise ModelError(f"{path} cannot be loaded as ONNX: {_first_line(error)}; {EXPORT_HINT}") from None
            log.warning("provider not usable", provider=chosen[0], reason=_first_line(error))
            chosen = chosen[1:]
            continue
        for missing in set(chosen) - set(session.get_providers()):
            log.warning("provider not usable", provider=missing, reason="its libraries did not load")
        return session


def _offered(wanted: tuple[str, ...] | None) -> list[str]:
    there = onnxruntime.get_available_providers()
    if wanted is None:
        return [one for one in PREFERRED if one in there]
    for one in wanted:
        if one not in there:
            raise ModelError(f"this onnxruntime does not offer {one}, but: {', '.join(there)}")
    return list(wanted)


def _labels(session: Any, path: Path) -> tuple[str, ...]:
    """Class names as ultralytics writes them into the metadata: a Python dict literal, {0: 'open', ...}."""
    metadata = session.get_modelmeta().custom_metadata_map
    task = metadata.get("task", "detect")
    if task != "detect":
        raise ModelError(f"{path} is a model for the task {task}: only detection models can be used")
    if metadata.get("head") == "RTDETRDecoder":  # with two classes its output looks like an end-to-end one, and is not
        raise ModelError(f"{path} is an RT-DETR model: only YOLO detection models can be used")
    try:
        names = ast.literal_eval(metadata["names"])
        named = dict(enumerate(names)) if isinstance(names, list | tuple) else dict(names)
        labels = tuple(str(named[number]) for number in range(len(named)))
    except (KeyError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # all that a literal can do
        labels = ()
    if not labels:
        raise ModelError(f"{path} has no class names in its metadata: {EXPORT_HINT}")
    return labels


def _checked_input(session: Any, path: Path) -> tuple[str, tuple[int, int], type[np.float32 | np.float16]]:
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] != 3:
        shapes = [one.shape for one in inputs]
        raise ModelError(f"{path} takes {shapes}, not one colour picture 1 x 3 x H x W: is it a YOLO detection export?")
    batch, _, height, width = inputs[0].shape
    if isinstance(batch, int) and batch != 1:
        raise ModelError(f"{path} takes {batch} pictures at a time: export it with batch=1")
    if inputs[0].type not in DTYPES:
        raise ModelError(f"{path} takes {inputs[0].type}, not float or half: {EXPORT_HINT}")
    if not (isinstance(height, int) and isinstance(width, int)):
        height, width = _exported_size(session, path)
    return str(inputs[0].name), (height, width), DTYPES[inputs[0].type]


def _exported_size(session: Any, path: Path) -> tuple[int, int]:
    """The size that a model with an open one was made for, as ultralytics notes it: ``[480, 640]``."""
    try:
        height, width = ast.literal_eval(session.get_modelmeta().custom_metadata_map["imgsz"])
        return int(height), int(width)
    except (KeyError, ValueError, SyntaxError, TypeError):
        raise ModelError(f"{path} takes pictures of any size and does not say which suits it: {EXPORT_HINT}") from None


def _checked_output(session: Any, path: Path) -> str:
    """The name of the first output: older exports give their inner layers as further ones."""
    output = session.get_outputs()[0]
    if output.type not in DTYPES:
        raise ModelError(f"{path} gives {output.type}, not float or half: {EXPORT_HINT}")
    return str(output.name)


def _cores() -> int:
    """The cores we may use, not those the machine has: a service can be bound to some of them."""
    return len(os.sched_getaffinity(0))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
