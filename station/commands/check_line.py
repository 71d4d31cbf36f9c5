"""``station check`` at the line: takes one picture with the camera, and opens each port to the PLC once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec

from station.commands.capture import first_picture
from station.commands.finding import Finding
from station.config import Settings
from station.errors import CameraError, CameraUnfitError, ConfigError, PortError
from station.extras import how_to_add
from station.folders import is_locked
from station.line_parts import make_port, make_rtu_port, need_modbus
from station.line_sections import (
    CameraSection,
    LineScanner,
    ModbusRtuSection,
    ModbusTcpSection,
    PatliteTower,
    RelayGateSection,
    SerialGateSection,
    SerialPortSection,
    SerialScanner,
    SerialTrigger,
)
from station.parts import build_trust
from station.sources.camera import CameraOptions
from station.trust import look_at, problem_of

DEPAYLOADER = re.compile(r"^gstreamer:.*\brtph26[45]depay\b")  # in front of a decoder that hides what is missing


def camera(settings: Settings) -> Iterator[Finding]:
    """
    A station waits for a camera that is away; but who asks here wants to know whether boards will be seen. Only a
    station that runs may have it for itself.
    """
    wanted = settings.source
    if not isinstance(wanted, CameraSection):
        return
    if wanted.device.startswith("genicam:") and find_spec("harvesters") is None:
        seen = f"[source] device = {wanted.device} needs an extra that is not installed: {how_to_add('genicam')}"
        yield Finding("camera", works=False, seen=seen)
        return
    if wanted.device.startswith(("http://", "https://")) and settings.trigger.kind != "free":
        seen = (
            "motion JPEG does not tell how old a picture is: on a slow network a trigger gets the picture of "
            "an earlier board; use RTSP, a USB or a GenICam camera (docs/line.md)"
        )
        yield Finding("camera", works=False, needed=False, seen=seen)
    if DEPAYLOADER.search(wanted.device) and "wait-for-keyframe=true" not in wanted.device:
        seen = (
            "this pipeline shows made-up pictures after a lost packet: write rtph264depay wait-for-keyframe=true, "
            "or so for rtph265depay (docs/line.md)"
        )
        yield Finding("camera", works=False, needed=False, seen=seen)
    try:
        shot = first_picture(wanted)
    except CameraError as error:
        held = is_locked(settings.station.data_dir) and not isinstance(error, CameraUnfitError)
        seen = f"{error}; perhaps the station that runs has it: its /health knows" if held else str(error)
        yield Finding("camera", works=False, needed=not held, seen=seen)
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


def ports(settings: Settings) -> Iterator[Finding]:
    """An adapter that is not plugged in is waited for, and a station that runs has its ports."""
    used = dict(_used(settings))
    if "serial" not in used:
        yield Finding("serial", works=True, seen="not used: neither [trigger] nor [gate] nor [scanner] speaks over it")
    for section, wanted in used.items():
        trouble = _trouble(section, wanted)
        yield Finding(section, works=trouble is None, needed=False, seen=trouble or f"{wanted.port} can be opened")


def modbus(settings: Settings) -> Iterator[Finding]:
    """A port that a running station has is in use, so it need not be free."""
    wanted = settings.modbus
    if not isinstance(wanted, ModbusTcpSection | ModbusRtuSection):
        return
    used = "trigger and gate" if settings.trigger.kind == "modbus" else "gate"
    try:
        need_modbus()
    except ConfigError as error:
        yield Finding("modbus", works=False, seen=str(error))
        return
    from station.modbus import probe  # only where it is used: pymodbus is an extra

    try:
        if isinstance(wanted, ModbusTcpSection):
            where = f"{wanted.host}:{wanted.tcp_port}"
            probe(wanted.host, wanted.tcp_port)
        else:
            where = wanted.port
            make_rtu_port(wanted, beat=lambda _loop: None).probe()
    except PortError as error:
        yield Finding("modbus", works=False, needed=False, seen=str(error))
        return
    yield Finding("modbus", works=True, seen=f"{where} can be opened, as unit {wanted.unit}, for {used}")


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
