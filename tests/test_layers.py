"""Who may import whom: pure parts import no edge, edges import no loop and no config, and a library has one home."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "station"
MODULES = sorted(PACKAGE.rglob("*.py"))

CONFIG = {"config", "sections", "line_sections", "http_section"}

# Third-party libraries, and the only places that may import them.
HOMES = {
    "paho": {"mqtt", "mqtt_client", "mqtt_listener", "mqtt_probe"},
    "serial": {"serial_port"},
    "pymodbus": {"modbus"},
    "sqlite3": {
        *("ledger", "ledger_file", "ledger_read", "ledger_repair", "ledger_copy"),
        *("outbox", "trigger_journal", "commands.ledger", "web.shared_counts"),
    },
    "cv2": {
        "picture",
        "drawing",
        "lettering",
        "evidence",
        "commands.inspect",
        "commands.capture",
        "detectors",
        "sources",
        "trust",
        "web",
    },
    "simplejpeg": {"picture", "sources.camera_jpeg"},
    "onnxruntime": {"detectors.onnx", "detectors.quantize"},
    "onnx": {"detectors.best_boxes", "detectors.quantize", "detectors.thin_layers"},
    "openvino": {"detectors.openvino"},
    "pydantic": CONFIG | {"web"},
    "pydantic_settings": {"config"},
    "fastapi": {"web", "web_side"},
    "uvicorn": {"web", "serve"},
    "jwt": {"tokens"},
    "cryptography": {"web.tls"},
    "limits": {"web.rate", "web.shared_counts"},
    "redis": {"web.cache"},
    "python_multipart": {"web.uploads"},
    "prometheus_client": {"metrics", "http_metrics", "web"},
    "watchdog": {"sources"},
    "typer": {"cli", "cli_model", "cli_options", "cli_serve", "cli_trust"},
    "rich": {"cli", "cli_model", "cli_serve", "cli_trust", "commands"},
}
FORBIDDEN = ("torch", "ultralytics", "torchvision")  # the lean path has no torch
CHILD = "detectors.pt_child"  # a program of its own, which nobody imports: it may run ultralytics, and strangers' code

# They wire, and may import anything below.
TOP = {
    "cli",
    "cli_model",
    "cli_options",
    "cli_serve",
    "cli_trust",
    "app",
    "serve",
    "web_side",
    "parts",
    "line_parts",
    "line_side",
    "benches",
    "model_choice",
    "judge",
    "__main__",
    "commands",
}
PURE = {
    "class_names",
    "decide",
    "events",
    "digest",
    "trust",
    "types",
    "errors",
    "formats",
    "header",
    "health",
    "heartbeat",
    "inspection",
    "left_open",
    "mqtt_options",
    "mqtt_protocol",
    "clock",
    "line_texts",
    "config_words",
    "sdnotify",
    "terminal",
    "tiff",
    "tiff_parts",
    "toml_words",
    "today",
    "turns",
    "detectors.metric",
    "detectors.thresholds",
}
LOOPS = {"line", "publish", "supervise"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__") or "__init__"


def imports_of(path: Path) -> set[str]:
    """Absolute names of everything that *path* imports, at any depth of the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def ours(path: Path) -> set[str]:
    return {one.removeprefix("station.") for one in imports_of(path) if one.startswith("station.")}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_library_is_imported_in_its_home_only(path: Path) -> None:
    roots = {one.split(".")[0] for one in imports_of(path)}
    assert not roots & set(FORBIDDEN) or name_of(path) == CHILD
    for library in roots & set(HOMES):
        assert within(name_of(path), HOMES[library]), f"{library} has its home in {sorted(HOMES[library])}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nobody_below_imports_the_wiring_or_the_configuration(path: Path) -> None:
    if not within(name_of(path), TOP | CONFIG):
        assert not {one for one in ours(path) if within(one, TOP | CONFIG)}


@pytest.mark.parametrize("path", [one for one in MODULES if within(name_of(one), PURE | LOOPS)], ids=name_of)
def test_pure_parts_and_loops_know_no_edge(path: Path) -> None:
    allowed = PURE | (LOOPS if within(name_of(path), LOOPS) else set())
    assert not {one for one in ours(path) if not within(one, allowed)}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_wiring_imports_a_loop(path: Path) -> None:
    if not within(name_of(path), TOP):
        assert not {one for one in ours(path) if within(one, LOOPS)}


def test_a_catch_all_that_swallows_stands_once() -> None:
    swallowing = [
        name_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
        and not (
            isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        )  # tidying up on the way out is fine
    ]
    assert [one for one in swallowing if one != CHILD] == ["supervise"]


def test_nobody_imports_the_child() -> None:
    assert not [path for path in MODULES if any(within(one, {CHILD}) for one in ours(path))]
