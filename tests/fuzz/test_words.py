"""What people, PLCs, scanners and brokers may say that nobody expects: it is refused in words, or it is nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from station.config import keys, load
from station.errors import ConfigError
from station.framing import Lines
from station.health import Health
from station.remote import Command, Commands
from station.sources.scanner import Scanner
from station.sources.serial_trigger import DIALECTS, SerialTriggers
from station.testing import FakeOrder
from station.types import Order
from tests.ports import FakePort

OFTEN = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.floats(),
    st.text(max_size=30),
    st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=3),
    st.sampled_from(
        ["", "\0", "../../etc/passwd", "file:///etc/passwd", "-1", "nan", "1e999", "ﬀ", "{}", "%s", "\u202e"]
    ),
)


def toml(value: object) -> str:
    if value is None:
        return "{}"
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(str(value), repr(value))
    return json.dumps(value)


@OFTEN
@given(st.lists(st.tuples(st.sampled_from(keys()), VALUES), max_size=6))
def test_whatever_stands_at_a_key_it_is_taken_or_refused_in_words(tmp_path: Path, said: list[tuple[str, Any]]) -> None:
    tables: dict[str, dict[str, Any]] = {}
    for key, value in said:
        section, _, name = key.rpartition(".")
        tables.setdefault(section, {})[name] = value
    text = "\n".join(
        f"[{section}]\n" + "\n".join(f"{name} = {toml(value)}" for name, value in table.items())
        for section, table in tables.items()
    )
    refused_in_words(tmp_path / "station.toml", text.encode("utf-8", "surrogatepass"))


@OFTEN
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace"))))
def test_whatever_bytes_a_configuration_is_made_of_they_are_refused_in_words(tmp_path: Path, data: bytes) -> None:
    refused_in_words(tmp_path / "station.toml", data)


def refused_in_words(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    said = ""
    try:
        load(path)
    except ConfigError as error:
        said = str(error) or "nothing was said"
    assert "pydantic" not in said
    assert said != "nothing was said"


@OFTEN
@given(st.lists(st.binary(max_size=40), max_size=30), st.sampled_from([b"\r", b"\n", b"\r\n", b";"]))
def test_however_a_line_is_cut_into_pieces_it_is_the_same_line_and_little_is_held(
    pieces: list[bytes], terminator: bytes
) -> None:
    lines, together = Lines(terminator, max_bytes=64), Lines(terminator, max_bytes=64)
    found = []
    for piece in pieces:
        found += lines.feed(piece)
        assert len(lines._kept) <= 64 + 40
    if b"".join(pieces).count(terminator) == sum(piece.count(terminator) for piece in pieces):
        assert found == together.feed(b"".join(pieces))
    assert all(terminator not in line and len(line) <= 64 for line in found)


@OFTEN
@given(st.lists(st.binary(max_size=60), max_size=20), st.sampled_from(sorted(DIALECTS)))
def test_no_noise_on_a_serial_line_does_more_than_trigger(noise: list[bytes], preset: str) -> None:
    port, taken = FakePort(), list[tuple[int | None, str | None]]()
    scanner = Scanner(pattern=re.compile(".+"), no_read=("NOREAD",), window_s=2.0, required=True, health=Health())

    def arrived(number: int | None, board_serial: str | None, _at_s: float, *, picture: Order) -> object:
        assert isinstance(picture, FakeOrder)
        taken.append((number, board_serial))
        return object()

    over = threading.Event()
    over.set()
    triggers = SerialTriggers(
        port,
        DIALECTS[preset],
        terminator="\r",
        arrived=arrived,
        order=lambda _at_s: FakeOrder(),
        beat=lambda _loop: None,
        code_for=scanner.code_for,
    )
    scanner.listen(port)
    for at_s, line in enumerate(noise):
        port.say(line, float(at_s))
    triggers.run(over)
    for number, serial in taken:
        assert number is None or 0 <= number < 10**18
        assert serial is None or (serial.isprintable() and 0 < len(serial) <= 128)


@OFTEN
@given(
    st.one_of(st.sampled_from(["trigger", "recipe", "challenge"]), st.text(max_size=20)),
    st.one_of(
        st.binary(max_size=200),
        st.dictionaries(st.sampled_from(["number", "board_serial", "name", "x"]), VALUES, max_size=4).map(
            lambda document: json.dumps(document).encode()
        ),
        st.integers(min_value=1, max_value=5000).map(lambda depth: b"[" * depth),
    ),
)
def test_whatever_is_commanded_it_is_answered_once_and_in_words(name: str, payload: bytes) -> None:
    said: list[dict[str, Any]] = []
    taken: list[tuple[int | None, str | None]] = []

    def take(number: int | None = None, board_serial: str | None = None, **_: Any) -> object:
        taken.append((number, board_serial))
        return object()

    commands = Commands(
        trigger=take,
        recipe=lambda recipe: {"recipe": recipe},
        challenge=lambda: {"announced": True},
    )
    commands.carry_out(Command(name, payload, said.append))
    assert len(said) == (0 if taken else 1)
    assert json.dumps(said)
    for number, serial in taken:
        assert number is None or 0 <= number < 2**63
        assert serial is None or serial.isprintable()


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(150, id="short"),
        pytest.param(3000, id="long", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_no_damaged_network_crashes_the_station_or_sees_what_is_not_there(
    runtime: str, last: int, tmp_path: Path
) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    command = [sys.executable, "-m", "tests.fuzz.models", runtime, "0", str(last), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit {done.returncode}; the last mutants: {done.stderr[-1500:]}"
    came = json.loads(done.stdout)
    print(came)  # noqa: T201  # the figures, with -s
    assert sum(came.values()) == last
    assert came["refused when loaded"] > last // 4
