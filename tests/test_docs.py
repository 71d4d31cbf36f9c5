"""README, CHANGELOG and the model's card say what is so."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import station
from station.assets import ASSETS, SAMPLES, SCHEMA_FILE, expected_verdict
from station.config import keys, load
from station.detectors.store import SHIPPED, find_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_event_in_the_readme_is_a_valid_event() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(json.loads(example))


def test_every_configuration_in_the_readme_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    loaded = []
    for example in re.findall(r"```toml\n(.*?)```", README, re.DOTALL):
        path.write_text(example)
        loaded.append(load(path))
    own_model, golden = loaded
    assert own_model.recipe.thresholds == {"short": 0.4}
    assert golden.detector.kind == "both"


def test_every_script_and_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"(?<!/)\b(scripts/[a-z_.]+\b|configs/[\w.]+|station/[\w/.-]+\.\w+|docs/[\w.]+)", README))
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "command",
    [
        *("run", "check", "inspect", "watch", "ledger status", "ledger replay", "ledger export"),
        *("model import", "model list", "model verify", "model use", "model rollback", "model quantize"),
        *("backup", "restore"),
    ],
)
def test_every_command_shows_an_example(command: str) -> None:
    words = command.split()
    shown = subprocess.run(
        [sys.executable, "-m", "station", *words, "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert f"Example: station {command}" in shown.stdout
    assert f"station {words[0]}" in README


def test_keys_and_variables_in_the_readme_exist() -> None:
    assert "STATION_MQTT__HOST" in README
    assert {"mqtt.host", "mqtt.protocol", "source.after", "detector.model"} <= set(keys())


def test_the_changelog_knows_this_version() -> None:
    assert f"## [{station.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("model", SHIPPED)
def test_the_card_the_pin_and_the_readme_speak_of_the_models_that_ship(model: str) -> None:
    pinned = json.loads((ASSETS / f"{model}.json").read_text())
    digest = hashlib.sha256((ASSETS / f"{model}.onnx").read_bytes()).hexdigest()
    assert digest == pinned["sha256"] == pinned["figures"]["model"]["sha256"] == find_model(model).sha256
    assert f"**{pinned['figures']['mAP50']:.3f}**" in (ASSETS / f"{model}.md").read_text()
    assert pinned["figures"]["mAP50"] >= 0.85
    assert f"({model}.md)" in README.replace("station/assets/", "")


def test_the_event_in_the_readme_is_of_the_model_that_ships() -> None:
    assert hashlib.sha256((ASSETS / "pcb-demo.onnx").read_bytes()).hexdigest() in README


def test_there_are_ten_samples_six_three_and_one() -> None:
    expected = sorted(expected_verdict(one.name) for one in SAMPLES.iterdir())
    assert expected == ["fail"] * 6 + ["pass"] * 3 + ["unknown"]
