"""Reads a GenICam camera through its maker's GenTL producer (.cti), in the camera's own process; needs harvesters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FETCH_S = 1.0
INCOMPLETE = "its buffer is incomplete: packets were lost on their way"
BAYER = {"BayerRG": "BG", "BayerGR": "GB", "BayerBG": "RG", "BayerGB": "GR"}  # OpenCV names the second row's pixels
NODES = {
    "pixel_format": "PixelFormat",
    "width": "Width",
    "height": "Height",
    "fps": "AcquisitionFrameRate",
    "exposure": "ExposureTime",
    "gain": "Gain",
}  # of the Standard Feature Naming Convention, in the order in which they are set


class GenicamError(Exception):
    """What is wrong with the camera, for a person."""


def open_genicam(device: str, options: dict[str, Any]) -> tuple[Iterator[tuple[Any, str]], list[str]]:
    """
    Pictures (gray, or BGR), each with its damage (then it is None), and what it did not take of the settings.

    *device*: ``PRODUCER.cti``, and behind a ``#`` the serial number or the id of one of its cameras. Raises
    GenicamError.
    """
    try:
        from harvesters.core import Harvester  # type: ignore[import-not-found,import-untyped,unused-ignore]  # an extra
    except ModuleNotFoundError:
        raise GenicamError(f"this needs an extra: {sys.prefix}/bin/pip install harvesters") from None
    producer, _, wanted = device.partition("#")
    if not Path(producer).is_file():
        raise GenicamError(f"{producer} is not there: the camera's maker has a GenTL producer, a .cti file")
    found = Harvester()
    found.add_file(producer)
    found.update()
    infos = found.device_info_list
    known = [f"{one.id_} (serial {one.serial_number})" for one in infos]
    at = [number for number, one in enumerate(infos) if wanted in {"", one.id_, one.serial_number}]
    if not at:
        raise GenicamError(f"there is no camera {wanted!r}; the producer sees: {', '.join(known) or 'none'}")
    if len(at) > 1:
        raise GenicamError(f"there are several cameras, name one behind a #: {', '.join(known)}")
    camera = found.create(at[0])
    notes = _set(camera.remote_device.node_map, options)
    camera.start()
    return _pictures(camera), notes


def _set(nodes: Any, options: dict[str, Any]) -> list[str]:
    from genicam.genapi import GenericException  # type: ignore[import-not-found,import-untyped,unused-ignore]  # ditto

    notes = []
    for key, name in NODES.items():
        value = options[key]
        if value is None or (not value and key not in {"exposure", "gain"}):
            continue
        try:
            node = nodes.get_node(name)
            node.value = type(node.value)(value)
        except (GenericException, AttributeError, TypeError, ValueError) as error:
            notes.append(f"{key} = {value} was not taken: {type(error).__name__}")
    return notes


def _pictures(camera: Any) -> Iterator[tuple[Any, str]]:
    from harvesters.core import Callback  # type: ignore[import-not-found,import-untyped,unused-ignore]  # ditto

    lost: list[str] = []

    class Incomplete(Callback):  # type: ignore[misc,unused-ignore]  # ditto
        """Told of what harvesters throws away: else a camera that loses packets looks like one that hangs."""

        def emit(self, context: object = None) -> None:  # noqa: ARG002  # its name is theirs
            lost.append(INCOMPLETE)

    camera.add_callback(camera.Events.INCOMPLETE_BUFFER, Incomplete())
    while True:
        buffer = camera.try_fetch(timeout=FETCH_S)
        if lost:
            yield None, lost.pop()
        if buffer is None:
            continue  # whoever waits for pictures says when that is too long
        with buffer:
            part = buffer.payload.components[0]
            damage = missing(part.delivered_image_height, part.height)
            yield (None if damage else picture(part.data, part.height, part.width, part.data_format)), damage


def missing(delivered: int, height: int) -> str:
    """A line scan camera may end a picture early: the buffer is complete, and below lies an earlier picture."""
    return f"{delivered} of its {height} rows came" if 0 < delivered < height else ""  # 0: the producer does not say


def picture(data: Any, height: int, width: int, pixel_format: str) -> Any:
    """*data* (one row of values) as height x width gray, or height x width x 3 BGR, uint8. Raises GenicamError."""
    import cv2
    import numpy as np

    values = data.reshape(height, width, -1)
    if values.dtype == np.uint16:  # Mono10 to Mono16: as many bits of sixteen as the name says
        bits = int("".join(one for one in pixel_format if one.isdigit())[:2] or 16)
        values = (values >> max(0, bits - 8)).astype(np.uint8)
    kind = next((name for name in BAYER if pixel_format.startswith(name)), None)
    if kind is not None:
        return cv2.cvtColor(values[:, :, 0], getattr(cv2, f"COLOR_Bayer{BAYER[kind]}2BGR"))
    match pixel_format.rstrip("0123456789pP_"), values.shape[2]:
        case "Mono", 1:
            return values[:, :, 0].copy()
        case "RGB", 3:
            return cv2.cvtColor(values, cv2.COLOR_RGB2BGR)
        case (("RGBa" | "RGBA"), 4):
            return cv2.cvtColor(values, cv2.COLOR_RGBA2BGR)
        case (("BGR" | "BGRa"), 3 | 4):
            return values[:, :, :3].copy()
    raise GenicamError(f"its pixel format {pixel_format} is not known here: set [source] pixel_format, such as Mono8")
