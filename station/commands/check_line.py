"""``station check`` at the line: takes one picture with the camera, and opens each serial port once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from station.commands.finding import Finding
from station.config import Settings
from station.errors import CameraError, ConfigError, PortError
from station.health import Health
from station.line_sections import (
    CameraSection,
    LineScanner,
    PatliteTower,
    RelayGateSection,
    SerialGateSection,
    SerialPortSection,
    SerialScanner,
    SerialTrigger,
)
from station.line_side import make_camera, make_port
from station.parts import build_trust
from station.sources.camera import Camera, CameraOptions
from station.trust import look_at, problem_of
from station.types import Shot

PICTURE_S = 20.0  # a network camera may need most of it to open
TURN_S = 0.5


def camera(settings: Settings) -> Iterator[Finding]:
    """A camera that is away is waited for, so it need not be there."""
    wanted = settings.source
    if not isinstance(wanted, CameraSection):
        return
    health = Health(on_fault=lambda _fault, _began: None)
    device = make_camera(wanted, health=health, worked=lambda: None)
    try:
        shot = _picture(device)
    except CameraError as error:
        yield Finding("camera", works=False, needed=False, seen=str(error))
        return
    look = look_at(shot.image)
    seen = (
        f"{CameraOptions(wanted.device).shown} {look.width}x{look.height}, brightness {look.brightness:.0f}, "
        f"contrast {look.contrast:.0f}, sharpness {look.sharpness:.1f}"
    )
    yield Finding("camera", works=True, seen=seen)
    with suppress(ConfigError):  # said elsewhere
        problem = problem_of(shot.image, min_contrast=settings.recipe.min_contrast, limits=build_trust(settings))
        if problem is not None:
            yield Finding("picture", works=False, needed=False, seen=f"would be UNKNOWN: {problem}")


def _picture(device: Camera) -> Shot:
    """The first that the camera takes. Raises CameraError: why there is none."""
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


def ports(settings: Settings) -> Iterator[Finding]:
    """So is an adapter that is not plugged in."""
    used = dict(_used(settings))
    if "serial" not in used:
        yield Finding("serial", works=True, seen="not used: neither [trigger] nor [gate] nor [scanner] speaks over it")
    for section, wanted in used.items():
        trouble = _trouble(section, wanted)
        yield Finding(section, works=trouble is None, needed=False, seen=trouble or f"{wanted.port} can be opened")


def _trouble(section: str, wanted: SerialPortSection) -> str | None:
    try:
        make_port(wanted, name=section, beat=lambda _loop: None).probe()
    except PortError as error:
        return str(error)
    return None


def _used(settings: Settings) -> Iterator[tuple[str, SerialPortSection]]:
    on_the_line = (
        isinstance(settings.gate, SerialGateSection)
        or isinstance(settings.trigger, SerialTrigger)
        or isinstance(settings.scanner, LineScanner)
    )
    if on_the_line:
        yield "serial", settings.serial
    if isinstance(settings.scanner, SerialScanner):
        yield "scanner", settings.scanner
    if isinstance(settings.gate, RelayGateSection):
        yield "gate", settings.gate
    if isinstance(settings.tower, PatliteTower):
        yield "tower", settings.tower
