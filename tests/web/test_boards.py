"""The boards on record over HTTP: the list, a board's event and picture, and what people say of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from station.assets import ASSETS
from station.picture import decode
from tests.daemon import BLACK_PASSES, PATIENCE_S, Daemon, Subscriber, drop, encoded, lasting_broker, picture
from tests.waiting import until


def has(station: Daemon, count: int) -> bool:
    return len(boards(station)) == count


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Daemon]:
    with lasting_broker(tmp_path / "broker") as broker, Daemon(tmp_path, broker_port=broker.port) as one:
        one.start()
        for number in range(1, 5):
            drop(
                one.inbox,
                f"{number}.png",
                encoded(picture(number, red=BLACK_PASSES) if number % 2 else picture(number)),
            )
            until(partial(has, one, number), within_s=PATIENCE_S)
        yield one


def client(station: Daemon) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{station.http_port}", timeout=60, trust_env=False)


def boards(station: Daemon, **query: Any) -> list[dict[str, Any]]:
    with client(station) as http:
        found: list[dict[str, Any]] = http.get("/boards", params=query).json()["boards"]
        return found


def test_boards_are_listed_newest_first_and_can_be_paged_and_chosen(station: Daemon) -> None:
    assert [(one["file"], one["verdict"]) for one in boards(station)] == [
        ("4.png", "fail"),
        ("3.png", "pass"),
        ("2.png", "fail"),
        ("1.png", "pass"),
    ]
    assert [one["seq"] for one in boards(station, limit=2, before_seq=4)] == [3, 2]
    assert {one["file"] for one in boards(station, verdict="fail")} == {"2.png", "4.png"}
    with client(station) as http:
        assert http.get("/boards", params={"limit": 0}).status_code == 422
        assert http.get("/boards/nonsense").status_code == 404


def test_a_board_has_its_event_and_its_picture_or_the_reason_why_not(station: Daemon) -> None:
    last, third, second, _ = boards(station)
    assert [one["picture"] for one in (last, third, second)] == [True, False, True]
    with client(station) as http:
        assert http.get(f"/boards/{second['event_id']}").json()["verdict"] == "fail"
        for one in (last, second):
            answer = http.get(f"/boards/{one['event_id']}/image")
            assert answer.headers["content-type"] == "image/jpeg"
            assert decode(answer.content) is not None
        missing = http.get(f"/boards/{third['event_id']}/image")
        assert (missing.status_code, "[evidence] keep" in missing.json()["detail"]) == (404, True)
        shutil.rmtree(station.data_dir / "evidence")
        gone = http.get(f"/boards/{second['event_id']}/image")
        assert (gone.status_code, "gone since" in gone.json()["detail"]) == (404, True)
        for path in ("..%2f..%2fledger.db", "%2e%2e/%2e%2e/ledger.db", "a" * 65):
            assert http.get(f"/boards/{path}/image").status_code in {404, 422}


def test_a_review_is_kept_published_and_outlives_a_restart(station: Daemon) -> None:
    last = boards(station)[0]["event_id"]
    broker_port = int(station.config.read_text().partition("[mqtt]\nport = ")[2].split()[0])
    with Subscriber(broker_port) as subscriber, client(station) as http:
        for call, note in (("false", "dust"), ("confirmed", "")):
            answer = http.post(f"/boards/{last}/review", json={"call": call, "note": note})
            assert answer.json()["review"]["call"] == call
        until(lambda: len(subscriber.below("review")) == 2, within_s=PATIENCE_S)
        schema = json.loads((ASSETS / "review.schema.json").read_text())
        for one in subscriber.below("review"):
            jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(one.document)
            assert (one.document["event_id"], one.document["verdict"]) == (last, "fail")
        assert [one.document["call"] for one in subscriber.below("review")] == ["false", "confirmed"]
        for wrong in ({"call": "maybe"}, {}, {"call": "false", "note": "x" * 501}):
            assert http.post(f"/boards/{last}/review", json=wrong).status_code == 422
        assert http.post("/boards/nonsense/review", json={"call": "false"}).status_code == 404
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):  # as a foreign page can
            foreign = http.post(f"/boards/{last}/review", content=b'{"call": "false"}', headers={"Content-Type": kind})
            assert foreign.status_code == 415
        assert http.post(f"/boards/{last}/review", content=b'{"call": "false"}').status_code == 415
    station.kill()
    station.start()
    assert boards(station)[0]["review"]["call"] == "confirmed"
    assert boards(station)[1]["review"] is None


def test_the_live_stream_tells_each_board_and_ends_when_the_station_does(station: Daemon) -> None:
    with client(station) as http, http.stream("GET", "/live") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()

        def said() -> dict[str, Any]:
            found: dict[str, Any] = json.loads(
                next(one for one in lines if one.startswith("data: ")).removeprefix("data: ")
            )
            return found

        first = said()
        assert first["today"]["counts"] == {"pass": 2, "fail": 2, "unknown": 0}
        assert (first["today"]["yield"], first["ready"], first["broker"]["connected"]) == (50.0, True, True)
        assert first["pareto"][0]["boards"] == 2
        assert sum(bar["fail"] for bar in first["trend"]) == 2
        drop(station.inbox, "5.png", encoded(picture(5)))
        while said()["boards"][0]["file"] != "5.png":
            pass
        assert station.stop() == 0
        assert [one for one in lines if "trouble" in one] == []
    assert "Exception in ASGI" not in station.text()
    assert not [one for one in station.log() if one["level"] == "error"]


def test_with_logins_boards_need_read_and_reviews_need_command(tmp_path: Path) -> None:
    with Daemon(tmp_path, changes={"http": {"auth": "required"}}) as station:
        reader = station.call("key", "create", "screen", "--scope", "read").stdout.strip()
        station.start()
        with client(station) as http:
            assert http.get("/").status_code == 200
            for path in ("/boards", "/live", "/boards/x", "/boards/x/image"):
                assert http.get(path).status_code == 401
            assert http.get("/boards", headers={"X-API-Key": reader}).status_code == 200
            denied = http.post("/boards/x/review", json={"call": "false"}, headers={"X-API-Key": reader})
            assert denied.status_code == 403


def test_reviewed_boards_become_pictures_and_labels_to_train_with(station: Daemon, tmp_path: Path) -> None:
    fourth, third, second, first = (one["event_id"] for one in boards(station))
    with client(station) as http:
        for event_id, call in ((fourth, "confirmed"), (third, "confirmed"), (second, "false"), (first, "false")):
            assert http.post(f"/boards/{event_id}/review", json={"call": call}).status_code == 200
        defects = [one for one in http.get(f"/boards/{fourth}").json()["defects"] if one["counts"]]
    target = tmp_path / "dataset"
    done = station.call("ledger", "export", "--dataset", str(target))
    assert (done.returncode, done.stdout) == (0, f"3 boards written to {target}\n")
    assert "left out: 1 board, a PASS that was wrong" in done.stderr
    labels = {one.stem: one.read_text() for one in (target / "labels").iterdir()}
    assert set(labels) == {one.stem for one in (target / "images").iterdir()} == {fourth, third, second}
    assert (labels[third], labels[second]) == ("", "")
    numbers = [float(one) for one in labels[fourth].splitlines()[0].split()]
    box = defects[0]["box"]
    assert numbers[1:] == pytest.approx(
        [
            (box["x"] + box["width"] / 2) / 64,
            (box["y"] + box["height"] / 2) / 64,
            box["width"] / 64,
            box["height"] / 64,
        ],
        abs=1e-5,
    )
    assert defects[0]["label"] in (target / "data.yaml").read_text()
    again = station.call("ledger", "export", "--dataset", str(target))
    assert (again.returncode, "is not empty" in again.stderr) == (2, True)
    assert station.call("ledger", "export").returncode == 2
