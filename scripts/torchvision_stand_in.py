"""ultralytics without torchvision. Imports nothing else of ours: what is measured beside us must not pay for it."""

from __future__ import annotations

import importlib.metadata
import sys
import types
from typing import Any


def allow_missing_torchvision() -> None:
    """
    Puts a stand-in where torchvision is not installed (a torch build without a matching torchvision).

    ultralytics reads its version and, in validation, calls its NMS; nothing else of it is used for detection.
    """
    try:
        import torchvision  # noqa: F401  # the real one wins wherever it loads
    except (ImportError, RuntimeError):
        stand_in, ops = types.ModuleType("torchvision"), types.ModuleType("torchvision.ops")
        vars(ops)["nms"] = stand_in_nms
        vars(stand_in).update(__version__="0.0.0", ops=ops)
        sys.modules.update({"torchvision": stand_in, "torchvision.ops": ops})
        real = importlib.metadata.version
        vars(importlib.metadata)["version"] = lambda name: "0.0.0" if name == "torchvision" else real(name)


def stand_in_nms(boxes: Any, scores: Any, iou: float) -> Any:
    from ultralytics.utils.nms import TorchNMS

    return TorchNMS.nms(boxes, scores, iou)
