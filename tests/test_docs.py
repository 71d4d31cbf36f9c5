"""README, CHANGELOG and the model's card say what is so."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import textwrap
from datetime import datetime, timezone
from pathlib import Path

import jsonschema
import pytest

import station
from station.assets import ASSETS, SAMPLES, SCHEMA_FILE, expected_verdict
from station.config import Settings, keys, load
from station.detectors.find import find_model
from station.detectors.store import SHIPPED
from station.events import state_of
from station.health import Fault
from station.heartbeat import Vitals, fault_of, heartbeat_of
from station.http_metrics import HttpMetrics, WorkerMetrics
from station.metrics import Gauges, Metrics
from station.sections import FolderSection
from station.today import Today

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = {path.relative_to(ROOT): path.read_text() for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
ALL = "\n".join(DOCS.values())


def test_the_event_in_the_readme_is_a_valid_event() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    schema = json.loads(SCHEMA_FILE.read_text())
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(json.loads(example))


def examples(text: str) -> list[str]:
    """What stands in its TOML blocks, also in those within a list."""
    return [textwrap.dedent(one) for one in re.findall(r"^ *```toml\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)]


def loaded(name: str, folder: Path) -> list[Settings]:
    path = folder / "station.toml"
    found = []
    for example in examples(DOCS[Path(name)]):
        path.write_text(example)
        found.append(load(path))
    return found


@pytest.mark.parametrize("name", DOCS, ids=str)
def test_every_configuration_in_the_documents_is_accepted(name: Path, tmp_path: Path) -> None:
    assert len(loaded(str(name), tmp_path)) == DOCS[name].count("```toml")


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/*.toml")), ids=lambda one: one.name)
def test_every_example_configuration_is_accepted_and_a_camera_is_trusted_only_by_what_was_learned(path: Path) -> None:
    settings = load(path)
    assert (settings.source.kind == "camera") == (settings.recipe.trust is not None)
    assert path.name in ALL


def test_the_configurations_in_the_documents_say_what_they_are_for(tmp_path: Path) -> None:
    own = loaded("README.md", tmp_path)[0]
    assert isinstance(own.source, FolderSection)
    assert (own.station.name, own.source.path, own.mqtt.username) == ("aoi-7", Path("/srv/aoi-7/inbox"), "aoi-7")
    assert len(examples(README)[0].splitlines()) == 10
    assert loaded("docs/model.md", tmp_path)[0].recipe.thresholds == {"short": 0.4}
    assert loaded("docs/golden-board.md", tmp_path)[0].detector.kind == "both"


@pytest.mark.parametrize("name", DOCS, ids=str)
def test_every_link_in_the_documents_leads_somewhere(name: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", DOCS[name]):
        assert target.startswith("https://") or (ROOT / name.parent / target).exists(), target


@pytest.mark.parametrize("name", [one for one in DOCS if one.parent != Path()], ids=str)
def test_every_document_is_linked_from_the_readme(name: Path) -> None:
    assert f"]({name})" in README


def test_the_readme_names_every_metric_of_the_station() -> None:
    metrics = Metrics(version="1", model="m", read=lambda: Gauges(0, 0, True, True, ("x",), 0), last_s=1.0)
    HttpMetrics(metrics.registry)
    text = metrics.text().decode() + WorkerMetrics(version="1", model="m").text().decode()
    told = re.findall(r"^# TYPE (station_\w+) ", text, re.MULTILINE)
    listed = {one.partition("{")[0] for one in re.findall(r"^\| `(station_[^`]*)`", README, re.MULTILINE)}
    assert listed == set(told)


def test_the_readme_names_every_field_of_what_the_station_says_of_itself() -> None:
    today = Today(datetime.now(timezone.utc), 0, None)
    said = Vitals(
        "s", "v", "m", "", "", "", 0, {}, 0, 0, 0, 0, True, "5", {}, (), {}, (), 0, 0, today
    )  # as it comes: only names are looked at
    fault = fault_of(Fault("c", "d", 0), began=True, event_id="", station="", at="")
    part = README.partition("### State, heartbeat and faults")[2]
    for document in (heartbeat_of(said), fault, state_of("online", station="s", version="v")):
        for field in json.loads(document):
            assert f"`{field}`" in part, field


def test_the_readme_names_every_fault() -> None:
    begun = {
        code
        for path in (ROOT / "station").rglob("*.py")
        for code in re.findall(r"(?:\.begin\(\s*|^FAULT = )\"([a-z_]+)\"", path.read_text(), re.MULTILINE)
    }
    part = README.partition("### State, heartbeat and faults")[2]
    assert len(begun) > 8
    for code in begun:
        assert f"`{code}`" in part, code


def test_every_script_and_file_that_the_documents_name_is_there() -> None:
    named = set(re.findall(r"(?<!/)\b(scripts/[a-z_.]+\b|configs/[\w.-]*\w|station/[\w/.-]+\.\w+|docs/[\w.-]+)", ALL))
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(
    "command",
    [
        *(
            "run",
            "check",
            "capture",
            "inspect",
            "trust learn",
            "watch",
            "ledger status",
            "ledger replay",
            "ledger export",
        ),
        *("model import", "model list", "model verify", "model use", "model rollback", "model quantize"),
        *("backup", "restore", "serve", "key create", "key list", "key revoke", "token create"),
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
    assert f"(station/assets/{model}.md)" in README


def test_the_documents_tell_the_accuracy_of_the_models_that_ship() -> None:
    pair, single = (json.loads((ASSETS / f"{name}.json").read_text())["figures"] for name in ("pcb-pair", "pcb-demo"))
    assert f"{pair['mAP33'] * 100:.1f} against {single['mAP33'] * 100:.1f} % mAP" in README
    for name in ("model", "performance"):
        text = DOCS[Path(f"docs/{name}.md")]
        for figures in (pair, single):
            assert f"{figures['mAP33'] * 100:.1f} %" in text
            assert f"{figures['f_score']['value'] * 100:.1f} %" in text
    assert f"{single['templates_failed']} of {single['templates']} at 0.5" in DOCS[Path("docs/model.md")]


def test_the_event_in_the_readme_is_of_the_model_that_ships() -> None:
    assert hashlib.sha256((ASSETS / "pcb-demo.onnx").read_bytes()).hexdigest() in README


def test_there_are_ten_samples_six_three_and_one() -> None:
    expected = sorted(expected_verdict(one.name) for one in SAMPLES.iterdir())
    assert expected == ["fail"] * 6 + ["pass"] * 3 + ["unknown"]
