"""A network on OpenVINO, on the CPU; the only import of openvino, which is the ``openvino`` extra."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import structlog

from station.detectors.network import (
    EXPORT_HINT,
    Dtype,
    Floats,
    Input,
    Tensor,
    checked_file,
    cores,
    first_line,
    hushed,
    input_of,
    labels_of,
)
from station.detectors.processor import ours_saturates
from station.durable import adopt, replace_file
from station.errors import DetectorError, ModelError
from station.memory import give_back

# It counts its users for its maker, who gets that by the net, and keeps an id and statistics in ~/intel for it, all at
# the import of its converter, which a station has no use for and which takes 0.3 s. A station tells nobody.
for _unwanted in ("openvino_telemetry", "openvino.tools.ovc"):
    sys.modules.setdefault(_unwanted, None)  # type: ignore[arg-type]  # None: importing it raises ImportError
import openvino  # noqa: E402  # see above
from openvino import frontend, preprocess  # noqa: E402  # ditto

log = structlog.get_logger(__name__)

VERSION: str = openvino.get_version().split("-")[0]
DEVICE = "CPU"
GIVES: dict[str, Dtype] = {"f32": np.float32, "f16": np.float16}
TAKES: dict[str, Dtype] = {**GIVES, "u8": np.uint8}
WHITE = 255.0  # it is given bytes, a quarter of the memory, and divides them itself: 0.4 ms of a picture less
HALVES = 2  # runs at a time, on half of the threads each
KEPT = 16  # compiled models in the cache, of all that the station has been given: the oldest go

# What it raises: std::exception as RuntimeError, and the reader's own ones, which share no base.
ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
    *(one for one in vars(frontend).values() if isinstance(one, type) and issubclass(one, Exception)),
)
LOAD_ERRORS: tuple[type[Exception], ...] = (OSError, KeyError, AttributeError, *ERRORS)
SAVE_ERRORS: tuple[type[Exception], ...] = (OSError, *ERRORS)
HALVING_ERRORS: tuple[type[Exception], ...] = (ModelError, *ERRORS)


class OpenVinoNetwork:
    """
    Implements ``network.Network`` on OpenVINO; float or int8 (QDQ), one picture a run, given as bytes.

    *threads* 0: as many as there are cores for us. *sha256*: what the file must have. *cache*: a folder where it keeps
    what it compiled, so that the next start takes a tenth of a second; one that does not fit this model, machine or
    OpenVINO, or is damaged, is made anew. Raises ModelError at construction for a file that cannot be used.
    """

    def __init__(self, path: Path, *, threads: int = 0, sha256: str | None = None, cache: Path | None = None) -> None:
        self.path = path
        self.sha256 = checked_file(path, sha256)
        self._threads = threads or cores()
        self._core = openvino.Core()
        self._cache = cache
        compiled, self.metadata = self._load(1)
        self.labels = labels_of(self.metadata, path)
        self.input = input_of([_shape(one) for one in compiled.inputs], np.uint8, self.metadata, path=path)
        output = compiled.outputs[0]
        if output.element_type.get_type_name() not in GIVES:
            raise ModelError(f"{path} gives {output.element_type.get_type_name()}, not float or half: {EXPORT_HINT}")
        self.output_shape = _shape(output)
        self._idle = self._idle_halves = _requests(compiled, 1)
        self._to_halve = False
        self._halving = threading.Lock()

    @property
    def computed_by(self) -> str:
        return f"OpenVINO {VERSION}, {self._threads} CPU threads"

    def halve(self) -> None:
        """
        Loads the half-core model lazily if it is already cached (0.2 s, 45 MB; a station without a backlog, or with a
        camera, never needs it), else compiles it now, while nobody is waiting.
        """
        if self._idle_halves is self._idle and self._threads > 1:
            self._to_halve = True
            kept = self._kept(HALVES)
            if kept is None or not kept.fits():
                self._halves()

    def run(self, tensor: Tensor, *, half: bool = False) -> Floats:
        idle = self._halves() if half else self._idle
        request = idle.get()
        try:
            outputs = request.infer([tensor], share_inputs=True, share_outputs=True)
            return np.array(outputs[0], np.float32)  # a copy: the next run overwrites it
        except ERRORS as error:
            raise DetectorError(f"the network failed: {_reason(error)}") from None
        finally:
            idle.put(request)

    def _halves(self) -> SimpleQueue[Any]:
        with self._halving:
            if self._to_halve:
                self._to_halve = False
                try:
                    checked_file(self.path, self.sha256)  # another model may lie there by now
                    compiled, _ = self._load(HALVES)
                    self._idle_halves = _requests(compiled, HALVES)
                    give_back()
                except HALVING_ERRORS as error:
                    log.warning("network not halved", reason=first_line(error))
            return self._idle_halves

    def _load(self, streams: int) -> tuple[Any, dict[str, str]]:
        """The network ready for so many runs at a time, on all threads together, and the metadata of its file."""
        settings, kept = self._settings(streams), self._kept(streams)
        found = None if kept is None else kept.load(self._core, settings)
        if found is not None:
            return found
        made = _compiled(self._core, self.path, settings)
        if kept is not None:
            kept.save(*made)
        return made

    def _settings(self, streams: int) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self._threads,
            # Processors with AMX would compute in bfloat16, of 8 bits: one model should judge alike on all machines.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if ours_saturates():
            # The same network in float, as exact as on other machines; slower, which `backend = "auto"` sees.
            settings["LP_TRANSFORMS_MODE"] = "NO"
        if streams > 1:
            # Bound to one core each, a run waits for what else runs there: YOLO11n 28.8 ms of CPU, and 22.9 free.
            settings |= {"NUM_STREAMS": streams, "ENABLE_CPU_PINNING": False}
        return settings

    def _kept(self, streams: int) -> _Kept | None:
        if self._cache is None:
            return None
        identity = _identity(self._core, self.sha256, self._settings(streams))
        return _Kept(self._cache, f"{self.sha256[:16]}-{streams}", identity)


def _requests(compiled: Any, count: int) -> SimpleQueue[Any]:
    """What runs a compiled network, one picture at a time each; whoever takes one puts it back."""
    idle: SimpleQueue[Any] = SimpleQueue()
    for _ in range(count):
        idle.put(compiled.create_infer_request())
    return idle


def _compiled(core: Any, path: Path, settings: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    """The network ready to run, with an open batch or size closed, and the metadata of its file."""
    try:
        with hushed():
            model = core.read_model(path)
    except ERRORS as error:
        raise ModelError(f"{path} cannot be loaded as ONNX: {_reason(error)}; {EXPORT_HINT}") from None
    try:
        metadata = _metadata(model)
        labels_of(metadata, path)
        wanted = _input_of(model.inputs, metadata, path)
    except UnicodeDecodeError:
        raise ModelError(f"{path} is damaged, its names are no text: {EXPORT_HINT}") from None
    if not model.outputs:
        raise ModelError(f"{path} gives nothing: {EXPORT_HINT}")
    try:
        # One picture at a time: a batch gains nothing on a processor, and closed shapes run faster.
        if model.inputs[0].partial_shape.is_dynamic:
            model.reshape([1, 3, wanted.height_px, wanted.width_px])
        own = model.inputs[0].element_type
        if own != openvino.Type.u8:
            given = preprocess.PrePostProcessor(model)
            given.input().tensor().set_element_type(openvino.Type.u8)
            given.input().preprocess().convert_element_type(openvino.Type.f32).scale(WHITE).convert_element_type(own)
            model = given.build()
        return core.compile_model(model, DEVICE, dict(settings)), metadata
    except ERRORS as error:
        raise ModelError(f"{path} cannot be compiled by OpenVINO: {_reason(error)}; {EXPORT_HINT}") from None


def _metadata(model: Any) -> dict[str, str]:
    """The file's key-value pairs, which OpenVINO's ONNX reader keeps under ``framework``."""
    if not model.has_rt_info(["framework"]):
        return {}
    return {str(key): str(value) for key, value in model.get_rt_info(["framework"]).value.items()}


def _input_of(inputs: Any, metadata: Mapping[str, str], path: Path) -> Input:
    dtype = TAKES.get(inputs[0].element_type.get_type_name()) if inputs else None
    return input_of([_shape(one) for one in inputs], dtype, metadata, path=path)


def _shape(told: Any) -> tuple[int | None, ...]:
    if told.partial_shape.rank.is_dynamic:
        return (None,)
    return tuple(one.get_length() if one.is_static else None for one in told.partial_shape)


def _reason(error: Exception) -> str:
    """The last line that says something: the first ones name its source files."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith("Exception from")), first_line(error))[:300]


def _identity(core: Any, sha256: str, settings: Mapping[str, Any]) -> str:
    """All that a compiled model depends on, as one hex number."""
    machine = [core.get_property(DEVICE, "FULL_DEVICE_NAME"), *core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")]
    parts = [
        openvino.get_version(),
        sha256,
        f"bytes / {WHITE}",
        *map(str, machine),
        *(f"{key}={value}" for key, value in settings.items()),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class _Kept:
    """
    One compiled model on disk: a line of JSON (*identity*, metadata, sha256 of it and of the rest), and what OpenVINO
    exported.

    OpenVINO's own cache is not used: it looks at names and dates, and reads what is damaged until it crashes.
    """

    def __init__(self, folder: Path, name: str, identity: str) -> None:
        self._path = folder / f"{name}.openvino"
        self._identity = identity

    def fits(self) -> bool:
        """Whether it was made by this OpenVINO for this model and machine; that it is whole, ``load`` will see."""
        try:
            with self._path.open("rb") as file:
                return bool(json.loads(file.readline(1 << 20))["identity"] == self._identity)
        except LOAD_ERRORS:
            return False

    def load(self, core: Any, settings: Mapping[str, Any]) -> tuple[Any, dict[str, str]] | None:
        try:
            with self._path.open("rb") as file:
                head = json.loads(file.readline(1 << 20))
                blob = file.read()
            metadata = {str(key): str(value) for key, value in head["metadata"].items()}
            if head["identity"] != self._identity or _sha256(metadata, blob) != head["sha256"]:
                log.info("compiled model made anew", reason="another model, machine or version, or damaged")
                return None
            return core.import_model(blob, DEVICE, dict(settings)), metadata
        except FileNotFoundError:
            return None
        except LOAD_ERRORS as error:
            log.info("compiled model made anew", reason=first_line(error))
            return None

    def save(self, compiled: Any, metadata: Mapping[str, str]) -> None:
        """Whole or not at all; a disk that takes nothing only costs the next start its time."""
        folder = self._path.parent
        if not folder.parent.is_dir():  # `station check` before the first start: it makes no data folder
            return
        try:
            folder.mkdir(exist_ok=True)
            adopt(folder)
            blob = compiled.export_model().getvalue()
            head = {"identity": self._identity, "sha256": _sha256(metadata, blob), "metadata": dict(metadata)}
            replace_file(self._path, json.dumps(head).encode() + b"\n" + blob, synced=False, adopted=True)
            older = sorted(folder.glob("*.openvino"), key=lambda one: one.stat().st_mtime_ns)
            for one in older[:-KEPT]:
                one.unlink()
        except SAVE_ERRORS as error:
            log.warning("compiled model not kept", folder=str(folder), reason=first_line(error))


def _sha256(metadata: Mapping[str, str], blob: bytes) -> str:
    """Of both: the metadata has the names of the labels, and a wrong one would be another defect."""
    return hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode() + b"\n" + blob).hexdigest()
