"""What ``station check`` prints of the configuration can be pasted, and what it finds names what to mend."""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import closing
from pathlib import Path

import cv2
import pytest

from station.commands.check import check, resolved
from station.config import load
from station.folders import lock_folder, lock_inbox
from tests.daemon import encoded, picture
from tests.detectors.layouts import layout
from tests.mjpeg_server import MjpegServer
from tests.mosquitto import Mosquitto
from tests.rude_broker import Manners, RudeBroker

EVERYTHING = """
[station]
data_dir = "{folder}/data"
[source]
path = "{folder}/in \\"box\\""
[recipe]
name = "board-a"
[recipes.board-b]
serial_pattern = '^B-\\d'
thresholds = {{ short = 0.4 }}
ignore = [{{ name = "logo", x = 1, y = 2, width = 3, height = 4 }}]
[recipes.proven]
serial_pattern = "^P-"
challenge = {{ serials = ["P-BAD"], expect = ["open"] }}
[mqtt]
enabled = false
[http]
port = 1
allowed_origins = ["https://mes.plant"]
"""


def test_what_is_printed_is_a_configuration_that_means_the_same(tmp_path: Path) -> None:
    given, printed = tmp_path / "given.toml", tmp_path / "printed.toml"
    given.write_text(EVERYTHING.format(folder=tmp_path))
    settings = load(given)
    printed.write_text("\n".join(resolved(settings)))
    assert load(printed) == settings
    assert "[recipes.board-b]" in printed.read_text().splitlines()
    assert "# template is not set" in printed.read_text()


def test_a_station_of_several_recipes_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "given.toml"
    given.write_text(EVERYTHING.format(folder=tmp_path))
    assert check(load(given))
    assert "[recipes.board-b] goes by serials" in capsys.readouterr().out


class Checked:
    """A station that judges by a template alone, which takes no time to load, and what ``check`` finds of it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.inbox, self.data_dir = folder / "inbox", folder / "data"
        self.file = folder / "station.toml"
        self._capsys = capsys
        self.inbox.mkdir()
        template = folder / "template.png"
        cv2.imwrite(str(template), layout(1))
        self.write(f'[source]\npath = "{self.inbox}"')
        self._always = (
            f"station.data_dir={self.data_dir}",
            "detector.kind=golden",
            f"recipe.template={template}",
        )

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def __call__(self, *overrides: str, mqtt: bool = False, http: bool = False) -> tuple[bool, list[str]]:
        """Whether it can inspect, and the findings, a line each."""
        off = [f"{name}.enabled=false" for name, wanted in (("mqtt", mqtt), ("http", http)) if not wanted]
        able = check(load(self.file, overrides=[*self._always, *off, *overrides]))
        return able, [one for one in self._capsys.readouterr().out.splitlines() if one[:4] in {"ok  ", "warn", "FAIL"}]


@pytest.fixture
def checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Checked:
    return Checked(tmp_path, capsys)


def of(part: str, findings: list[str]) -> list[str]:
    return [one for one in findings if one[6:].startswith(f"{part}: ")]


def test_an_inbox_that_is_not_there_may_be_misspelt(checked: Checked, tmp_path: Path) -> None:
    able, found = checked(f"source.path={tmp_path}/inbx")
    (source,) = of("source", found)
    assert able, "the first start makes it"
    assert source.startswith(f"warn  source: {tmp_path}/inbx is not there")
    assert "is [source] path spelled right?" in source
    assert of("data_dir", found) == [f"ok    data_dir: {tmp_path}/data will be made at the first start"]
    assert of("ledger", found) == [f"ok    ledger: {tmp_path}/data/ledger.db will be made at the first start"]
    assert not (tmp_path / "inbx").exists()


@pytest.mark.parametrize("parent", ["/proc", "file"])
def test_a_data_dir_that_nothing_can_hold_fails_and_no_ledger_is_promised(
    checked: Checked, tmp_path: Path, parent: str
) -> None:
    (tmp_path / "file").write_text("")
    able, found = checked(f"station.data_dir={tmp_path / parent}/x")  # joined to /proc it is /proc
    (data_dir,) = of("data_dir", found)
    assert not able
    assert data_dir.startswith(f"FAIL  data_dir: {tmp_path / parent}/x cannot be made: {tmp_path / parent} ")
    assert of("ledger", found) == []


def test_an_inbox_that_a_running_station_holds_is_told(checked: Checked) -> None:
    held = lock_inbox(checked.inbox)
    assert held is not None
    able, found = checked()
    assert able
    said = "a station that runs takes boards from it: this one, or another"
    assert of("source", found) == [f"warn  source: {checked.inbox}: {said}"]
    os.close(held)
    assert of("source", checked()[1]) == [f"ok    source: {checked.inbox} can be used"]
    ours = lock_inbox(checked.inbox)
    assert ours is not None, "check has let it go"
    os.close(ours)


def test_a_port_in_use_is_told_as_that(checked: Checked) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
        able, found = checked(f"http.port={port}", http=True)
    (http,) = of("http", found)
    assert able
    assert http.startswith(f"warn  http: 127.0.0.1:{port} is in use: by this station, if it runs, ")
    assert "by this user" not in http
    assert of("http", checked(f"http.port={port}", http=True)[1]) == [f"ok    http: 127.0.0.1:{port} can be used"]


def test_an_address_that_is_not_ours_names_its_keys(checked: Checked) -> None:
    wanted = ("http.host=192.0.2.1", "http.auth=required", "http.port=1")  # TEST-NET-1: nobody has it
    (http,) = of("http", checked(*wanted, http=True)[1])
    said = os.strerror(errno.EADDRNOTAVAIL)
    assert http == f"warn  http: 192.0.2.1:1 cannot be used: {said} ([http] host, port)"


def test_redis_without_its_package_fails(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ("http.redis=redis://127.0.0.1:1/0", "http.port=1")
    assert of("redis", checked(*wanted, http=True)[1]) == []
    monkeypatch.setitem(sys.modules, "redis", None)  # as if it were not installed
    able, found = checked(*wanted, http=True)
    (redis,) = of("redis", found)
    assert not able
    assert redis.startswith("FAIL  redis: [http] redis is set, but the package redis is not installed: ")
    assert "pip install " in redis
    assert checked(*wanted, "http.requests_per_minute=0", "http.cache_mb=0", http=True)[0], "nothing uses it"


def test_a_camera_of_another_size_or_without_its_extra_fails(
    checked: Checked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "0.png").write_bytes(encoded(picture(1)))
    checked.write(f'[source]\nkind = "camera"\ndevice = "{pictures}"')
    assert checked("source.width=64", "source.height=64")[0]
    able, found = checked("source.width=1920", "source.height=1080")
    (camera,) = of("camera", found)
    assert not able
    assert camera.startswith(f"FAIL  camera: camera {pictures}: its pictures have 64 x 64 pixels, not 1920 x 1080")
    monkeypatch.setitem(sys.modules, "harvesters", None)
    able, found = checked("source.device=genicam:/x.cti")
    (camera,) = of("camera", found)
    assert not able
    assert camera.startswith("FAIL  camera: [source] device = genicam:/x.cti needs an extra that is not installed: ")


@pytest.mark.parametrize("device", ["{folder}/nofolder", "{folder}/empty", "/dev/video-away", "rtsp://127.0.0.1:1/x"])
def test_a_camera_that_cannot_be_opened_must_be_mended(checked: Checked, tmp_path: Path, device: str) -> None:
    (tmp_path / "empty").mkdir()
    checked.write(f'[source]\nkind = "camera"\ndevice = "{device.format(folder=tmp_path)}"')
    able, found = checked()
    assert not able
    assert of("camera", found)[0].startswith("FAIL  camera: ")


def test_a_camera_that_a_running_station_may_have_is_only_warned_of(checked: Checked) -> None:
    checked.write('[source]\nkind = "camera"\ndevice = "/dev/video-away"')
    checked.data_dir.mkdir()
    with lock_folder(checked.data_dir):
        able, found = checked()
    assert able
    (camera,) = of("camera", found)
    assert camera.startswith("warn  camera: ")
    assert camera.endswith("; perhaps the station that runs has it: its /health knows")


def test_a_camera_of_another_size_fails_whoever_has_it(checked: Checked, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "0.png").write_bytes(encoded(picture(1)))
    checked.write(f'[source]\nkind = "camera"\ndevice = "{pictures}"')
    checked.data_dir.mkdir()
    with lock_folder(checked.data_dir):
        able, found = checked("source.width=1920", "source.height=1080")
    assert not able
    (camera,) = of("camera", found)
    assert camera.startswith("FAIL  camera: ")
    assert "perhaps the station" not in camera


@pytest.mark.parametrize(
    ("depayloader", "is_warned"), [("rtph264depay", True), ("rtph265depay wait-for-keyframe=true", False)]
)
def test_a_pipeline_that_hides_lost_packets_is_warned_of(checked: Checked, depayloader: str, is_warned: bool) -> None:
    pipeline = f"gstreamer: rtspsrc location=rtsp://127.0.0.1:1/x ! {depayloader} ! avdec_h264 ! appsink"
    checked.write(f'[source]\nkind = "camera"\ndevice = "{pipeline}"')
    _, found = checked()
    warned = "warn  camera: this pipeline shows made-up pictures after a lost packet"
    assert any(one.startswith(warned) for one in of("camera", found)) == is_warned


def test_a_triggered_camera_that_does_not_tell_how_old_its_pictures_are_is_warned_of(checked: Checked) -> None:
    words = "warn  camera: motion JPEG does not tell how old a picture is"
    with MjpegServer() as server:
        checked.write(f'[source]\nkind = "camera"\ndevice = "{server.url}"')
        able, found = checked("trigger.kind=http", "http.commands=[]")
        assert able
        warned, seen = of("camera", found)
        assert warned.startswith(words)
        assert seen.startswith("ok  ")
        able, found = checked("trigger.kind=free")
        (seen,) = of("camera", found)
        assert able
        assert seen.startswith("ok  "), "each of its pictures is a board, and no other's answer"
    _, found = checked("trigger.kind=http", "source.device=rtsp://127.0.0.1:1/board")
    assert not [one for one in found if one.startswith(words)]


@pytest.mark.skipif("GStreamer:                   YES" in cv2.getBuildInformation(), reason="this OpenCV has it")
def test_gstreamer_where_opencv_has_none_fails(checked: Checked) -> None:
    checked.write('[source]\nkind = "camera"\ndevice = "gstreamer: videotestsrc ! appsink"')
    able, found = checked()
    assert not able
    assert "this OpenCV has no GStreamer" in of("camera", found)[0]


def test_a_trust_file_that_is_missing_is_one_line_and_the_rest_is_still_tried(checked: Checked, tmp_path: Path) -> None:
    able, found = checked(f"recipe.trust={tmp_path}/away.toml")
    assert not able
    (failed,) = [one for one in found if one.startswith("FAIL")]
    assert failed.startswith(f"FAIL  trust: [recipe] trust = {tmp_path}/away.toml: there is no such file")
    for part in ("template", "model"):
        assert of(part, found)[0].startswith("ok  "), part


def test_a_template_that_is_missing_is_one_line(checked: Checked, tmp_path: Path) -> None:
    able, found = checked(f"recipe.template={tmp_path}/away.png")
    assert not able
    assert [one[:14] for one in found if one.startswith("FAIL")] == ["FAIL  template"]


def test_a_password_file_that_is_away_is_not_blamed_on_the_broker(checked: Checked, tmp_path: Path) -> None:
    named = tmp_path / "password"
    (line,) = of("broker", checked(f"mqtt.password_file={named}", "mqtt.username=aoi", mqtt=True)[1])
    assert line.startswith("FAIL")
    assert f"[mqtt] password_file = {named} cannot be used by this user: No such file or directory" in line


@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")  # paho leaves it behind
def test_a_broker_that_speaks_no_tls_is_told_with_the_keys(checked: Checked, tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "broker") as broker:
        able, found = checked(f"mqtt.port={broker.port}", "mqtt.tls=true", mqtt=True)
    (line,) = of("broker", found)
    assert able
    assert "perhaps no TLS is spoken at this port ([mqtt] tls, port)" in line


def test_a_broker_that_speaks_only_tls_is_told_with_the_keys(checked: Checked) -> None:
    with RudeBroker(Manners(hangs_up=9)) as broker:  # as a TLS port does at what is no TLS
        (line,) = of("broker", checked(f"mqtt.port={broker.port}", mqtt=True)[1])
        assert "perhaps only TLS is spoken at this port ([mqtt] tls, port)" in line
    (line,) = of("broker", checked(f"mqtt.port={broker.port}", mqtt=True)[1])
    assert "TLS" not in line, "nobody is there"
