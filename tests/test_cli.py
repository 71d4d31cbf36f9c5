"""The command line as a shell sees it: what is on stdout, and the exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from station import __version__
from tests.daemon import BLACK_PASSES, PATIENCE_S, Daemon, Subscriber, drop, encoded, lasting_broker, picture
from tests.plc import Plc
from tests.rude_broker import Manners, RudeBroker
from tests.waiting import until


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Daemon]:
    """A configuration to call commands on; its broker is not there."""
    with Daemon(tmp_path) as one:
        yield one


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    folder = tmp_path / "boards"
    folder.mkdir()
    (folder / "good.png").write_bytes(encoded(picture(1, red=BLACK_PASSES)))
    (folder / "bad.png").write_bytes(encoded(picture(2)))
    (folder / "cut-off.png").write_bytes(encoded(picture(3))[:100])
    return folder


def test_version_and_help_need_no_configuration(tmp_path: Path) -> None:
    for arguments, said in (
        (["--version"], f"station {__version__}"),
        (["--help"], "ledger"),
        (["run", "--help"], "-c"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "station", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert said in done.stdout


@pytest.mark.parametrize("group", [[], ["ledger"], ["model"]])
def test_the_list_of_commands_fits_80_columns_whole(group: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "station", *group, "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    listed = done.stdout.partition("Commands:")[2].splitlines()
    assert len(listed) > 4
    assert [line for line in listed if "..." in line or len(line) > 80] == []


@pytest.mark.parametrize("arguments", [["run", "--no-such"], ["no-such-command"], ["inspect"]])
def test_a_wrong_command_line_is_exit_2_without_a_traceback(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "station", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_without_any_configuration_run_says_where_it_looked(station: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "station", "run", "-c", "nowhere.toml"],
        cwd=station.folder,
        env=station.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "nowhere.toml does not exist" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_check_is_0_when_it_can_inspect_though_the_broker_is_away(station: Daemon) -> None:
    done = station.call("check")
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("model", "source", "data_dir", "disk", "ledger", "serial"):
        assert re.search(rf"^ok    {part}: ", done.stdout, re.MULTILINE), part
    assert re.search(r"^warn  broker: 127\.0\.0\.1:\d+: ", done.stdout, re.MULTILINE)
    assert 'topic = "factory/test/aoi-1"' in done.stdout


def test_check_finds_the_broker_that_is_there(tmp_path: Path) -> None:
    with lasting_broker(tmp_path / "broker") as broker, Daemon(tmp_path, broker_port=broker.port) as station:
        done = station.call("check")
    assert done.returncode == 0
    assert re.search(r"^ok    broker: ", done.stdout, re.MULTILINE)


def test_check_is_2_when_the_broker_refuses_the_login(tmp_path: Path) -> None:
    with RudeBroker(Manners(connack=0x87)) as broker, Daemon(tmp_path, broker_port=broker.port) as station:
        done = station.call("check")
    assert done.returncode == 2
    assert re.search(r"^FAIL  broker: .*Not authorized.*\[mqtt\] username", done.stdout, re.MULTILINE)


def test_watch_ends_with_the_brokers_words_when_it_refuses_the_login(tmp_path: Path) -> None:
    with RudeBroker(Manners(connack=5)) as broker, Daemon(tmp_path, broker_port=broker.port) as station:
        done = station.call("watch")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"station: 127.0.0.1:{broker.port} refuses the connection: Not authorized")


def test_check_is_2_and_says_what_must_be_mended(station: Daemon) -> None:
    station.inbox.rmdir()
    station.inbox.write_bytes(b"no folder")
    station.configure({"detector": {"model": str(station.folder / "away.onnx")}})
    done = station.call("check")
    assert done.returncode == 2
    assert re.search(r"^FAIL  model: .*away\.onnx", done.stdout, re.MULTILINE)
    assert re.search(r"^FAIL  source: .* is not a folder", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stdout + done.stderr


def test_check_looks_at_the_disk_before_the_first_start_too(station: Daemon) -> None:
    station.configure({"ledger": {"stop_below_mb": 1e9}, "evidence": {"stop_below_mb": 1e9}})
    done = station.call("check")
    assert not station.data_dir.exists()
    assert done.returncode == 2
    assert re.search(r"^FAIL  disk: \d+ MB free, 1e\+09 MB needed", done.stdout, re.MULTILINE)


def test_check_takes_a_picture_and_opens_the_ports(station: Daemon, tmp_path: Path) -> None:
    board = tmp_path / "camera" / "0.png"
    board.parent.mkdir()
    board.write_bytes(encoded(picture(1)))
    camera = {"kind": "camera", "device": str(board.parent), "path": None, "scan_s": None}
    with Plc(tmp_path) as plc:
        station.configure(
            {
                "source": camera,
                "gate": {"kind": "serial"},
                "serial": {"port": str(plc.port)},
                "trigger": {"kind": "serial"},
            }
        )
        done = station.call("check")
        assert done.returncode == 0, done.stdout
        assert re.search(
            r"^ok    camera: .* 64x64, brightness \d+, contrast \d+, sharpness ", done.stdout, re.MULTILINE
        )
        assert re.search(rf"^ok    serial: {plc.port} can be opened", done.stdout, re.MULTILINE)
    station.configure({"serial": {"port": "/dev/serial-away"}})
    done = station.call("check")
    assert done.returncode == 0, "it is waited for"
    assert re.search(r"^warn  serial: the serial port /dev/serial-away is not there", done.stdout, re.MULTILINE)
    station.configure({"source": {"device": "/dev/video-away"}})
    done = station.call("check")
    assert done.returncode == 2, "nothing says that it will ever see a board"
    assert re.search(r"^FAIL  camera: camera /dev/video-away: ", done.stdout, re.MULTILINE)


def test_capture_keeps_what_the_camera_sees_and_never_writes_over_a_file(station: Daemon, tmp_path: Path) -> None:
    seen, kept = tmp_path / "camera" / "0.png", tmp_path / "kept.png"
    seen.parent.mkdir()
    seen.write_bytes(encoded(picture(1)))
    assert "there is no camera" in station.call("capture", str(kept)).stderr
    station.configure({"source": {"kind": "camera", "device": str(seen.parent), "path": None, "scan_s": None}})
    assert station.call("capture", str(kept)).returncode == 0
    assert (np.asarray(cv2.imread(str(kept))) == picture(1)).all()
    again = station.call("capture", str(kept))
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    assert "name it .png" in station.call("capture", str(tmp_path / "x.jpg")).stderr
    assert "its folder cannot be made" in station.call("capture", str(kept / "x.png")).stderr
    deep = tmp_path / "good" / "today" / "1.png"
    assert station.call("capture", str(deep)).returncode == 0
    assert deep.exists()
    station.configure({"source": {"device": "/dev/video-away"}})
    away = station.call("capture", str(tmp_path / "none" / "y.png"))
    assert (away.returncode, "camera /dev/video-away" in away.stderr) == (1, True)
    assert not (tmp_path / "none").exists()


def test_check_leaves_nothing_behind(station: Daemon) -> None:
    before = sorted(station.folder.rglob("*"))
    assert station.call("check").returncode == 0
    assert sorted(station.folder.rglob("*")) == before


def test_inspect_json_prints_one_event_a_line_and_nothing_else(station: Daemon, boards: Path) -> None:
    done = station.call("inspect", str(boards), "--json")
    assert done.returncode == 4
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["file"]: one["verdict"] for one in events} == {
        "good.png": "pass",
        "bad.png": "fail",
        "cut-off.png": "unknown",
    }
    assert {(one["seq"], one["ledger"], one["schema"]) for one in events} == {(None, None, "station.inspection/1")}
    assert len({one["event_id"] for one in events}) == 3


def test_inspect_takes_deep_pictures_for_as_deep_as_the_inboxs(station: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "deep.png"
    cv2.imwrite(str(file), picture(7).astype(np.uint16) << 4)
    assert re.match(r"UNKNOWN .*\[source\]\s+depth_bits", station.call("inspect", str(file)).stdout, re.DOTALL)
    station.configure({"source": {"depth_bits": 12}})
    assert station.call("inspect", str(file)).stdout.startswith("FAIL")


def test_inspect_refuses_a_threshold_that_would_hold_for_nothing_as_run_and_check_do(
    station: Daemon, boards: Path
) -> None:
    with station.config.open("a", encoding="utf-8") as file:
        file.write("[recipe.thresholds]\nshorts = 0.3\n")
    done = station.call("inspect", str(boards / "good.png"))
    assert done.returncode == 2
    assert "[recipe] thresholds: shorts, but the model knows: open, short" in done.stderr


def test_inspect_is_0_when_all_pass_and_records_nothing(station: Daemon, boards: Path) -> None:
    done = station.call("inspect", str(boards / "good.png"))
    assert done.returncode == 0
    assert re.match(r"PASS +\S*good\.png", done.stdout)
    assert not station.data_dir.exists()
    assert (boards / "good.png").exists()


def test_inspect_and_check_log_nothing_that_goes_well(station: Daemon, boards: Path) -> None:
    station.configure({"log": {"level": "info"}, "detector": {"backend": "auto"}})
    for arguments in (["inspect", str(boards / "good.png")], ["check"]):
        done = station.call(*arguments)
        assert (done.returncode, done.stderr) == (0, "")
    asked = station.call("inspect", str(boards / "good.png"), "--set", "log.level=debug")
    assert "backend" in asked.stderr, "who asks for it gets it"


def test_a_name_cannot_play_tricks_on_the_terminal_of_inspect(station: Daemon, boards: Path) -> None:
    (boards / "good.png").rename(boards / "good\x1b[31m\nPASS  x.png")
    done = station.call("inspect", str(boards))
    assert r"good\x1b[31m\nPASS  x.png" in done.stdout
    assert len(done.stdout.splitlines()) == 3
    gone = station.call("inspect", str(boards / "a\x1b[2J"))
    assert gone.stderr.isprintable() or gone.stderr.rstrip("\n").isprintable()


def test_inspect_save_draws_the_defects_into_the_folder(station: Daemon, boards: Path, tmp_path: Path) -> None:
    done = station.call("inspect", str(boards), "--save", str(tmp_path / "annotated"))
    assert done.returncode == 4
    saved = {one.name for one in (tmp_path / "annotated").iterdir()}
    assert saved == {"good-pass.jpg", "bad-fail.jpg"}
    assert done.stderr == f"2 annotated pictures in {tmp_path / 'annotated'}/ (1 could not be read)\n"
    annotated, original = cv2.imread(str(tmp_path / "annotated" / "bad-fail.jpg")), cv2.imread(str(boards / "bad.png"))
    assert annotated is not None
    assert original is not None
    assert annotated.shape[0] > original.shape[0], "the verdict stands above the picture and hides none of it"


def test_inspect_save_counts_the_pictures_that_are_there_and_leaves_stdout_alone(
    station: Daemon, boards: Path, tmp_path: Path
) -> None:
    good, again = boards / "good.png", tmp_path / "good.png"
    again.write_bytes(good.read_bytes())
    done = station.call("inspect", str(good), str(again), "--save", "annotated", "--json")
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == ["good.png", "good.png"]
    assert done.stderr == "1 annotated picture in annotated/ (1 written over: another had the same name)\n"
    assert len(list((station.folder / "annotated").iterdir())) == 1


@pytest.mark.parametrize("path", ["nowhere.png", "."])
def test_inspect_of_what_is_not_there_is_exit_2(station: Daemon, path: str) -> None:
    empty = station.folder / "empty"
    empty.mkdir()
    done = station.call("inspect", str(empty / path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_set_overrides_one_key(station: Daemon, boards: Path) -> None:
    done = station.call("inspect", str(boards / "bad.png"), "--set", "recipe.threshold=0.99")
    assert done.returncode == 0


def test_watch_prints_each_event_as_it_arrives_and_ends_by_ctrl_c(tmp_path: Path) -> None:
    with (
        lasting_broker(tmp_path / "broker") as broker,
        Daemon(tmp_path, broker_port=broker.port) as station,
        Subscriber(broker.port) as subscriber,
        (tmp_path / "watched").open("wb") as out,
    ):
        station.start()
        watch = subprocess.Popen(
            station.command("watch", "--json"), cwd=tmp_path, env=station.environment(), stdout=out, stderr=out
        )
        try:
            until(lambda: "online" in (tmp_path / "watched").read_text(), within_s=PATIENCE_S, what="the state")
            drop(station.inbox, "board.png", encoded(picture(1)))
            until(subscriber.events, within_s=PATIENCE_S, what="the event")
            until(lambda: "inspection/fail" in (tmp_path / "watched").read_text(), within_s=PATIENCE_S, what="it again")
            watch.send_signal(signal.SIGINT)
            assert watch.wait(PATIENCE_S) == 0
        finally:
            watch.kill()
            watch.wait(PATIENCE_S)
    lines = [json.loads(line) for line in (tmp_path / "watched").read_text().splitlines() if line[0] == "{"]
    (event,) = [one for one in lines if "/inspection/" in one["topic"]]
    assert json.loads(event["payload"]) == subscriber.events()[0]


def test_ledger_commands_tell_what_was_inspected_while_the_station_runs(tmp_path: Path) -> None:
    with (
        lasting_broker(tmp_path / "broker") as broker,
        Daemon(tmp_path, broker_port=broker.port) as station,
        Subscriber(broker.port) as subscriber,
    ):
        station.start()
        drop(station.inbox, "bad.png", encoded(picture(1)))
        drop(station.inbox, "good.png", encoded(picture(2, red=BLACK_PASSES)))
        until(lambda: len(subscriber.events()) == 2, within_s=PATIENCE_S, what="both events")
        until(lambda: station.metric("station_outbox_events") == 0, within_s=PATIENCE_S, what="nothing owed")
        status = json.loads(station.call("ledger", "status", "--json").stdout)
        assert status["totals"]["last_seq"] == 2
        assert status["totals"]["boards"] == {"pass": 1, "fail": 1}
        assert status["depth"]["owed"] == 0
        listed = [json.loads(line) for line in station.call("ledger", "list", "--json").stdout.splitlines()]
        assert [one["seq"] for one in listed] == [1, 2]
        replayed = station.call("ledger", "replay", "--seq", "1")
        assert (replayed.returncode, replayed.stdout) == (0, "1 event is owed again\n")
        backwards = station.call("ledger", "replay", "--seq", "3-1")
        assert (backwards.returncode, "runs backwards: write --seq 1-3" in backwards.stderr) == (2, True)
        until(lambda: len(subscriber.events()) == 3, within_s=PATIENCE_S, what="the same event once more")
        first, second, again = subscriber.below("inspection")
        assert again.payload in {first.payload, second.payload}
        target = tmp_path / "boards.csv"
        assert station.call("ledger", "export", str(target)).returncode == 0
        assert len(target.read_text().splitlines()) == 3
        piped = station.call("ledger", "export", "-")
        assert (piped.stdout, piped.stderr) == (target.read_text(), "2 boards written to stdout\n")
        beyond = station.call("ledger", "replay", "--seq", "9999-99999")
        assert (beyond.returncode, "no board with number 9999: the last is 2" in beyond.stderr) == (1, True)


@pytest.mark.parametrize(
    "arguments", [["status"], ["list"], ["replay", "--seq", "1"], ["replay", "--seq", "one"], ["export", "boards.csv"]]
)
def test_ledger_commands_without_a_ledger_say_so_in_one_line(station: Daemon, arguments: list[str]) -> None:
    done = station.call("ledger", *arguments)
    assert done.returncode in {1, 2}
    assert done.stderr.startswith("station: ")
    assert "Traceback" not in done.stderr
    assert not station.data_dir.exists()
