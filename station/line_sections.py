"""The sections of the configuration that speak of the moving line: camera, trigger, serial port, gate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from station.line_texts import VERDICTS, can_be_equal, pattern_of
from station.sections import Seconds, Section, regular

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
    latency_ms: int = Field(40, ge=0, le=60_000)

    @model_validator(mode="after")
    def _whole(self) -> CameraSection:
        if bool(self.width) != bool(self.height):
            raise ValueError("width and height belong together: give both or none")
        if "@" in self.device.partition("://")[2].partition("/")[0]:
            raise ValueError("a login in device would be seen by everybody: put it into username and password_file")
        return self


class FreeTrigger(Section):
    """Every new picture is a board: what a folder does, and a camera at a belt that stops for it."""

    kind: Literal["free"] = "free"


class IntervalTrigger(Section):
    kind: Literal["interval"] = "interval"
    interval_s: Seconds = 1.0


class AskedTrigger(Section):
    """What all triggers from outside have in common."""

    kind: str
    queue: int = Field(4, ge=1, le=1000)
    answer_ms: Milliseconds = 1000


class SerialTrigger(AskedTrigger):
    kind: Literal["serial"] = "serial"
    preset: Literal["plain", "keyence", "cognex"] = "plain"
    pattern: str = ""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return regular(value)


class MqttTrigger(AskedTrigger):
    kind: Literal["mqtt"] = "mqtt"


class HttpTrigger(AskedTrigger):
    kind: Literal["http"] = "http"


class ModbusTrigger(AskedTrigger):
    kind: Literal["modbus"] = "modbus"


TriggerSection = FreeTrigger | IntervalTrigger | SerialTrigger | MqttTrigger | HttpTrigger | ModbusTrigger


class SerialPortSection(Section):
    """How a serial port talks."""

    port: str = ""
    baud: int = Field(9600, ge=50, le=4_000_000)
    bits: Literal[7, 8] = 8
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1
    terminator: Literal["\r", "\n", "\r\n"] = "\r"
    max_line_bytes: int = Field(256, ge=8, le=65536)


class SerialSection(SerialPortSection):
    """``[serial]``: the port to the PLC, which the serial trigger and the serial gate share. Empty: there is none."""


class OffScanner(Section):
    kind: Literal["off"] = "off"


class CodeSection(Section):
    """What all barcode scanners have in common."""

    pattern: str = ".+"
    no_read: tuple[str, ...] = ("ERROR", "NOREAD", "NR")
    window_ms: Milliseconds = 2000
    required: bool = False

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return regular(value)


class SerialScanner(SerialPortSection, CodeSection):
    """A scanner on a port of its own."""

    kind: Literal["serial"] = "serial"
    port: str = Field(min_length=1)


class LineScanner(CodeSection):
    """A scanner whose codes come on the PLC's line; *pattern* tells them from triggers."""

    kind: Literal["line"] = "line"


ScannerSection = OffScanner | SerialScanner | LineScanner


class OffGate(Section):
    kind: Literal["off"] = "off"


def _text(default: str) -> Any:
    return Field(default, max_length=200)


class SerialGateSection(Section):
    """Texts to the PLC over ``[serial]``."""

    kind: Literal["serial"] = "serial"
    pass_text: str = _text("P{number}")
    fail_text: str = _text("F{number}")
    unknown_text: str = _text("U{number}")
    ready_text: str = _text("READY")
    busy_text: str = _text("BUSY")
    safe_text: str = _text("SAFE")
    end_text: str = _text("E{number}")
    heartbeat_texts: tuple[str, ...] = ("H0", "H1")
    heartbeat_s: Seconds = 1.0
    ack_text: str = _text("")
    ack_ms: Milliseconds = 200
    valid_ms: int = Field(0, ge=0, le=600_000)

    @field_validator("pass_text", "fail_text", "unknown_text", "end_text", "ack_text")
    @classmethod
    def _can_be_filled(cls, value: str) -> str:
        try:
            value.format(number="", serial="", verdict="", reason="")
        except (KeyError, IndexError, ValueError, AttributeError):
            raise ValueError("may hold {number}, {serial}, {verdict} and {reason}, and no other braces") from None
        return _plain(value)

    @field_validator("ready_text", "busy_text", "safe_text")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        return _plain(value)

    @field_validator("heartbeat_texts")
    @classmethod
    def _are_plain(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_plain(one) for one in values)

    @model_validator(mode="after")
    def _pass_is_like_nothing_else(self) -> SerialGateSection:
        passed = self.pass_text.replace("{verdict}", "PASS")
        boards = [self.fail_text.replace("{verdict}", "FAIL"), self.unknown_text.replace("{verdict}", "UNKNOWN")]
        boards += [self.end_text.replace("{verdict}", one) for one in VERDICTS]
        fixed = (self.ready_text, self.busy_text, self.safe_text, *self.heartbeat_texts)
        alike = [one for one in boards if one and can_be_equal(passed, one)]
        alike += [one for one in fixed if one and pattern_of(passed).fullmatch(one)]
        if self.pass_text and alike:
            raise ValueError(
                f'pass_text = "{self.pass_text}" can read like what is said for something else too, "{alike[0]}": '
                "the line could not tell"
            )
        return self


class RelayGateSection(SerialPortSection):
    """A USB relay on a port of its own."""

    kind: Literal["relay"] = "relay"
    port: str = Field(min_length=1)
    preset: Literal["lcus", "custom"] = "lcus"
    on_hex: str = Field("", pattern=r"^([0-9A-Fa-f]{2} ?)*$")
    off_hex: str = Field("", pattern=r"^([0-9A-Fa-f]{2} ?)*$")
    pulse_ms: Milliseconds = 200

    @model_validator(mode="after")
    def _custom_has_bytes(self) -> RelayGateSection:
        if (self.preset == "custom") != bool(self.on_hex and self.off_hex):
            raise ValueError('preset = "custom" goes with on_hex and off_hex, the bytes that close and open the relay')
        return self


class ModbusGateSection(Section):
    """``[gate] kind = "modbus"``: the answers stand in the registers of ``[modbus]``."""

    kind: Literal["modbus"] = "modbus"


GateSection = OffGate | SerialGateSection | RelayGateSection | ModbusGateSection


class OffModbus(Section):
    kind: Literal["off"] = "off"


class ModbusSection(Section):
    """What both ways of Modbus have in common."""

    unit: int = Field(1, ge=1, le=247)
    heartbeat_s: Seconds = 0.5
    ack_ms: int = Field(0, ge=0, le=600_000)
    valid_ms: int = Field(2000, ge=0, le=600_000)


class ModbusTcpSection(ModbusSection):
    kind: Literal["tcp"] = "tcp"
    host: str = "127.0.0.1"
    tcp_port: int = Field(5020, ge=1, le=65535)


class ModbusRtuSection(ModbusSection):
    """A serial port of its own: RTU has no lines. The defaults are those of the Modbus specification."""

    kind: Literal["rtu"] = "rtu"
    port: str = Field(min_length=1)
    baud: int = Field(19200, ge=50, le=4_000_000)
    parity: Literal["none", "even", "odd"] = "even"
    stop_bits: Literal[1, 2] = 1


ModbusKind = OffModbus | ModbusTcpSection | ModbusRtuSection


class OffTower(Section):
    kind: Literal["off"] = "off"


class PatliteTower(SerialPortSection):
    kind: Literal["patlite"] = "patlite"
    port: str = Field(min_length=1)
    owed_events: int = Field(100, ge=1)


TowerSection = OffTower | PatliteTower


def _plain(value: str) -> str:
    if not all(" " <= one <= "~" for one in value):
        raise ValueError("may hold printable ASCII only: the terminator is added")
    return value
