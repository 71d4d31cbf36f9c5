"""Builds single parts at the line from their sections: what the daemon and the commands both need."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from station.errors import CameraError, ConfigError
from station.extras import how_to_add
from station.folders import make_folder
from station.foresight import AHEAD
from station.health import Health
from station.ledger import SqliteLedger
from station.line_sections import CameraSection, ModbusRtuSection, SerialPortSection
from station.parts import read_password
from station.sections import MB, FolderSection
from station.serial_port import SerialOptions, SerialPort
from station.sources.camera import Camera, CameraOptions
from station.sources.folder import FolderSource
from station.types import Beat, Frame


def make_camera(wanted: CameraSection, *, triggered: bool, health: Health, worked: Callable[[], None]) -> Camera:
    named = {name: getattr(wanted, name) for name in CameraOptions.__slots__ if name != "triggered"}
    options = CameraOptions(**named, triggered=triggered)

    def login() -> tuple[str, str] | None:
        if not wanted.username:
            return None
        try:
            return wanted.username, read_password(wanted.password_file, "[source] password_file") or ""
        except ConfigError as error:
            raise CameraError(str(error)) from None

    return Camera(options, health=health, login=login, worked=worked)


def make_port(wanted: SerialPortSection, *, name: str, beat: Beat) -> SerialPort:
    options = SerialOptions(**{key: getattr(wanted, key) for key in SerialOptions.__slots__})
    return SerialPort(options, name=name, beat=beat)


def make_rtu_port(wanted: ModbusRtuSection, *, beat: Beat) -> SerialPort:
    options = SerialOptions(wanted.port, wanted.baud, parity=wanted.parity, stop_bits=wanted.stop_bits, terminator="")
    return SerialPort(options, name="modbus", beat=beat)


def need_modbus() -> None:
    """Raises ConfigError when pymodbus is not there."""
    if find_spec("pymodbus") is None:
        raise ConfigError(f"[modbus] needs an extra that is not installed: {how_to_add('modbus')}")


def build_folder(
    wanted: FolderSection,
    *,
    in_flight: Path,
    ledger: SqliteLedger,
    on_backlog: Callable[[int], None],
    on_silence: Callable[[bool], None],
    foresee: Callable[[Frame], None],
) -> FolderSource:
    with contextlib.suppress(ConfigError):  # a share that is away at the moment: the source says so, and waits for it
        make_folder(wanted.path, "[source] path")
    return FolderSource(
        wanted.path,
        after=wanted.after,
        recorded=ledger.recorded,
        in_flight=in_flight,
        serial_pattern=re.compile(wanted.serial_pattern) if wanted.serial_pattern else None,
        subfolders=wanted.subfolders,
        polling=True if wanted.polling == "always" else None,
        scan_every_s=wanted.scan_s,
        unchanged_s=wanted.unchanged_s,
        max_bytes=int(wanted.max_file_mb * MB),
        max_pixels=int(wanted.max_pixels_mp * MB),
        depth_bits=wanted.depth_bits,
        on_backlog=on_backlog,
        on_silence=on_silence,
        foresee=foresee,
        ahead=AHEAD,
    )
