"""The configuration: one manual, clear errors, and the order file, environment, command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from station.config import GUIDE_NAMES, Settings, keys, load, load_or_defaults
from station.errors import ConfigError

ROOT = Path(__file__).parents[1]
MANUAL = ROOT / "configs" / "station.toml"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("STATION_CONFIG", *GUIDE_NAMES):
        monkeypatch.delenv(name, raising=False)


def written(folder: Path, text: str) -> Path:
    path = folder / "station.toml"
    path.write_text(text)
    return path


def test_the_shipped_file_holds_every_key_and_every_default() -> None:
    assert load(MANUAL) == Settings()
    text = MANUAL.read_text()
    for key in keys():
        section, name = key.split(".")
        body = text.split(f"\n[{section}]\n", 1)[1].split("\n[", 1)[0]
        assert re.search(rf"^(# )?{name} = ", body, re.MULTILINE), f"{key} is not in the manual"


def test_environment_overrides_file_and_command_line_overrides_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, '[mqtt]\nhost = "from-file"\nport = 1\nwindow = 3\n')
    monkeypatch.setenv("STATION_MQTT__HOST", "from-environment")
    monkeypatch.setenv("STATION_MQTT__PORT", "2")
    settings = load(path, overrides=["mqtt.port=3"])
    assert (settings.mqtt.host, settings.mqtt.port, settings.mqtt.window) == ("from-environment", 3, 3)


def test_a_dotenv_file_counts_and_its_other_names_are_none_of_our_business(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("STATION_LOG__LEVEL=debug\nPOSTGRES_PASSWORD=x\n")
    assert load(MANUAL).log.level == "debug"


def test_the_guides_names_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = written(tmp_path, "[recipe.thresholds]\nshort = 0.3\n")
    monkeypatch.setenv("CONFIDENCE_THRESHOLD", "0.7")
    monkeypatch.setenv("MODEL_PATH", "best.onnx")
    monkeypatch.setenv("LOG_LEVEL", "WARNING")
    settings = load(path)
    assert settings.recipe.threshold == 0.7
    assert settings.recipe.thresholds == {}, "it replaces all thresholds of the recipe"
    assert settings.detector.model == "best.onnx"
    assert settings.log.level == "warning"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[mqtt]\nhots = 'x'", ["[mqtt] hots", "unknown key", "did you mean host?"]),
        ("[sation]\nname = 'x'", ["[sation]", "unknown section", "station"]),
        ("[mqtt]\nport = 'abc'", ["[mqtt] port", "a whole number from 1 to 65535", '"abc"']),
        ("[mqtt]\nport = 70000", ["[mqtt] port", "from 1 to 65535 (given: 70000)"]),
        ("[mqtt]\nprotocol = '4'", ["[mqtt] protocol", '"auto"', '"3.1.1"']),
        ("[station]\ntopic = 'a/+/b'", ["[station] topic"]),
        ("[recipe]\nthreshold = 1.5", ["[recipe] threshold", "a number from 0 to 1 (given: 1.5)"]),
        ("[source]\nserial_pattern = '('", ["[source] serial_pattern", "no regular expression"]),
        ("[mqtt]\nca_file = 'x'", ["tls = true"]),
        ("[mqtt]\ntls = true\ncert_file = 'x'", ["belong together"]),
        ("[http]\nhost = '0.0.0.0'", ["[http]", 'host = "0.0.0.0" is open to the network', "station key create"]),
        ("[evidence]\nstop_below_mb = 1", ["stop_below_mb"]),
        ("[mqtt\nport = 1", ["not valid TOML"]),
        ("[log]\nlevel = 'loud'", ["[log] level", '"info"']),
    ],
)
def test_a_wrong_file_names_the_key_and_what_is_accepted(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    for part in [str(path), *parts]:
        assert part in str(caught.value)


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "[mqtt]\nport = 0\nwindow = 0\n")
    with pytest.raises(ConfigError, match=r"(?s)port.*window"):
        load(path)


def test_an_unknown_station_variable_is_an_error_that_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATION_MQTT__HOTS", "x")
    with pytest.raises(ConfigError, match=r"STATION_MQTT__HOTS.*did you mean STATION_MQTT__HOST"):
        load(MANUAL)


def test_a_threshold_by_label_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATION_RECIPE__THRESHOLDS__SHORT", "0.2")
    assert load(MANUAL).recipe.thresholds == {"short": 0.2}


def test_an_error_in_a_variable_says_that_it_is_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATION_MQTT__PORT", "many")
    with pytest.raises(ConfigError, match=r"environment: \[mqtt\] port"):
        load(MANUAL)


def test_an_unknown_override_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--set mqtt.hots=x.*mqtt.host"):
        load(MANUAL, overrides=["mqtt.hots=x"])


def test_without_any_file_the_error_says_where_it_was_looked_for() -> None:
    with pytest.raises(ConfigError, match=r"-c FILE.*STATION_CONFIG.*configs/station.toml"):
        load()
    assert load_or_defaults() == Settings()


def test_a_file_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "binary.toml")
