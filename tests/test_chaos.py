"""Kills and broker restarts while boards arrive: every board is delivered under one id, and none is anywhere twice."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from station.sources.folder import MAX_CRASHES
from tests.daemon import PATIENCE_S, Daemon, Subscriber, encoded, lasting_broker, picture
from tests.mosquitto import Mosquitto
from tests.waiting import until


@dataclass(frozen=True, slots=True)
class Dose:
    """How much of it."""

    files: int
    kills: int
    broker_restarts: int
    longest_life_s: float


@pytest.mark.parametrize(
    "dose",
    [
        pytest.param(Dose(files=60, kills=8, broker_restarts=2, longest_life_s=2.5), id="short"),
        pytest.param(Dose(500, 50, 5, 4.0), id="long", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_neither_kills_nor_broker_restarts_lose_or_repeat_a_board(tmp_path: Path, dose: Dose) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"CHAOS_SEED={seed}")  # noqa: T201  # pytest shows it when the test fails: to run the same again
    chance = random.Random(seed)  # noqa: S311  # a repeatable order of events, no secret
    broker = lasting_broker(tmp_path / "broker")
    broker.start()
    subscriber = Subscriber(broker.port).start()
    station = Daemon(tmp_path, broker_port=broker.port, changes={"evidence": {"keep": "all"}})
    writer = Writer(station.inbox, dose.files, chance=random.Random(seed + 1))  # noqa: S311  # see above
    try:
        in_flight, idle, starting = torment(station, broker, writer, dose=dose, chance=chance)
        writer.join()
        station.start()
        until(
            lambda: not station.files() and not station.files("processing"), within_s=3 * PATIENCE_S, what="empty inbox"
        )
        until(lambda: station.metric("station_outbox_events") == 0, within_s=3 * PATIENCE_S, what="nothing is owed")
        until(
            lambda: len({one["event_id"] for one in subscriber.events()}) >= dose.files,
            within_s=PATIENCE_S,
            what="an event for each file",
        )
        assert station.stop() == 0
    finally:
        writer.stop()
        station.kill()
        subscriber.stop()
        broker.kill()

    messages = subscriber.below("inspection")
    ids = {one["event_id"] for one in subscriber.events()}
    print(  # noqa: T201  # the figures, with -s
        f"files={dose.files} kills: {in_flight} with a board in flight, {idle} idle, {starting} while starting; "
        f"broker restarts={dose.broker_restarts}; messages={len(messages)} ids={len(ids)}; "
        f"crashed={sum('crashed' in one['reason'] for one in subscriber.events())} ways={dict(writer.ways)}"
    )
    assert in_flight + idle + starting == dose.kills
    assert in_flight >= dose.kills // 8, "the kills did not hit"
    check_events(subscriber, writer.boards)
    check_places(station, writer.boards)


def torment(
    station: Daemon, broker: Mosquitto, writer: Writer, *, dose: Dose, chance: random.Random
) -> tuple[int, int, int]:
    """Kills the station *dose.kills* times at random moments; returns how many hit in flight, idle, and starting."""
    in_flight = idle = starting = 0
    restarts = set(chance.sample(range(dose.kills - 1), dose.broker_restarts))
    share = dose.files // dose.kills
    for number in range(dose.kills):
        writer.allow(share * number + share // 2)
        station.start(wait=False)
        if chance.random() < 0.8:  # else: killed wherever it is in its start
            until(lambda: station.status("/readyz") == 200 or not station.alive(), within_s=PATIENCE_S)
            pause(chance.uniform(0.0, dose.longest_life_s / 2))
        else:
            pause(chance.uniform(0.0, 1.0))
        if number in restarts:  # in the middle of what it delivers
            writer.allow(share * (number + 1))
            pause(chance.uniform(0.0, 0.1))
            if not broker.running:
                broker.start()
            broker.stop()
            pause(chance.uniform(0.0, 0.5))
        if number not in restarts or chance.random() < 0.5:
            was_down = not broker.running  # since the last life: what is owed goes out in one burst
            if was_down:
                broker.start()
            pause(chance.uniform(0.0, 0.5 if was_down else 0.0))
        assert station.alive(), f"the station ended by itself: {station.text()[-2000:]}"
        was_ready = station.status("/readyz") == 200
        writer.allow(share * (number + 1))
        if was_ready and chance.random() < 0.7:  # at the worst moment: a board is claimed
            end_s = time.monotonic() + 1.0
            while not station.files("processing") and time.monotonic() < end_s:
                time.sleep(0.0005)
        pause(chance.uniform(0.0, 0.005))
        station.kill()
        if station.files("processing"):
            in_flight += 1
        elif was_ready:
            idle += 1
        else:
            starting += 1
    return in_flight, idle, starting


def pause(seconds: float) -> None:
    """The one place that waits for a time and not for a condition: the random moment is the point."""
    time.sleep(seconds)


def check_events(subscriber: Subscriber, boards: dict[str, str]) -> None:
    """*boards*: the name of each file by the sha256 of its bytes."""
    payloads: dict[str, set[bytes]] = defaultdict(set)
    ids_of: dict[str, set[str]] = defaultdict(set)
    seqs: dict[str, int] = {}
    given_up: dict[str, set[str]] = defaultdict(set)
    for one in subscriber.below("inspection"):
        event = one.document
        payloads[event["event_id"]].add(one.payload)
        seqs[event["event_id"]] = event["seq"]
        if event["image"] is None:  # in flight at three kills: it was never decoded again
            assert event["reason"] == f"the station ended {MAX_CRASHES} times during this file (a crash, a power cut)"
            given_up[event["file"]].add(event["event_id"])
            continue
        ids_of[event["image"]["sha256"]].add(event["event_id"])
        assert event["file"] == boards[event["image"]["sha256"]]
        assert event["verdict"] == "fail"
    for sha256 in set(boards) - set(ids_of):  # such an event has only the name to tell its board
        ids_of[sha256] = {given_up[boards[sha256]].pop()} if given_up[boards[sha256]] else set()
    assert not any(given_up.values()), "a board that was given up has another id too"
    assert set(ids_of) == set(boards), "a board that nobody made"
    assert [boards[sha256] for sha256, ids in ids_of.items() if not ids] == [], "a board is missing"
    assert {sha: ids for sha, ids in ids_of.items() if len(ids) != 1} == {}, "a board has two ids"
    assert {event_id: len(texts) for event_id, texts in payloads.items() if len(texts) != 1} == {}, "an event changed"
    assert sorted(seqs.values()) == list(range(1, len(boards) + 1)), "seq has gaps or repeats"
    assert len({event["ledger"] for event in subscriber.events()}) == 1
    assert subscriber.faults("ledger_quarantined", "began") == []


def check_places(station: Daemon, boards: dict[str, str]) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file in station.inbox.rglob("*"):
        if file.is_file() and file.suffix == ".png":
            places[hashlib.sha256(file.read_bytes()).hexdigest()].append(str(file.relative_to(station.inbox)))
    assert set(places) == set(boards), "a picture is missing, or was changed"
    assert {sha: where for sha, where in places.items() if len(where) != 1} == {}, "a picture is in two places"
    assert {where[0].split("/")[0] for where in places.values()} <= {"done", "failed"}


class Writer:
    """
    The cameras: puts unlike pictures into *inbox*, in as many ways as people do, in a thread of its own.

    It goes no further than ``allow`` said, so that boards arrive in every life of the station.
    """

    def __init__(self, inbox: Path, files: int, *, chance: random.Random) -> None:
        self.boards: dict[str, str] = {}
        self.ways: Counter[str] = Counter()
        self._inbox = inbox
        self._files = files
        self._chance = chance
        self._allowed = 0
        self._news = threading.Condition()
        self._stopped = False
        self._trouble: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="writer")
        self._thread.start()

    def allow(self, files: int) -> None:
        with self._news:
            self._allowed = files
            self._news.notify()

    def stop(self) -> None:
        with self._news:
            self._stopped = True
            self._news.notify()
        self._thread.join()

    def join(self) -> None:
        self.allow(self._files)
        self._thread.join()
        assert not self._trouble, self._trouble

    def _run(self) -> None:
        ways: list[Callable[[Path, bytes], Iterator[None]]] = [at_once, slowly, renamed, copied_over]
        try:
            for number in range(self._files):
                with self._news:
                    self._news.wait_for(lambda number=number: self._stopped or number < self._allowed)  # type: ignore[misc]  # bound at once
                if self._stopped:
                    return
                data = encoded(picture(number))
                path = self._inbox / self._name(number)
                way = self._chance.choice(ways)
                self.ways[way.__name__] += 1
                self.boards[hashlib.sha256(data).hexdigest()] = path.name
                for _ in way(path, data):
                    pause(self._chance.uniform(0.0, 0.05))
        except BaseException as error:
            self._trouble.append(error)
            raise

    def _name(self, number: int) -> str:
        """A new name, or one that was used before and is free again: the station must not mind."""
        again = f"board-{self._chance.randrange(max(number, 1))}.png"
        return again if self._chance.random() < 0.2 and not (self._inbox / again).exists() else f"board-{number}.png"


def at_once(path: Path, data: bytes) -> Iterator[None]:
    path.write_bytes(data)
    yield


def slowly(path: Path, data: bytes) -> Iterator[None]:
    """In pieces, over a while, under its own name."""
    with path.open("wb", buffering=0) as out:
        for start in range(0, len(data), len(data) // 5):
            out.write(data[start : start + len(data) // 5])
            yield


def renamed(path: Path, data: bytes) -> Iterator[None]:
    hidden = path.with_name(f".{path.name}.tmp")
    hidden.write_bytes(data)
    yield
    hidden.rename(path)


def copied_over(path: Path, data: bytes) -> Iterator[None]:
    """A copy that broke off, and then the same copy once more."""
    path.write_bytes(data[: len(data) // 2])
    yield
    path.write_bytes(data)
