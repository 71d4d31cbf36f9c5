"""The configuration of a moving line: what fits together, and what is said when it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from station.config import Settings, load
from station.errors import ConfigError

CAMERA = '[source]\nkind = "camera"\ndevice = "0"\n'
SERIAL = '[serial]\nport = "/dev/ttyUSB0"\n'


def loaded(folder: Path, text: str) -> Settings:
    path = folder / "station.toml"
    path.write_text(text)
    return load(path)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text)
    return str(caught.value)


def test_a_line_with_everything_is_accepted(tmp_path: Path) -> None:
    text = f"""{CAMERA}
[trigger]
kind = "serial"
preset = "cognex"
{SERIAL}
[scanner]
kind = "line"
pattern = "B:(?P<serial>.+)"
[gate]
kind = "serial"
ack_text = "A{{number}}"
[tower]
kind = "patlite"
port = "/dev/ttyUSB1"
"""
    settings = loaded(tmp_path, text)
    kinds = (
        settings.source.kind,
        settings.trigger.kind,
        settings.scanner.kind,
        settings.gate.kind,
        settings.tower.kind,
    )
    assert kinds == ("camera", "serial", "line", "serial", "patlite")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[trigger]\nkind = "serial"\n' + SERIAL, 'trigger.kind = "serial" needs a camera'),
        (CAMERA + '[trigger]\nkind = "serial"\n', 'trigger.kind = "serial" needs serial.port'),
        ('[gate]\nkind = "serial"\n', 'gate.kind = "serial" needs serial.port'),
        (
            f'{CAMERA}{SERIAL}[trigger]\nkind = "serial"\n[scanner]\nkind = "serial"\nport = "/dev/../dev/ttyUSB0"\n',
            "scanner.port and serial.port are one device, /dev/ttyUSB0: give each its own: a scanner on the",
        ),
        (
            '[gate]\nkind = "relay"\nport = "/dev/ttyS9"\n[tower]\nkind = "patlite"\nport = "/dev/ttyS9"\n',
            "gate.port and tower.port are one device, /dev/ttyS9",
        ),
        ('[gate]\nkind = "modbus"\n', 'gate.kind = "modbus" needs modbus.kind = "tcp" or "rtu"'),
        ('[modbus]\nkind = "tcp"\n', 'set gate.kind = "modbus" too'),
        (CAMERA + '[trigger]\nkind = "modbus"\n[modbus]\nkind = "tcp"\n', 'set gate.kind = "modbus" too'),
        ('[gate]\nkind = "modbus"\n[modbus]\nkind = "rtu"\n', "[modbus] port: is missing"),
        (
            CAMERA + '[trigger]\nkind = "modbus"\n[gate]\nkind = "modbus"\n[modbus]\nkind = "tcp"\nack_ms = 1000\n',
            "modbus.ack_ms must be below trigger.answer_ms",
        ),
        (CAMERA + '[scanner]\nkind = "serial"\nport = "x"\n', "needs a trigger that its codes belong to"),
        ('[source]\nkind = "camera"\n', "[source] device"),
        ('[source]\nkind = "camara"\n', "[source] kind"),
        ('[source]\ndevice = "0"\n', 'kind = "camera"'),
        (CAMERA + "width = 640\n", "width and height belong together"),
        ('[source]\nkind = "camera"\ndevice = "rtsp://user:pw@cam/1"\n', "username and password_file"),
        ('[gate]\nkind = "serial"\npass_text = "{board}"\n' + SERIAL, "no other braces"),
        ('[gate]\nkind = "serial"\npass_text = "OK\\r"\n' + SERIAL, "printable ASCII"),
        ('[gate]\nkind = "serial"\npass_text = "READY"\n' + SERIAL, "said for something else"),
        (
            '[gate]\nkind = "serial"\npass_text = "H{number}"\n' + SERIAL,
            'pass_text = "H{number}" can read like what is said for something else too, "H0"',
        ),
        ('[gate]\nkind = "serial"\npass_text = "F1{number}"\n' + SERIAL, 'something else too, "F{number}"'),
        (
            '[gate]\nkind = "serial"\npass_text = "PASS{number}"\nend_text = "{verdict}{number}"\n' + SERIAL,
            'something else too, "PASS{number}"',
        ),
        ('[gate]\nkind = "serial"\npass_text = "{serial}"\n' + SERIAL, 'something else too, "READY"'),
        (
            CAMERA + SERIAL + '[trigger]\nkind = "serial"\n[gate]\nkind = "serial"\nack_text = "T{number}"\n',
            'gate.ack_text = "T{number}": "T" would be an acknowledgement and a trigger',
        ),
        ('[gate]\nkind = "relay"\n', "[gate] port"),
        ('[gate]\nkind = "relay"\nport = "x"\npreset = "custom"\n', "on_hex and off_hex"),
        (
            CAMERA + SERIAL + '[trigger]\nkind = "serial"\nanswer_ms = 100\n[gate]\nkind = "serial"\nack_text = "A"\n',
            "gate.ack_ms must be below trigger.answer_ms",
        ),
        ('[recipe]\nserial_pattern = "x"\n', "put it in [recipes.NAME]"),
        ("[recipes.b]\nthreshold = 2\n", "[recipes.b] threshold"),
        ("[recipes.b]\nthreshhold = 0.2\n", "did you mean threshold?"),
        ('[recipes.b]\nname = "c"\n', "its name must be b"),
        ('[recipes."../x"]\nthreshold = 0.2\n', "letters, digits"),
        ('[recipe]\nname = "b"\n[recipes.b]\nthreshold = 0.2\n', "another one than that of [recipe]"),
        ('[recipe]\nchallenge = { at = ["25:00"] }\n', "[recipe] challenge"),
        ('[mqtt]\ncommands = ["reboot"]\n', 'must be "recipe" or "challenge"'),
    ],
)
def test_what_does_not_fit_together_is_said(tmp_path: Path, text: str, words: str) -> None:
    said = refused(tmp_path, text)
    assert words in said
    assert "Traceback" not in said
    assert "\n" not in said, "one line for one mistake"


@pytest.mark.parametrize(
    "texts",
    [
        'pass_text = "{verdict} {number}"\nfail_text = "{verdict} {number}"',
        'pass_text = "{number},{serial},PASS,{reason}"\nfail_text = "{number},{serial},FAIL,{reason}"',
        'pass_text = ""\nfail_text = ""',
        'pass_text = "P{number:0>5}"',
    ],
)
def test_texts_that_a_plc_can_tell_apart_are_accepted(tmp_path: Path, texts: str) -> None:
    assert loaded(tmp_path, f'[gate]\nkind = "serial"\n{texts}\n{SERIAL}').gate.kind == "serial"


def test_a_recipe_says_only_in_what_it_differs(tmp_path: Path) -> None:
    text = """
[recipe]
threshold = 0.6
thresholds = { short = 0.4 }
challenge = { serials = ["BAD"], expect = ["short"], at = ["06:00"] }
[recipes.b]
serial_pattern = "^B-"
min_area_px = 50
"""
    settings = loaded(tmp_path, text)
    b = settings.recipes["b"]
    assert (b.name, b.threshold, b.thresholds, b.min_area_px) == ("b", 0.6, {"short": 0.4}, 50)
    assert b.challenge is not None
    assert b.challenge.starts == ((6, 0),)
    own = settings.of_recipe("b")
    assert (own.recipe, own.recipes) == (b, {})
