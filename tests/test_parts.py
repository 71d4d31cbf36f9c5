"""The small decisions of the wiring; what it does as a whole is told by the tests of the daemon."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

from station.config import Settings
from station.errors import ConfigError
from station.health import Fault, Health
from station.heartbeat import Vitals, fault_of, heartbeat_of, left_open
from station.parts import (
    CREDENTIAL,
    broker_password,
    build_link,
    build_recipe,
    build_reference,
    depth_bits,
    floor_of,
    link_options,
    read_password,
    recipe_sha256,
)
from station.today import Books, Today


def settings(**sections: object) -> Settings:
    return Settings.model_validate(sections)


def test_two_stations_with_equal_limits_agree_on_the_recipe_however_they_wrote_them() -> None:
    one = build_recipe(settings(recipe={"thresholds": {"short": 0.4, "open": 0.6}}))
    other = build_recipe(settings(recipe={"name": "line-2", "thresholds": {"open": 0.6, "short": 0.4}}))
    stricter = build_recipe(settings(recipe={"thresholds": {"open": 0.6, "short": 0.3}}))
    assert recipe_sha256(one) == recipe_sha256(other)
    assert recipe_sha256(one) != recipe_sha256(stricter)


@pytest.mark.parametrize(
    "changed",
    [
        {"threshold": 0.6},
        {"min_area_px": 10},
        {"ignore": [{"name": "fiducial", "x": 0, "y": 0, "width": 5, "height": 5}]},
    ],
)
def test_every_limit_is_part_of_the_recipes_identity(changed: dict[str, object]) -> None:
    assert recipe_sha256(build_recipe(settings(recipe=changed))) != recipe_sha256(build_recipe(settings()))


def test_what_a_recipe_counts_is_looked_for_also_below_the_detectors_own_confidence() -> None:
    own = {"confidence": 0.3}
    assert floor_of(settings(detector=own, recipe={"threshold": 0.5, "thresholds": {"open": 0.1}})) == 0.1
    assert floor_of(settings(detector=own, recipe={"threshold": 0.2, "thresholds": {"open": 0.9}})) == 0.2
    assert floor_of(settings(detector=own, recipe={"threshold": 0.5, "thresholds": {"open": 0.9}})) == 0.3


def test_the_depth_of_the_inboxs_pictures_is_that_of_all_others() -> None:
    assert depth_bits(settings()) == 16
    assert depth_bits(settings(source={"depth_bits": 12})) == 12
    assert depth_bits(settings(source={"kind": "camera", "device": "0"}, trigger={"kind": "free"})) == 16


def test_a_template_is_decoded_as_deep_as_the_boards(tmp_path: Path) -> None:
    path = tmp_path / "template.png"
    levels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    cv2.imwrite(str(path), levels)
    reference = build_reference(settings(source={"depth_bits": 12}, recipe={"template": path}))
    assert reference is not None
    assert np.array_equal(reference.template, levels >> 4)


@pytest.mark.parametrize("bits", [8, 17, 11.5])
def test_no_other_depth_is_accepted(bits: float) -> None:
    with pytest.raises(ValueError, match="depth_bits"):
        settings(source={"depth_bits": bits})


def test_the_client_id_is_the_stations_unless_one_is_given() -> None:
    assert link_options(settings(station={"name": "aoi-7"})).client_id == "station-aoi-7"
    assert link_options(settings(mqtt={"client_id": "mine"})).client_id == "mine"


def test_with_mqtt_off_there_is_no_link() -> None:
    assert build_link(settings(mqtt={"enabled": False}), Health(), lambda: None, lambda *_: None) is None


def test_the_password_is_read_anew_each_time_and_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first \n")
    assert read_password(file, "key") == "first "
    file.write_text("second\r\n")
    assert read_password(file, "key") == "second"
    file.write_text("\n")
    assert read_password(file, "key") is None


def test_the_brokers_password_and_no_other_may_come_from_systemds_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert broker_password(None) is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert broker_password(None) is None
    (tmp_path / CREDENTIAL).write_text("sesame\n")
    assert broker_password(None) == "sesame"
    assert link_options(settings()).password() == "sesame"
    assert read_password(None, "[source] password_file") is None


def test_a_password_that_cannot_be_read_is_said_with_its_key_and_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / CREDENTIAL
    with pytest.raises(ConfigError, match=rf"\[mqtt\] password_file = {file} cannot be read \(No such file"):
        broker_password(file)
    file.write_bytes(b"caf\xe9")
    with pytest.raises(ConfigError, match=rf"\[mqtt\] password_file = {file} .*not UTF-8"):
        broker_password(file)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigError, match=rf"the credential {CREDENTIAL} = {file} .*not UTF-8"):
        broker_password(None)


def test_a_heartbeat_of_the_same_moment_has_the_same_bytes_and_every_field() -> None:
    vitals = Vitals(
        station="aoi-1",
        version="1.2.3",
        model="pcb-demo",
        model_sha256="m",
        recipe="board-a",
        at="2026-11-23T12:00:00.000Z",
        uptime_s=12.34,
        inspections={"pass": 1, "fail": 2, "unknown": 3},
        last_seq=6,
        owed=4,
        owed_oldest_s=5.67,
        refused=1,
        connected=True,
        protocol="3.1.1",
        beats_s={"line": 0.123},
        stalled=(),
        not_ready={"disk": "full"},
        faults=(Fault("disk_full", "3 MB free", 100.0),),
        free_mb=3.4,
        backlog=7,
        today=Today(
            datetime(2026, 11, 22, 23, tzinfo=timezone.utc), 6, Books(seen=5, answered=4, unanswered=1, recorded=5)
        ),
    )
    assert heartbeat_of(vitals) == heartbeat_of(vitals)
    assert json.loads(heartbeat_of(vitals)) == {
        "schema": "station.heartbeat/1",
        "station": "aoi-1",
        "at": "2026-11-23T12:00:00.000Z",
        "uptime_s": 12.3,
        "version": "1.2.3",
        "model": {"name": "pcb-demo", "sha256": "m"},
        "recipe": "board-a",
        "ready": False,
        "inspections": {"pass": 1, "fail": 2, "unknown": 3},
        "last_seq": 6,
        "today": {
            "since": "2026-11-22T23:00:00.000Z",
            "boards": 6,
            "triggers": {"seen": 5, "answered": 4, "unanswered": 1, "recorded": 5},
        },
        "backlog": 7,
        "owed": {"events": 4, "oldest_s": 5.7, "refused": 1},
        "mqtt": {"protocol": "3.1.1"},
        "beats_s": {"line": 0.1},
        "free_mb": 3,
        "faults": [{"code": "disk_full", "detail": "3 MB free", "since": "1970-01-01T00:01:40.000Z"}],
    }


def test_faults_without_an_end_are_found_in_what_was_sent_of_them() -> None:
    def sent(code: str, *, began: bool, since_s: float = 100.0) -> bytes:
        return fault_of(Fault(code, "why", since_s), began=began, event_id="e", station="aoi-1", at="now")

    story = [
        sent("broker_away", began=True),
        sent("disk_low", began=True),
        sent("broker_away", began=False),
        b"{}",
        b"no JSON",
        b'{"code": "of_another_version", "detail": "", "since": 7, "what": "began"}',
        sent("line_failing", began=True),
        sent("broker_away", began=True, since_s=200.0),
    ]
    assert left_open(story) == [
        Fault("disk_low", "why", 100.0),
        Fault("line_failing", "why", 100.0),
        Fault("broker_away", "why", 200.0),
    ]
    assert left_open([]) == []


def test_a_fault_says_whether_it_began_or_ended() -> None:
    fault = Fault("disk_full", "3 MB free", 100.0)
    documents = [
        json.loads(fault_of(fault, began=began, event_id="e", station="aoi-1", at="now")) for began in (True, False)
    ]
    assert [one["what"] for one in documents] == ["began", "ended"]
    assert documents[0] | {"what": "ended"} == documents[1]
    assert set(documents[0]) == {"schema", "station", "what", "at", "code", "detail", "since", "event_id"}
