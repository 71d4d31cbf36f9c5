"""``station capture``: one picture, as the station's camera takes it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import cv2

from station.config import Settings
from station.disk import make_directory
from station.errors import CameraError, ConfigError
from station.health import Health
from station.line_parts import make_camera
from station.line_sections import CameraSection
from station.sources.camera import Camera
from station.types import Shot

PICTURE_S = 20.0  # a network camera may need most of it to open
TURN_S = 0.5


def capture(settings: Settings, file: Path) -> Shot:
    """Takes a picture and writes it to *file*, which must be new; makes its folder. Raises ConfigError, CameraError."""
    wanted = settings.source
    if not isinstance(wanted, CameraSection):
        raise ConfigError('[source] kind = "folder": there is no camera to capture with; the inbox has the pictures')
    if file.suffix.lower() not in {".png", ".bmp", ".tif", ".tiff"}:
        raise ConfigError(f"{file}: name it .png: other formats change the picture")
    if file.exists():
        raise ConfigError(f"{file} is there already: choose another name")
    shot = first_picture(wanted)
    try:
        make_directory(file.parent)  # when there is something to put there
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be written: its folder cannot be made ({error.strerror}): choose another"
        ) from None
    written = False
    with suppress(cv2.error):
        written = cv2.imwrite(str(file), shot.image)
    if not written:
        raise ConfigError(f"{file} cannot be written: may you write in its folder?")
    return shot


def first_picture(wanted: CameraSection) -> Shot:
    """The first picture that the camera takes now. Raises CameraError: why there is none."""
    device = make_camera(
        wanted, triggered=False, health=Health(on_fault=lambda _fault, _began: None), worked=lambda: None
    )
    stop, failed = threading.Event(), list[CameraError]()

    def run() -> None:
        try:
            device.run(stop)
        except CameraError as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="camera", daemon=True)
    thread.start()
    deadline_s = time.monotonic() + PICTURE_S
    try:
        while (shot := _shot(device)) is None:
            if failed or time.monotonic() >= deadline_s:
                raise failed[0] if failed else CameraError(f"no picture within {PICTURE_S:g} s")
            stop.wait(0.05)  # it is being opened
        return shot
    finally:
        stop.set()
        thread.join(5)


def _shot(device: Camera) -> Shot | None:
    with suppress(CameraError):
        return device.shot(since_s=float("-inf"), within_s=TURN_S)
    return None
