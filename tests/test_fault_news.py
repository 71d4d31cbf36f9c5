"""Each fault is heard of when it begins and when it ends, in that order, whatever the disk takes."""

from __future__ import annotations

import json

import pytest

from station.fault_news import UNSAID, FaultNews
from station.health import Fault, Health
from station.types import Message


class Disk:
    """A ledger for notices, on a disk that may be full."""

    def __init__(self) -> None:
        self.full = False
        self.owed: list[bytes] = []
        self.woken = 0

    def notice(self, message: Message) -> bool:
        if not self.full:
            self.owed.append(message.payload)
        return not self.full

    def notices(self, topic: str) -> list[bytes]:
        assert topic == "fault"
        return self.owed

    def wake(self) -> None:
        self.woken += 1

    def told(self) -> list[tuple[str, str]]:
        return [(one["what"], one["code"]) for one in map(json.loads, self.owed)]


@pytest.fixture
def disk() -> Disk:
    return Disk()


def news_on(disk: Disk) -> FaultNews:
    return FaultNews(disk, station="aoi-1", has_room=lambda: not disk.full, on_owed=disk.wake)


def test_a_full_disk_delays_the_news_and_keeps_its_order(disk: Disk) -> None:
    news = news_on(disk)
    health = Health(on_fault=news.heard)
    disk.full = True
    health.begin("disk_full", "0 MB free")
    health.end("disk_full")
    news.catch_up()
    assert disk.told() == []
    disk.full = False
    health.begin("broker_away", "refused")
    assert disk.told() == [], "what is said later does not overtake"
    news.catch_up()
    assert disk.told() == [("began", "disk_full"), ("ended", "disk_full"), ("began", "broker_away")]


def test_each_is_tried_once_whatever_the_room_is(disk: Disk) -> None:
    """The floor that stops the line is above what the disk needs for a few words."""
    news = FaultNews(disk, station="aoi-1", has_room=lambda: False, on_owed=disk.wake)
    news.heard(Fault("disk_full", "", 0.0), True)
    news.catch_up()
    assert disk.told() == [("began", "disk_full")]


def test_of_more_than_it_remembers_the_oldest_news_go(disk: Disk) -> None:
    news = news_on(disk)
    disk.full = True
    for number in range(UNSAID + 1):
        news.heard(Fault(f"fault_{number}", "", 0.0), True)
    disk.full = False
    news.catch_up()
    assert [code for _, code in disk.told()] == [f"fault_{number}" for number in range(1, UNSAID + 1)]


def test_whoever_publishes_is_woken_for_each(disk: Disk) -> None:
    news = news_on(disk)
    news.heard(Fault("broker_away", "", 0.0), True)
    news.heard(Fault("broker_away", "", 0.0), False)
    assert (disk.owed, disk.woken) == ([], 0), "whoever has a fault waits for no disk"
    news.catch_up()
    assert disk.woken == 2


def test_what_the_last_run_left_open_is_ended_once(disk: Disk) -> None:
    news = news_on(disk)
    news.heard(Fault("broker_away", "refused", 0.0), True)
    news.catch_up()
    news_on(disk).end_left_open()
    news_on(disk).end_left_open()
    assert disk.told() == [("began", "broker_away"), ("ended", "broker_away")]
    assert json.loads(disk.owed[-1])["detail"] == "the station was started anew"
    assert len({json.loads(one)["event_id"] for one in disk.owed}) == 2
