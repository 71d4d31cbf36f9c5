"""Settings: what the operator can choose, from a TOML file, the environment and the command line, frozen at start."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from station.config_words import accepted, explain, nearest
from station.errors import ConfigError
from station.http_section import HttpSection
from station.line_sections import (
    AskedTrigger,
    CameraSection,
    FreeTrigger,
    GateSection,
    LineScanner,
    ModbusGateSection,
    ModbusKind,
    ModbusRtuSection,
    ModbusTrigger,
    OffGate,
    OffModbus,
    OffScanner,
    OffTower,
    ScannerSection,
    SerialGateSection,
    SerialPortSection,
    SerialSection,
    SerialTrigger,
    TowerSection,
    TriggerSection,
)
from station.line_texts import TRIGGERS, could_trigger
from station.sections import (
    MB,
    DetectorSection,
    EvidenceSection,
    FolderSection,
    LedgerSection,
    LogSection,
    MqttSection,
    RecipeSection,
    Section,
    StationSection,
    TrustFile,
)
from station.toml_words import explain_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "STATION_"
PATH_VARIABLE = "STATION_CONFIG"
DEFAULT_PATHS = (Path("/etc/station/station.toml"), Path("configs/station.toml"))

# Names of the deployment guide, which people have in their .env files already, and the keys they stand for.
GUIDE_NAMES = {
    "LOG_LEVEL": "log.level",
    "MODEL_PATH": "detector.model",
    "CONFIDENCE_THRESHOLD": "recipe.threshold",
    "ALGORITHM": "http.jwt_algorithm",
    "ACCESS_TOKEN_EXPIRE_MINUTES": "http.token_minutes",
    "ALLOWED_ORIGINS": "http.allowed_origins",
    "ENABLE_METRICS": "http.metrics",
    "MAX_FILE_SIZE": "http.max_file_mb",
}
SECRET_NAME = "SECRET_KEY"  # noqa: S105  # theirs too, but no setting: settings hold no secret


class Settings(BaseSettings):
    """The whole configuration. Unknown keys are errors. It holds no secret, only where they lie."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", case_sensitive=False
    )

    station: StationSection = StationSection()
    source: FolderSection | CameraSection = FolderSection()
    trigger: TriggerSection = FreeTrigger()
    serial: SerialSection = SerialSection()
    scanner: ScannerSection = OffScanner()
    detector: DetectorSection = DetectorSection()
    recipe: RecipeSection = RecipeSection()
    recipes: dict[str, RecipeSection] = {}
    gate: GateSection = OffGate()
    modbus: ModbusKind = OffModbus()
    tower: TowerSection = OffTower()
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

    @model_validator(mode="after")
    def _recipes_can_be_told_apart(self) -> Settings:
        if self.recipe.serial_pattern:
            raise ValueError(
                "recipe.serial_pattern: [recipe] judges what no other recipe does; put it in [recipes.NAME]"
            )
        for name, one in self.recipes.items():
            if one.name != name or name == self.recipe.name:
                raise ValueError(f"recipes.{name}: its name must be {name}, and another one than that of [recipe]")
            if self.detector.kind != "network" and one.template is None:
                raise ValueError(f'recipes.{name}: detector.kind = "{self.detector.kind}" needs its template')
        return self

    @model_validator(mode="after")
    def _line_fits_together(self) -> Settings:
        asked = isinstance(self.trigger, AskedTrigger)
        if self.trigger.kind != "free" and not isinstance(self.source, CameraSection):
            raise ValueError(f'trigger.kind = "{self.trigger.kind}" needs a camera: source.kind = "camera"')
        for key, section in (("trigger", self.trigger), ("gate", self.gate), ("scanner", self.scanner)):
            if isinstance(section, SerialTrigger | SerialGateSection | LineScanner) and not self.serial.port:
                raise ValueError(f'{key}.kind = "{section.kind}" needs serial.port: the port to the PLC')
            if isinstance(section, ModbusTrigger | ModbusGateSection) and self.modbus.kind == "off":
                raise ValueError(f'{key}.kind = "modbus" needs modbus.kind = "tcp" or "rtu"')
        if self.gate.kind != "modbus" and "modbus" in {
            self.trigger.kind,
            "modbus" if self.modbus.kind != "off" else "",
        }:
            raise ValueError('modbus: its answers stand in the registers: set gate.kind = "modbus" too')
        if self.scanner.kind != "off" and not asked:
            raise ValueError(f'scanner.kind = "{self.scanner.kind}" needs a trigger that its codes belong to')
        match self.gate, self.trigger:
            case SerialGateSection() as gate, AskedTrigger() as trigger if gate.ack_text:
                if isinstance(trigger, SerialTrigger):
                    line = could_trigger(gate.ack_text, trigger.pattern or TRIGGERS[trigger.preset])
                    if line is not None:
                        raise ValueError(
                            f'gate.ack_text = "{gate.ack_text}": "{line}" would be an acknowledgement and a trigger'
                        )
                if gate.ack_ms >= trigger.answer_ms:
                    raise ValueError("gate.ack_ms must be below trigger.answer_ms: acknowledging is a part of it")
            case ModbusGateSection(), AskedTrigger() as trigger if not isinstance(self.modbus, OffModbus):
                if self.modbus.ack_ms >= trigger.answer_ms:
                    raise ValueError("modbus.ack_ms must be below trigger.answer_ms: acknowledging is a part of it")
        return self

    @model_validator(mode="after")
    def _each_port_is_one_devices(self) -> Settings:
        devices = {"scanner": self.scanner, "gate": self.gate, "modbus": self.modbus, "tower": self.tower}
        ports = {key: one.port for key, one in devices.items() if isinstance(one, SerialPortSection | ModbusRtuSection)}
        on_the_line = SerialTrigger | SerialGateSection | LineScanner
        if any(isinstance(one, on_the_line) for one in (self.trigger, self.gate, self.scanner)):
            ports["serial"] = self.serial.port
        used: dict[str, str] = {}
        for key, port in ports.items():
            other = used.setdefault(os.path.realpath(port), key)
            if other != key:
                hint = ': a scanner on the line to the PLC is kind = "line"' if other == "scanner" else ""
                raise ValueError(f"{other}.port and {key}.port are one device, {port}: give each its own{hint}")
        return self

    def of_recipe(self, name: str) -> Settings:
        """The same settings, with the recipe *name* as the one that judges."""
        recipe = self.recipe if name == self.recipe.name else self.recipes[name]
        return self.model_copy(update={"recipe": recipe, "recipes": {}})

    def with_detector(self, **changes: object) -> Settings:
        """The same settings, with another ``[detector]`` in these keys."""
        return self.model_copy(update={"detector": self.detector.model_copy(update=changes)})

    @classmethod
    def settings_customise_sources(  # type: ignore[override]  # it is called by name, and takes what it is not named
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # ditto
        init_settings: PydanticBaseSettingsSource,
        **_others: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # load() has merged the sources already, in its own documented order


SECTIONS = tuple(name for name in Settings.model_fields if name != "recipes")
OWN_KEYS = frozenset({"name", "serial_pattern"})  # of a recipe, which no other one inherits


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
    sections, errors = _sections(merged)
    if not errors:
        try:
            return Settings(**sections)
        except ValidationError as error:
            errors = error.errors()
    kinds = {name: kinds_of(name) for name in SECTIONS}
    if isinstance(merged.get("recipes"), dict):
        kinds.update({f"recipes.{name}": {"": RecipeSection} for name in merged["recipes"]})
    raise ConfigError("\n".join(explain(one, said=said, file=file, kinds=kinds) for one in errors)) from None


def kinds_of(section: str) -> dict[str, type[Section]]:
    """The classes that *section* may be, by their ``kind``; a section that has none is alone under an empty one."""
    annotation = Settings.model_fields[section].annotation
    classes: tuple[type[Section], ...] = get_args(annotation) or (annotation,)
    return {str(one.model_fields["kind"].default) if len(classes) > 1 else "": one for one in classes}


def _sections(merged: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Each section by itself, as its ``kind`` wants it, and what is wrong with them and with other names."""
    made: dict[str, Any] = {}
    errors: list[Any] = []
    for name, values in merged.items():
        if name == "recipes" and isinstance(values, dict):
            made[name], wrong = _recipes(values, merged.get("recipe"))
            errors += wrong
            continue
        if name not in SECTIONS and name != "recipes":  # told beside what else is wrong, not after it was mended
            errors.append({"loc": (name,), "type": "extra_forbidden", "input": values})
            continue
        if not isinstance(values, dict):
            made[name] = values
            continue
        kinds = kinds_of(name)
        kind = values.get("kind", next(iter(kinds)))
        known = isinstance(kind, str) and kind in kinds
        if not known and "" not in kinds:
            either = " or ".join(f'"{one}"' for one in kinds)
            errors.append({"loc": (name, "kind"), "type": "kind", "msg": f"must be {either}", "input": kind})
            continue
        try:
            made[name] = (kinds[kind] if known else kinds[""]).model_validate(values)
        except ValidationError as error:
            errors += [{**one, "loc": (name, *one["loc"]), "kind": kind} for one in error.errors()]
    return made, errors


def _recipes(named: Mapping[str, Any], plain: Any) -> tuple[dict[str, Any], list[Any]]:
    """``[recipes.NAME]``: each says only in what it differs from ``[recipe]``."""
    made: dict[str, Any] = {}
    errors: list[Any] = []
    for name, values in named.items():
        if not isinstance(values, dict):
            made[name] = values
            continue
        shared = plain if isinstance(plain, dict) else {}
        inherited = {key: value for key, value in shared.items() if key not in OWN_KEYS}
        try:
            made[name] = RecipeSection.model_validate({**inherited, "name": name, **values})
        except ValidationError as error:
            errors += [{**one, "loc": (f"recipes.{name}", *one["loc"])} for one in error.errors()]
    return made, errors


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
    text = ""
    try:
        text = path.read_text(encoding="utf-8-sig")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: give a configuration file with -c FILE") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {explain_toml(text, error)}") from None


def load_trust(path: Path) -> TrustFile:
    """The limits in *path*. Raises ConfigError that names the key and what it accepts."""
    if not path.exists():
        raise ConfigError(f"[recipe] trust = {path}: there is no such file: make it with station trust learn")
    try:
        return TrustFile.model_validate(_toml(path))
    except ValidationError as error:
        said = "; ".join(accepted(one, TrustFile) for one in error.errors())
        raise ConfigError(f"[recipe] trust = {path}: {said}: make it anew with station trust learn") from None


def _environment() -> dict[str, Any]:
    """STATION_* and the guide's names, from the environment, else from ``.env`` in the working directory."""
    variables = _variables()
    _refuse_unknown(variables)
    found = _said_by(variables)
    for name, key in GUIDE_NAMES.items():
        if variables.get(name):
            value = _megabytes(variables[name]) if name == "MAX_FILE_SIZE" else variables[name]
            _merge(found, _nested(key, value), where=name, said={})
            if name == "CONFIDENCE_THRESHOLD":
                _merge(found, {"recipe": {"thresholds": REPLACED}}, where=name, said={})
    return found


def guide_secret() -> str | None:
    """The deployment guide's SECRET_KEY, from the environment, else from ``.env``; None: there is none."""
    return _variables().get(SECRET_NAME) or None


def _variables() -> dict[str, str]:
    dotenv = DotEnvSettingsSource(Settings, env_file=".env")
    variables = {name.upper(): value for name, value in dotenv.env_vars.items() if value is not None}
    return variables | {name.upper(): value for name, value in os.environ.items()}


def _megabytes(text: str) -> str:
    """The guide counts bytes. What is no number is left as it is, for the section to refuse."""
    return str(int(text) / MB) if text.strip().isdigit() else text


def _said_by(variables: Mapping[str, str]) -> dict[str, Any]:
    """What the variables say, by section. Raises ConfigError naming the one that is neither text nor JSON."""
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): value for name, value in variables.items()}
    try:
        return source()
    except ValueError:
        for name, value in variables.items() if len(variables) > 1 else ():
            _said_by({name: value})
        form = "lists and tables are written as JSON, other values below their own name, as in STATION_MQTT__HOST"
        raise ConfigError(f"{', '.join(map(_variable, sorted(variables)))}: {form}") from None


REPLACED: dict[str, float] = {}  # in a layer: drop what the layers below said, as CONFIDENCE_THRESHOLD does


def _refuse_unknown(variables: Mapping[str, str]) -> None:
    known = {f"{PREFIX}{key.replace('.', '__')}".upper() for key in keys()} | {PATH_VARIABLE}
    sections = {f"{PREFIX}{name}".upper() for name in SECTIONS}
    for name in sorted(variables):
        if name.startswith(PREFIX) and name not in known | sections and not _below_table(name, known):
            raise ConfigError(f"{_variable(name)}: unknown{nearest(name, known)}")


def _variable(name: str) -> str:
    """What the environment says wins over ``.env``: only what it does not say is that file's."""
    ours = name in {one.upper() for one in os.environ}
    return f"environment variable {name}" if ours else f".env: {name}"


def _below_table(name: str, known: Iterable[str]) -> bool:
    """STATION_RECIPE__THRESHOLDS__SHORT is below a key that takes a table."""
    return any(name.startswith(f"{one}__") for one in known if one.endswith("__THRESHOLDS"))


def _overrides(pairs: Iterable[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals and key in keys():
            raise ConfigError(f"--set {pair}: write {key}=VALUE")
        if not equals or "." not in key:
            raise ConfigError(f"--set {pair}: write SECTION.KEY=VALUE{nearest(key, keys())}")
        if key not in keys():
            raise ConfigError(f"--set {pair}: unknown key{nearest(key, keys())}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text  # a bare word: what a shell leaves of a quoted string
        _merge(made, _nested(key, value), where="command line", said={})
    return made


def keys() -> list[str]:
    """Every key that the file may hold, as ``section.key``."""
    found = [f"{name}.{key}" for name in SECTIONS for one in kinds_of(name).values() for key in one.model_fields]
    return list(dict.fromkeys(found))


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
