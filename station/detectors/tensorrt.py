"""Where TensorRT keeps the engines it has made, so that a start does not take minutes: one folder for what they fit."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

TENSORRT = "TensorrtExecutionProvider"
ASK_S = 10.0  # nvidia-smi takes one or two where nothing keeps the driver loaded


def ask_device() -> str:
    """The first GPU and its driver, as ``nvidia-smi`` tells: ``NVIDIA A2, 550.54, 8.6``; empty where it cannot."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True, timeout=ASK_S).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


class Engines:
    """
    TensorRT's engine cache below *folder* (None: none is kept) for the model of *sha256*, on the device that is there.

    An engine fits one model on one GPU with one driver, so these name its folder: with another one of them it is not
    found, and made anew. Where the device cannot be asked for nothing is kept.
    """

    def __init__(self, folder: Path | None, sha256: str, *, ask: Callable[[], str] = ask_device) -> None:
        self._folder = folder
        self._sha256 = sha256
        self._ask = ask
        self._own: Path | None = None
        self._discarded = False

    def configured(self, provider: str) -> str | tuple[str, dict[str, str]]:
        """*provider* as onnxruntime takes it, with its options if it is TensorRT."""
        if provider != TENSORRT or self._folder is None:
            return provider
        if self._own is None:
            device = self._ask()
            if not device:
                return provider
            self._own = self._folder / hashlib.sha256(f"{device}\n{self._sha256}".encode()).hexdigest()[:32]
        try:
            self._own.mkdir(parents=True, exist_ok=True)
        except OSError:  # it works without, only slower to start
            return provider
        kept = str(self._own)
        options = {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": kept,
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": kept,
        }
        return provider, options

    def discard(self) -> bool:
        """Forgets what is kept, once; False when there was nothing to forget, or that was done before."""
        if self._discarded or self._own is None or not any(self._own.glob("*")):
            return False
        self._discarded = True
        shutil.rmtree(self._own, ignore_errors=True)
        return True
