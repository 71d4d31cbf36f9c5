"""What the parts at the line tell of themselves."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from station.commands.capture import first_picture
from station.config import load
from station.errors import CameraError
from station.gates.tower import Lamps
from station.health import Health
from station.ledger import SqliteLedger
from station.line_sections import CameraSection
from station.line_side import build_line_side, tell_silence
from station.metrics import Metrics
from station.parts import CREDENTIAL
from tests.mjpeg_server import MjpegServer


def test_while_the_inbox_does_not_answer_the_station_is_not_ready_and_says_so() -> None:
    health = Health()
    tell_silence(health, "/mnt/aoi", True)
    assert "/mnt/aoi has not answered" in health.not_ready()["inbox"]
    assert [fault.code for fault in health.faults()] == ["inbox_silent"]
    tell_silence(health, "/mnt/aoi", False)
    assert (health.not_ready(), health.faults()) == ({}, [])


def test_a_port_stops_after_all_that_speak_through_it(tmp_path: Path) -> None:
    file = tmp_path / "station.toml"
    file.write_text("""
[source]
kind = "camera"
device = "0"
[trigger]
kind = "serial"
preset = "cognex"
[serial]
port = "/dev/ttyUSB0"
[scanner]
kind = "serial"
port = "/dev/ttyUSB1"
pattern = "(?P<serial>.+)"
[gate]
kind = "relay"
port = "/dev/ttyUSB2"
[tower]
kind = "patlite"
port = "/dev/ttyUSB3"
""")
    with closing(SqliteLedger(tmp_path / "ledger.db")) as ledger:
        side = build_line_side(
            load(file, overrides=[f"station.data_dir={tmp_path}"]),
            ledger=ledger,
            health=Health(),
            metrics=Metrics(version="0", model="none", read=lambda: pytest.fail("nobody asks")),
            on_backlog=lambda _count: None,
            foresee=lambda _frame: None,
            look=Lamps,
            worked=lambda _loop: None,
        )
    names = list(side.loops)
    assert set(names[-4:]) == {"tower_port", "serial", "relay_port", "scanner"}, names
    assert [name for name in names if not side.loops[name].port] == names[:-4]


def camera_at(url: str, **more: object) -> CameraSection:
    return CameraSection.model_validate({"kind": "camera", "device": url, "username": "admin"} | more)


def test_the_brokers_password_never_goes_to_the_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / CREDENTIAL).write_text("of the broker\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    file = tmp_path / "camera-password"
    file.write_text("of the broker\n")
    with MjpegServer(login="admin:of the broker") as server:
        with pytest.raises(CameraError, match="name and password"):
            first_picture(camera_at(server.url))
        first_picture(camera_at(server.url, password_file=str(file)))  # told to, it is


@pytest.mark.parametrize(
    ("content", "why"), [(b"caf\xe9", "it is not UTF-8 text"), (None, "No such file or directory")]
)
def test_a_camera_password_that_cannot_be_read_is_said_with_its_file(
    content: bytes | None, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with MjpegServer() as server, pytest.raises(CameraError) as caught:
        first_picture(camera_at(server.url, password_file=str(file)))
    assert f"[source] password_file = {file} cannot be read ({why})" in str(caught.value)
