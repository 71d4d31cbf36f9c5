"""The sections of the configuration: every key, its default, and what it accepts."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from station.config_words import accepted

MB = 1_000_000

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Port = Annotated[int, Field(ge=1, le=65535)]
Megabytes = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Days = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: object, info: ValidationInfo) -> object:
        """``port = true`` is a slip of the pen, and not port 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in {int, float}:
            raise ValueError("must be a number, not true or false")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _places(cls, value: object, info: ValidationInfo) -> object:
        """
        As a shell takes them, a home folder (~) too. An empty path would be the folder that the station is started in,
        and all that lies there its boards.
        """
        if isinstance(value, str) and cls.model_fields[str(info.field_name)].annotation in {Path, Path | None}:
            if not value:
                raise ValueError("must not be empty: leave the key out for its default")
            if "\0" in value:
                raise ValueError("must hold no NUL character: there is no such path")
            return os.path.expanduser(value)  # noqa: PTH111  # Path's own raises where there is no such user
        return value


def regular(value: str) -> str:
    """*value*, if it is a regular expression. Raises ValueError."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return value


WITHOUT_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]*$"  # brokers end a connection on which one of these comes
PLAIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # in topics, file names and command lines


class StationSection(Section):
    name: str = Field("aoi-1", min_length=1, max_length=64, pattern=PLAIN_NAME)
    topic: str = Field(
        "factory/line1/aoi-1", min_length=1, pattern=r"^[^+#\x00-\x1f\x7f-\x9f$/][^+#\x00-\x1f\x7f-\x9f]*$"
    )
    data_dir: Path = Path("data")


class FolderSection(Section):
    kind: Literal["folder"] = "folder"
    path: Path = Path("inbox")
    after: Literal["move", "leave"] = "move"
    subfolders: bool = False
    polling: Literal["auto", "always"] = "auto"
    serial_pattern: str = ""
    scan_s: Seconds = 30.0
    unchanged_s: Seconds = 30.0
    max_file_mb: Megabytes = 100.0
    max_pixels_mp: Megabytes = 150.0
    depth_bits: int = Field(16, gt=8, le=16)

    @field_validator("serial_pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return regular(value)


class TilesTable(Section):
    size: int = Field(ge=64, le=8192)
    overlap: float = Field(0.2, gt=0)

    @property
    def overlap_px(self) -> int:
        return round(self.overlap * self.size if self.overlap < 1 else self.overlap)

    @model_validator(mode="after")
    def _overlap_fits(self) -> TilesTable:
        if not 32 <= self.overlap_px <= self.size // 2:
            raise ValueError(f"tiles of {self.size} pixels can overlap by 32 to {self.size // 2}")
        return self


class DetectorSection(Section):
    kind: Literal["network", "golden", "both"] = "network"
    model: str = "store"
    backend: Literal["auto", "onnxruntime", "openvino"] = "auto"
    threads: int = Field(0, ge=0, le=256)
    confidence: Share = 0.25
    iou: Share = 0.45
    tiles: Literal["auto", "off"] | TilesTable = "auto"

    @field_validator("tiles", mode="before")
    @classmethod
    def _one_error(cls, value: object) -> object:
        if value in ("auto", "off") or isinstance(value, TilesTable):
            return value
        try:
            return TilesTable.model_validate(value)
        except ValidationError as error:
            forms = 'give "auto", "off", or a table as { size = 640, overlap = 128 }'
            why = accepted(error.errors()[0], TilesTable) if isinstance(value, dict) else ""
            raise ValueError(f"{forms}{f' ({why})' if why else ''}") from None


class IgnoreSection(Section):
    name: str = Field(min_length=1)
    x: float
    y: float
    width: float = Field(gt=0)
    height: float = Field(gt=0)


class ChallengeTable(Section):
    serials: tuple[str, ...] = ()
    expect: tuple[str, ...] = ()
    every_boards: int = Field(0, ge=0)
    at: tuple[Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")], ...] = ()
    on_change: bool = True

    @property
    def starts(self) -> tuple[tuple[int, int], ...]:
        """Hour and minute of each of *at*."""
        return tuple((int(one[:2]), int(one[3:])) for one in self.at)


class TrustFile(Section):
    """What ``station trust learn`` writes."""

    width: int = Field(ge=1)
    height: int = Field(ge=1)
    min_brightness: float = Field(ge=0, le=255)
    max_brightness: float = Field(ge=0, le=255)
    min_contrast: float = Field(ge=0, le=255)
    min_sharpness: float = Field(ge=0)
    max_shift_px: float | None = Field(None, gt=0)
    min_parts: tuple[float, ...] | None = Field(None, min_length=16, max_length=16)


class RecipeSection(Section):
    name: str = Field("default", min_length=1, max_length=64, pattern=PLAIN_NAME)
    threshold: Share = 0.5
    thresholds: dict[str, Share] = {}
    min_area_px: float = Field(0.0, ge=0)
    ignore: tuple[IgnoreSection, ...] = ()
    template: Path | None = None
    registration_limit: Share = 0.7
    min_contrast: float = Field(12.0, ge=0, le=255)
    serial_pattern: str = ""
    challenge: ChallengeTable | None = None
    trust: Path | None = None

    @field_validator("serial_pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return regular(value)

    def threshold_of(self, label: str) -> float:
        return self.thresholds.get(label, self.threshold)


class MqttSection(Section):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 1883
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    client_id: str = Field("", max_length=128, pattern=WITHOUT_CONTROLS)
    username: str = Field("", pattern=WITHOUT_CONTROLS)
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = Field(20, ge=5, le=3600)
    ack_timeout_s: Seconds = 20.0
    heartbeat_s: Seconds = 10.0
    commands: tuple[Literal["recipe", "challenge"], ...] = ()
    window: int = Field(20, ge=1, le=1000)

    @field_validator("host")
    @classmethod
    def _no_address(cls, value: str) -> str:
        if "/" in value or "@" in value:
            raise ValueError("must be the broker's name or address alone: port, tls and username are keys of their own")
        return value

    @field_validator("protocol", mode="before")
    @classmethod
    def _number_too(cls, value: object) -> object:
        return str(value) if isinstance(value, int | float) else value

    @model_validator(mode="after")
    def _whole(self) -> MqttSection:
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("ca_file, cert_file and key_file need tls = true")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file belong together: give both or none")
        return self


class EvidenceSection(Section):
    keep: Literal["all", "rejects", "none"] = "rejects"
    keep_days: Days = 30.0
    max_mb: Megabytes = 5000.0
    stop_below_mb: Megabytes = 1000.0


class LedgerSection(Section):
    keep_days: Days = 90.0
    stop_below_mb: Megabytes = 200.0


class LogSection(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"

    @field_validator("level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value
