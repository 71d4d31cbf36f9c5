"""What a loaded detection network is to the station, whatever computes it; and what its file must say of itself."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from station.errors import ModelError

Floats: TypeAlias = NDArray[np.float32]

Dtype: TypeAlias = type[np.float32 | np.float16 | np.uint8]

Tensor: TypeAlias = NDArray[np.float32 | np.float16 | np.uint8]
"""
B x 3 x H x W in C order: 0..1 in float or half, 0..255 in bytes.

Or, in blocks of 2 x 2 pixels, B x H/2 x W/2 x 16 bytes: four of each pixel, of which the fourth counts for nothing.
"""

BLOCK_PX, PIXEL_BYTES = 2, 4
BLOCK_BYTES = BLOCK_PX * BLOCK_PX * PIXEL_BYTES

EXPORT_HINT = "export it again with: yolo export model=YOUR.pt format=onnx imgsz=640"
# How protobuf writes the key "location" of a tensor that lies in another file (onnx.proto: StringStringEntryProto).
OUTSIDE = b"\x0a\x08location\x12"
SIDES_PX = (32, 8192)  # of a network's input: of less nothing can be told, and more takes gigabytes
PLANES = "station.input"  # the key in a model's metadata that says what its three planes are; without it: R, G, B
PAIR = "pair"


@dataclass(frozen=True, slots=True)
class Input:
    """
    What a network takes: *batch* pictures at a time (None: any number) of three planes each, in *dtype*.

    *blocks*: in blocks of pixels, see ``Tensor``.
    """

    batch: int | None
    height_px: int
    width_px: int
    dtype: Dtype
    blocks: bool = False

    def shape(self, batch: int = 1) -> tuple[int, int, int, int]:
        """Of a ``Tensor`` of so many pictures."""
        if self.blocks:
            return (batch, self.height_px // BLOCK_PX, self.width_px // BLOCK_PX, BLOCK_BYTES)
        return (batch, 3, self.height_px, self.width_px)


class Network(Protocol):
    """
    A network that is loaded and checked. Called from any thread.

    *sha256* (hex) is of its file, *metadata* what the exporter wrote into it, *computed_by* one phrase for a person.
    *output_shape* has None where the file leaves a length open.
    """

    @property
    def path(self) -> Path: ...

    @property
    def sha256(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def input(self) -> Input: ...

    @property
    def output_shape(self) -> tuple[int | None, ...]: ...

    @property
    def metadata(self) -> Mapping[str, str]: ...

    @property
    def computed_by(self) -> str: ...

    def halve(self) -> None:
        """Makes ready for runs on half of the cores. Raises ModelError."""

    def run(self, tensor: Tensor, *, half: bool = False) -> Floats:
        """
        The first output for *tensor*, in the type that ``input`` names, on all cores that are ours.

        *half*: on half of the cores, if ``halve`` succeeded. Two such runs side by side finish sooner than two full
        runs in sequence. Raises DetectorError when the network fails.
        """


def checked_file(path: Path, sha256: str | None) -> str:
    """The sha256 (hex) of *path*. Raises ModelError for no .onnx file, one in parts, or one that has not *sha256*."""
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
    if sha256 is not None and digest.hexdigest() != sha256:
        raise ModelError(f"{path} is damaged: its sha256 is not {sha256[:12]}...: import or install it again")
    if outside:  # it would load, but the checksum, which events name the model by, would not cover its weights
        raise ModelError(f"{path} keeps its weights in a second file: export it as one file; {EXPORT_HINT}")
    return digest.hexdigest()


def labels_of(metadata: Mapping[str, str], path: Path) -> tuple[str, ...]:
    """
    Class names as ultralytics writes them: a Python dict literal, {0: 'open', ...}.

    Recipes, events and screens tell defects apart by them. Raises ModelError where they could not.
    """
    task = metadata.get("task", "detect")
    if task != "detect":
        raise ModelError(f"{path} is a model for the task {task}: only detection models can be used")
    try:
        names = ast.literal_eval(metadata["names"])
        named = dict(enumerate(names)) if isinstance(names, list | tuple) else dict(names)
        labels = tuple(str(named[number]) for number in range(len(named)))
    except (KeyError, ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # all that a literal can do
        labels = ()
    if not labels:
        raise ModelError(f"{path} has no class names in its metadata: {EXPORT_HINT}")
    trouble = _labels_trouble(labels)
    if trouble is not None:
        raise ModelError(f"{path}: {trouble}: give each class a name of its own in the data.yaml, and {EXPORT_HINT}")
    return labels


def _labels_trouble(labels: Sequence[str]) -> str | None:
    for number, label in enumerate(labels):
        if not label.strip():
            return f"the name of class {number} is empty"
        if not label.isprintable():
            return f"the name of class {number}, {ascii(label)[:80]}, has signs that cannot be printed"
        if label in labels[:number]:
            return f"classes {labels.index(label)} and {number} have one name, {label}"
    return None


def input_of(
    shapes: Sequence[Sequence[int | None]], dtype: Dtype | None, metadata: Mapping[str, str], *, path: Path
) -> Input:
    """
    The one input of a network with *shapes*, where None is a length that the file leaves open.

    *dtype* None: neither float, half nor bytes. An open size is what the model was made for. Raises ModelError.
    """
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3:
        told = [[length or "?" for length in shape] for shape in shapes]
        raise ModelError(f"{path} takes {told}, not one colour picture 1 x 3 x H x W: is it a YOLO detection export?")
    batch, _, height, width = shapes[0]
    if batch is not None and batch != 1:
        raise ModelError(f"{path} takes {batch} pictures at a time: export it with batch=1")
    if dtype is None:
        raise ModelError(f"{path} takes numbers that are neither float, half nor bytes: {EXPORT_HINT}")
    if height is None or width is None:
        height, width = _exported_size(metadata, path)
    if not all(SIDES_PX[0] <= side <= SIDES_PX[1] for side in (height, width)):
        raise ModelError(
            f"{path} takes pictures of {width} x {height} pixels, and {SIDES_PX[0]} to {SIDES_PX[1]} a side can be "
            f"used: {EXPORT_HINT}"
        )
    return Input(batch, height, width, dtype)


def cores() -> int:
    """The cores we may use, not those the machine has: a service can be bound to some of them."""
    return len(os.sched_getaffinity(0))


def first_line(error: Exception) -> str:
    """What a library's error says, short enough for one line of ours."""
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """What native code writes to stderr goes nowhere for a moment."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _exported_size(metadata: Mapping[str, str], path: Path) -> tuple[int, int]:
    """The size (height, width) that a model with an open one was made for, as ultralytics notes it: ``[480, 640]``."""
    try:
        height, width = ast.literal_eval(metadata["imgsz"])
        return int(height), int(width)
    except (KeyError, ValueError, SyntaxError, TypeError, OverflowError, RecursionError, MemoryError):
        raise ModelError(f"{path} takes pictures of any size and does not say which suits it: {EXPORT_HINT}") from None
