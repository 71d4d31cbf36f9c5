"""Settings: what the operator can choose, from a TOML file, the environment and the command line, frozen at start."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from station.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "STATION_"
PATH_VARIABLE = "STATION_CONFIG"
DEFAULT_PATHS = (Path("/etc/station/station.toml"), Path("configs/station.toml"))

# Names of the deployment guide, which people have in their .env files already, and the keys they stand for.
GUIDE_NAMES = {"LOG_LEVEL": "log.level", "MODEL_PATH": "detector.model", "CONFIDENCE_THRESHOLD": "recipe.threshold"}

MB = 1_000_000

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Port = Annotated[int, Field(ge=1, le=65535)]
Megabytes = Annotated[float, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Days = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StationSection(Section):
    name: str = Field("aoi-1", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    topic: str = Field("factory/line1/aoi-1", min_length=1, pattern=r"^[^+#\x00$/][^+#\x00]*$")
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

    @field_validator("serial_pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value


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
            accepted = 'give "auto", "off", or a table as { size = 640, overlap = 128 }'
            why = str(error.errors()[0]["msg"]).removeprefix("Value error, ") if isinstance(value, dict) else ""
            raise ValueError(f"{accepted}{f' ({why})' if why else ''}") from None


class IgnoreSection(Section):
    name: str = Field(min_length=1)
    x: float
    y: float
    width: float = Field(gt=0)
    height: float = Field(gt=0)


class RecipeSection(Section):
    name: str = "default"
    threshold: Share = 0.5
    thresholds: dict[str, Share] = {}
    min_area_px: float = Field(0.0, ge=0)
    ignore: tuple[IgnoreSection, ...] = ()
    template: Path | None = None
    registration_limit: Share = 0.7
    min_contrast: float = Field(12.0, ge=0, le=255)


class GateSection(Section):
    kind: Literal["off"] = "off"


class MqttSection(Section):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 1883
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    client_id: str = Field("", max_length=128)
    username: str = ""
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    keepalive_s: int = Field(20, ge=5, le=3600)
    ack_timeout_s: Seconds = 20.0
    heartbeat_s: Seconds = 10.0
    window: int = Field(20, ge=1, le=1000)

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


class HttpSection(Section):
    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8000

    @field_validator("host")
    @classmethod
    def _loopback(cls, value: str) -> str:
        if value not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError("must be a loopback address (127.0.0.1, ::1 or localhost): this port has no login")
        return value


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


class Settings(BaseSettings):
    """The whole configuration. Unknown keys are errors. It holds no secret, only where they lie."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", case_sensitive=False
    )

    station: StationSection = StationSection()
    source: FolderSection = FolderSection()
    detector: DetectorSection = DetectorSection()
    recipe: RecipeSection = RecipeSection()
    gate: GateSection = GateSection()
    mqtt: MqttSection = MqttSection()
    http: HttpSection = HttpSection()
    evidence: EvidenceSection = EvidenceSection()
    ledger: LedgerSection = LedgerSection()
    log: LogSection = LogSection()

    @model_validator(mode="after")
    def _floors_in_order(self) -> Settings:
        if self.evidence.stop_below_mb < self.ledger.stop_below_mb:
            raise ValueError(
                "evidence.stop_below_mb must be at least ledger.stop_below_mb: pictures stop before inspection does"
            )
        return self

    @model_validator(mode="after")
    def _golden_has_a_template(self) -> Settings:
        if self.detector.kind != "network" and self.recipe.template is None:
            raise ValueError(
                f'detector.kind = "{self.detector.kind}" needs recipe.template: the picture of a defect-free board'
            )
        return self

    @classmethod
    def settings_customise_sources(  # type: ignore[override]  # it is called by name, and takes what it is not named
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # ditto
        init_settings: PydanticBaseSettingsSource,
        **_others: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # load() has merged the sources already, in its own documented order


def load(path: Path | None = None, *, overrides: Iterable[str] = ()) -> Settings:
    """
    Settings from the file, then the environment and ``.env``, then *overrides* (``mqtt.host=10.0.0.5``).

    Raises ConfigError that names the key, where it was said, and what would be accepted.
    """
    file = _file(path)
    return _assembled(str(file), _toml(file), overrides)


def load_or_defaults(path: Path | None = None, *, overrides: Iterable[str] = ()) -> Settings:
    """As ``load``, but without any file the defaults hold: for commands that need none."""
    return load(path, overrides=overrides) if find(path) else _assembled("defaults", {}, overrides)


def _assembled(file: str, from_file: dict[str, Any], overrides: Iterable[str]) -> Settings:
    merged: dict[str, Any] = {}
    said: dict[str, str] = {}
    layers = ((file, from_file), ("environment", _environment()), ("command line", _overrides(overrides)))
    for where, layer in layers:
        _merge(merged, layer, where=where, said=said)
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(one, said, file) for one in error.errors())) from None


def find(path: Path | None) -> Path | None:
    """The configuration file that would be read: *path*, else $STATION_CONFIG, else the first default that is there."""
    if path is None and os.environ.get(PATH_VARIABLE):
        path = Path(os.environ[PATH_VARIABLE])
    return path or next((one for one in DEFAULT_PATHS if one.is_file()), None)


def _file(path: Path | None) -> Path:
    path = find(path)
    if path is None:
        places = ", ".join(str(one) for one in DEFAULT_PATHS)
        raise ConfigError(f"no configuration file: give one with -c FILE or ${PATH_VARIABLE}, or put it at {places}")
    return path


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: give a configuration file with -c FILE") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _environment() -> dict[str, Any]:
    """STATION_* and the guide's names, from the environment, else from ``.env`` in the working directory."""
    dotenv = DotEnvSettingsSource(Settings, env_file=".env")
    variables = {name.upper(): value for name, value in dotenv.env_vars.items() if value is not None}
    variables.update({name.upper(): value for name, value in os.environ.items()})
    _refuse_unknown(variables)
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): value for name, value in variables.items()}
    try:
        found: dict[str, Any] = source()
    except ValueError as error:
        raise ConfigError(f"environment: {error}: lists and tables are written as JSON") from None
    for name, key in GUIDE_NAMES.items():
        if variables.get(name):
            _merge(found, _nested(key, variables[name]), where=name, said={})
            if name == "CONFIDENCE_THRESHOLD":
                _merge(found, {"recipe": {"thresholds": REPLACED}}, where=name, said={})
    return found


REPLACED: dict[str, float] = {}  # in a layer: drop what the layers below said, as CONFIDENCE_THRESHOLD does


def _refuse_unknown(variables: Mapping[str, str]) -> None:
    known = {f"{PREFIX}{key.replace('.', '__')}".upper() for key in keys()} | {PATH_VARIABLE}
    sections = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    for name in sorted(variables):
        if name.startswith(PREFIX) and name not in known | sections and not _below_table(name, known):
            raise ConfigError(f"environment variable {name}: unknown{_nearest(name, known)}")


def _below_table(name: str, known: Iterable[str]) -> bool:
    """STATION_RECIPE__THRESHOLDS__SHORT is below a key that takes a table."""
    return any(name.startswith(f"{one}__") for one in known if one.endswith("__THRESHOLDS"))


def _overrides(pairs: Iterable[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key not in keys():
            raise ConfigError(f"--set {pair}: write SECTION.KEY=VALUE{_nearest(key, keys())}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text  # a bare word: what a shell leaves of a quoted string
        _merge(made, _nested(key, value), where="command line", said={})
    return made


def keys() -> list[str]:
    """Every key that the file may hold, as ``section.key``."""
    return [
        f"{name}.{key}"
        for name, field in Settings.model_fields.items()
        for key in field.annotation.model_fields  # type: ignore[union-attr]  # every section is a Section
    ]


def _nested(key: str, value: object) -> dict[str, Any]:
    section, _, name = key.partition(".")
    return {section: {name: value}}


def _merge(into: dict[str, Any], layer: Mapping[str, Any], *, where: str, said: dict[str, str], key: str = "") -> None:
    for name, value in layer.items():
        path = f"{key}.{name}" if key else name
        if isinstance(value, Mapping) and value is not REPLACED and isinstance(into.get(name), dict):
            _merge(into[name], value, where=where, said=said, key=path)
        elif isinstance(value, Mapping) and value is not REPLACED:
            into[name] = {}
            _merge(into[name], value, where=where, said=said, key=path)
        else:
            into[name] = value
            said[path] = where


def _explain(error: Any, said: Mapping[str, str], file: str) -> str:
    path = [str(part) for part in error["loc"]]
    key = ".".join(path)
    where = said.get(key) or next((at for one, at in said.items() if one.startswith(f"{key}.")), file)
    if error["type"] == "extra_forbidden":
        candidates = (
            [one for one in keys() if one.startswith(f"{path[0]}.")] if len(path) > 1 else list(Settings.model_fields)
        )
        what = "key" if len(path) > 1 else "section"
        return f"{where}: [{path[0]}] {'.'.join(path[1:])}: unknown {what}{_nearest(key, candidates)}".replace(
            "] :", "]:"
        )
    message = str(error["msg"]).removeprefix("Value error, ")
    given = "" if isinstance(error["input"], dict | BaseModel) else f" (given: {error['input']!r})"
    return f"{where}: [{path[0]}] {'.'.join(path[1:])}: {message}{given}" if path else f"{where}: {message}"


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"
