"""Beats and faults, with a clock of our own."""

from __future__ import annotations

from station.health import Fault, Health


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_loop_stalls_only_after_its_limit_and_moves_again_with_a_beat() -> None:
    clock = Clock()
    health = Health(monotonic=clock)
    health.watch("line", limit_s=30.0)
    clock.now_s += 30.0
    assert health.stalled() == []
    clock.now_s += 0.1
    assert health.stalled() == ["line"]
    health.beat("line")
    assert health.stalled() == []
    assert health.ages_s() == {"line": 0.0}


def test_a_beat_of_a_loop_that_nobody_watches_is_no_news() -> None:
    health = Health()
    health.beat("somebody")
    assert health.ages_s() == {}


def test_a_fault_begins_once_and_ends_once_however_often_it_is_said() -> None:
    heard: list[tuple[str, str, bool]] = []
    clock = Clock()
    health = Health(wall=clock, on_fault=lambda fault, began: heard.append((fault.code, fault.detail, began)))
    health.end("broker_away")
    health.begin("broker_away", "refused")
    clock.now_s += 5.0
    health.begin("broker_away", "no route")
    assert health.faults() == [Fault("broker_away", "no route", 100.0)]
    health.end("broker_away")
    health.end("broker_away")
    assert heard == [("broker_away", "refused", True), ("broker_away", "no route", False)]
    assert health.faults() == []


def test_how_long_a_fault_lasted_is_told_though_the_clock_was_set_meanwhile() -> None:
    ended: list[Fault] = []
    wall, monotonic = Clock(), Clock()
    health = Health(
        wall=wall, monotonic=monotonic, on_fault=lambda fault, began: None if began else ended.append(fault)
    )
    for lasted_s in (7.0, 3.0):
        health.begin("broker_away", "refused")
        monotonic.now_s += lasted_s / 2
        health.begin("broker_away", "no route")
        monotonic.now_s += lasted_s / 2
        wall.now_s -= 3600.0
        health.end("broker_away")
    assert [fault.lasted_s for fault in ended] == [7.0, 3.0]


def test_faults_come_oldest_first() -> None:
    clock = Clock()
    health = Health(wall=clock)
    for code in ("b", "a", "c"):
        health.begin(code, "")
        clock.now_s += 1.0
    assert [fault.code for fault in health.faults()] == ["b", "a", "c"]


def test_whoever_hears_of_a_fault_may_ask_about_faults() -> None:
    """The hook is called outside of the lock: the ledger's notice asks nothing, but the log or the page may."""
    seen: list[int] = []
    health = Health(on_fault=lambda _fault, _began: seen.append(len(health.faults())))
    health.begin("disk_low", "")
    health.end("disk_low")
    assert seen == [1, 0]


def test_not_ready_lasts_until_the_same_part_says_that_it_can_again() -> None:
    health = Health()
    health.cannot("disk", "full")
    health.cannot("line", "failed")
    health.cannot("disk", None)
    assert health.not_ready() == {"line": "failed"}
    health.cannot("line", None)
    assert health.not_ready() == {}


def test_while_the_line_has_stalled_no_board_can_be_inspected_and_of_another_loop_that_is_not_said() -> None:
    clock = Clock()
    health = Health(monotonic=clock)
    health.watch("line", limit_s=30.0)
    health.watch("publish", limit_s=30.0)
    clock.now_s += 31.0
    health.beat("line")
    assert health.not_ready() == {}
    clock.now_s += 31.0
    assert health.not_ready() == {"line": "it has not moved for more than 30 s"}
    health.beat("line")
    assert health.not_ready() == {}
