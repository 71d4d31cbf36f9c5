"""What the processor is, and what it makes of networks of 8 bits."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

VNNI = {"avx512_vnni", "avx_vnni"}  # as Linux names what adds products of 8 bits without a loss


def saturates(cpuinfo: str, machine: str) -> bool:
    """
    Whether it adds two products of 8 bits in 16, and cuts off what is beyond: x86 before about 2020.

    A network that was quantised with all 8 bits of its weights then finds far less: of what ``pcb-demo`` finds above
    0.5 on a board a third, by OpenVINO a tenth. *cpuinfo*: the text of /proc/cpuinfo. Source: onnxruntime.ai/docs,
    "Quantize ONNX models", on VPMADDUBSW.
    """
    flags = next((line.partition(":")[2].split() for line in cpuinfo.splitlines() if line.startswith("flags")), [])
    return machine in {"x86_64", "AMD64"} and not VNNI & set(flags)


@cache
def ours_saturates() -> bool:
    """Of this machine; where that cannot be told, it does."""
    return saturates(_cpuinfo(), platform.machine())


def name() -> str:
    """What Linux calls this machine's; on ARM it has numbers only."""
    named = (line for line in _cpuinfo().splitlines() if line.startswith(("model name", "CPU part")))
    return next(named, platform.machine())


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return ""
