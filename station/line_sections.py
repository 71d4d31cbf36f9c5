"""The sections of the configuration that speak of the moving line: camera, trigger, serial port, gate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from station.sections import Seconds, Section

Milliseconds = Annotated[int, Field(ge=1, le=600_000)]


class CameraSection(Section):
    """``[source] kind = "camera"``."""

    kind: Literal["camera"] = "camera"
    device: str = Field(min_length=1)
    width: int = Field(0, ge=0, le=65535)
    height: int = Field(0, ge=0, le=65535)
    fps: float = Field(0.0, ge=0, le=1000)
    pixel_format: str = Field("", pattern=r"^(.{4})?$")
    exposure: float | None = None
    gain: float | None = None
    username: str = ""
    password_file: Path | None = None
    stalled_s: Seconds = 2.0
    frozen_s: float = Field(2.0, ge=0)
    latency_ms: int = Field(0, ge=0, le=60_000)


class FreeTrigger(Section):
    """Every new picture is a board: what a folder does, and a camera at a belt that stops for it."""

    kind: Literal["free"] = "free"


class IntervalTrigger(Section):
    kind: Literal["interval"] = "interval"
    interval_s: Seconds = 1.0


class AskedTrigger(Section):
    """What all triggers from outside have in common."""

    queue: int = Field(4, ge=1, le=1000)
    answer_ms: Milliseconds = 1000


class SerialTrigger(AskedTrigger):
    kind: Literal["serial"] = "serial"
    preset: Literal["plain", "keyence", "cognex"] = "plain"
    pattern: str = ""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value


class MqttTrigger(AskedTrigger):
    kind: Literal["mqtt"] = "mqtt"


class HttpTrigger(AskedTrigger):
    kind: Literal["http"] = "http"


class ModbusTrigger(AskedTrigger):
    kind: Literal["modbus"] = "modbus"


TriggerSection = FreeTrigger | IntervalTrigger | SerialTrigger | MqttTrigger | HttpTrigger | ModbusTrigger


class SerialSection(Section):
    """The port to the PLC, which the serial trigger and the serial gate share. *port* empty: there is none."""

    port: str = ""
    baud: int = Field(9600, ge=50, le=4_000_000)
    bits: Literal[7, 8] = 8
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1
    terminator: Literal["\r", "\n", "\r\n"] = "\r"
    max_line_bytes: int = Field(256, ge=8, le=65536)


class OffGate(Section):
    kind: Literal["off"] = "off"


class SerialGate(Section):
    """Strings to the PLC over ``[serial]``; ``{number}``, ``{serial}``, ``{reason}`` are filled in."""

    kind: Literal["serial"] = "serial"


class RelayGate(Section):
    kind: Literal["relay"] = "relay"


class ModbusGate(Section):
    kind: Literal["modbus"] = "modbus"


GateSection = OffGate | SerialGate | RelayGate | ModbusGate
