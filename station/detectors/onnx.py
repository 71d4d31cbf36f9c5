"""A network on ONNX Runtime, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from station.detectors.blocks_in import with_blocks_in
from station.detectors.bytes_in import with_bytes_in
from station.detectors.network import (
    BLOCK_BYTES,
    BLOCK_PX,
    EXPORT_HINT,
    Dtype,
    Floats,
    Tensor,
    checked_file,
    cores,
    first_line,
    hushed,
    input_of,
    labels_of,
)
from station.detectors.processor import ours_saturates
from station.detectors.tensorrt import TENSORRT, Engines
from station.errors import DetectorError, ModelError
from station.memory import give_back

# From 1.29 on its Linux builds report every session to their maker, and keep a database for that in ~/.cache. A station
# tells nobody, and this is the only switch that works before the reports begin: at import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# While it is imported it looks for GPUs, and on a Raspberry Pi, in WSL or in a container it warns of what it finds,
# before any of its settings can be made (microsoft/onnxruntime#27092).
with hushed():
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

log = structlog.get_logger(__name__)

GPU = (TENSORRT, "CUDAExecutionProvider")
CPU = "CPUExecutionProvider"
PREFERRED = (*GPU, CPU)
GIVES: dict[str, Dtype] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
TAKES: dict[str, Dtype] = {**GIVES, "tensor(uint8)": np.uint8}

# onnxruntime's errors share no base of their own.
ERRORS: tuple[type[Exception], ...] = (
    *(one for one in vars(state).values() if isinstance(one, type) and issubclass(one, Exception)),
    RuntimeError,
    ValueError,
    MemoryError,
)

# What matters comes as an exception; the rest is noise on a service's stderr.
onnxruntime.set_default_logger_severity(4)

VERSION: str = onnxruntime.__version__


class OnnxNetwork:
    """
    Implements ``network.Network`` on ONNX Runtime.

    *threads* 0: as many as there are cores for us. *sha256*: what the file must have. *providers*: what computes it,
    the first that works; None: the fastest that this onnxruntime offers. *engines*: where TensorRT keeps what it made;
    None: nowhere. Raises ModelError at construction for a file that cannot be used, with what to do about it.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        sha256: str | None = None,
        providers: tuple[str, ...] | None = None,
        engines: Path | None = None,
    ) -> None:
        self.path = path
        self.sha256 = checked_file(path, sha256)
        self._threads = threads or cores()
        chosen = _offered(providers)
        # GPU sessions load the file unchanged. The rewritten model (30 ms to make) is kept until `halve`, which, if
        # called, is called at once.
        self._changed = _changed(path) if chosen == [CPU] else None
        self._session = self._load(self._threads, chosen, Engines(engines, self.sha256))
        self._half = self._session
        try:
            self._read(path)
        except UnicodeDecodeError:
            raise ModelError(f"{path} is damaged, its names are no text: {EXPORT_HINT}") from None

    def _read(self, path: Path) -> None:
        """What the file says of itself. Raises ModelError, UnicodeDecodeError."""
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.labels = labels_of(self.metadata, path)
        inputs = self._session.get_inputs()
        dtype = TAKES.get(inputs[0].type) if inputs else None
        shapes = [_shape(one) for one in inputs]
        match shapes:
            case [(batch, int(down), int(across), last)] if self._changed and last == BLOCK_BYTES and down != 3:
                planes = input_of([(batch, 3, down * BLOCK_PX, across * BLOCK_PX)], dtype, self.metadata, path=path)
                self.input = replace(planes, blocks=True)
            case _:
                self.input = input_of(shapes, dtype, self.metadata, path=path)
        self._input = str(inputs[0].name)
        outputs = self._session.get_outputs()  # older exports give their inner layers as further ones
        if not outputs:
            raise ModelError(f"{path} gives nothing: {EXPORT_HINT}")
        output = outputs[0]
        if output.type not in GIVES:
            raise ModelError(f"{path} gives {output.type}, not float or half: {EXPORT_HINT}")
        self._output = str(output.name)
        self.output_shape = _shape(output)

    @property
    def provider(self) -> str:
        """What computes it: CPU, CUDA or TensorRT, as onnxruntime names it."""
        return str(self._session.get_providers()[0])

    @property
    def computed_by(self) -> str:
        device = self.provider.removesuffix("ExecutionProvider")
        return f"onnxruntime {VERSION}, {f'{self._threads} CPU threads' if device == 'CPU' else device}"

    def run(self, tensor: Tensor, *, half: bool = False) -> Floats:
        try:
            session = self._half if half else self._session
            # Binding input and output buffers instead was measured: it saves 0.001 ms.
            (output,) = session.run([self._output], {self._input: tensor})
        except ERRORS as error:
            raise DetectorError(f"the network failed: {first_line(error)}") from None
        return np.asarray(output, np.float32)

    def halve(self) -> None:
        if self._half is self._session and self._threads > 1 and self.provider == CPU:  # a GPU has no halves
            checked_file(self.path, self.sha256)  # another model may lie there by now
            self._half = self._load(self._threads // 2, [CPU], Engines(None, self.sha256))
            give_back()
        self._changed = None

    def _load(self, threads: int, chosen: list[str], engines: Engines) -> Any:
        return _session(self.path, threads, chosen, engines, changed=self._changed)


def offers_gpu() -> bool:
    """Whether this onnxruntime was built for GPUs: whoever installed that one wants it used."""
    return any(one in onnxruntime.get_available_providers() for one in GPU)


def _shape(told: Any) -> tuple[int | None, ...]:
    return tuple(one if isinstance(one, int) else None for one in told.shape)


def _session(path: Path, threads: int, chosen: list[str], engines: Engines, *, changed: bytes | None) -> Any:
    """*changed*: the rewritten model to load in the file's place; None: the file itself. Raises ModelError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Measured with YOLO11n at 640 on two cores: planning memory ahead costs 36 MB at the peak and gains no time, while
    # the arena pays: without it a run takes a third longer.
    options.enable_mem_pattern = False
    # What is planned to be used again, later in a run, is kept until then: 32 MB more for two runs of it.
    options.enable_mem_reuse = False
    # Threads spin within a run, where they wait for each other hundreds of times, and sleep when it ends: 35.5 ms and
    # 71 ms of CPU a run on two quiet cores. Never spinning takes 38 to 41 ms; the default burns 96 ms of CPU a run.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if ours_saturates():
        # Weights are used as numbers without a sign, which it adds without a loss: the same answers as everywhere, in
        # twice the time. Without it pcb-demo finds a third. It is done on any processor that it is said to.
        options.add_session_config_entry("session.x64quantprecision", "1")
    model: str | bytes = changed or str(path)
    if chosen == [CPU]:
        _share_arena()
        options.add_session_config_entry("session.use_env_allocators", "1")
    while True:
        try:
            # Its own fall-back tells of itself on stdout, which belongs to `station inspect --json`.
            session = onnxruntime.InferenceSession(
                model, options, providers=[engines.configured(one) for one in chosen], enable_fallback=0
            )
        except ERRORS as error:
            if chosen[0] == TENSORRT and engines.discard():  # what was kept does not fit: it is made anew
                log.info("engine cache discarded", reason=first_line(error))
                continue
            if isinstance(model, bytes):  # onnxruntime rejected our rewritten model: try the original file
                model = str(path)
                continue
            if len(chosen) == 1:
                raise ModelError(f"{path} cannot be loaded as ONNX: {first_line(error)}; {EXPORT_HINT}") from None
            log.warning("provider not usable", provider=chosen[0], reason=first_line(error))
            chosen = chosen[1:]
            continue
        session._model_bytes = None  # noqa: SLF001  # it would keep them for good, and needs them for its own fall-back only
        for missing in set(chosen) - set(session.get_providers()):
            log.warning("provider not usable", provider=missing, reason="its libraries did not load")
        return session


def _changed(path: Path) -> bytes | None:
    """The model rewritten to take an input that is quicker to make and to compute; None: it cannot be rewritten."""
    try:
        model = with_bytes_in(path.read_bytes())
    except OSError:  # it was there a moment ago; onnxruntime will say what has become of it
        return None
    return model and (with_blocks_in(model) or model)


@cache
def _share_arena() -> None:
    """
    One memory arena for all sessions on the processor, in one piece; only what is touched of it takes memory.

    A network's two sessions hardly ever run at the same time: 20 MB less than with an arena each, which also grow by
    doubling. In one piece free memory stays together: 3 MB less than in many, each as large as its first allocation.
    And what an allocation leaves of its chunk is split off for others: 4 MB less.
    """
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    grow = onnxruntime.OrtArenaCfg(
        {"arena_extend_strategy": 0, "initial_chunk_size_bytes": 32 << 20, "max_dead_bytes_per_chunk": 1 << 16}
    )
    onnxruntime.create_and_register_allocator(memory, grow)


def _offered(wanted: tuple[str, ...] | None) -> list[str]:
    there = onnxruntime.get_available_providers()
    if wanted is None:
        return [one for one in PREFERRED if one in there]
    for one in wanted:
        if one not in there:
            raise ModelError(f"this onnxruntime does not offer {one}, but: {', '.join(there)}")
    return list(wanted)
