"""The line goes first at the network and has it alone; others share it where more than one waits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress

import pytest

from station.turns import Turns
from tests.waiting import until


class People:
    """Who uses the network in a test, each in a thread of its own until it is let go."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.inside: dict[str, bool] = {}
        self.away: list[str] = []
        self._go: dict[str, threading.Event] = {}
        self._threads: dict[str, threading.Thread] = {}

    def come(self, name: str) -> None:
        """``line``, ``ahead N`` or ``guest N`` asks for its turn; returns when it has it, or waits for it."""
        before = self.turns.waiting
        self._go[name] = threading.Event()
        self._threads[name] = threading.Thread(target=self._stay, args=(name,))
        self._threads[name].start()
        until(lambda: name in self.inside or self.turns.waiting > before)

    def go(self, name: str) -> None:
        self._go[name].set()
        self._threads[name].join(30)
        assert not self._threads[name].is_alive()

    def sent_away(self, *names: str) -> None:
        """These wait no more, and have had no turn."""
        for name in names:
            self._threads[name].join(30)
            assert not self._threads[name].is_alive()
            assert name in self.away

    def close(self) -> None:
        for event in self._go.values():
            event.set()
        for thread in self._threads.values():
            thread.join(30)

    def _stay(self, name: str) -> None:
        match name.partition(" ")[0]:
            case "line":
                turn = self.turns.line()
            case "ahead":
                turn = self.turns.ahead()
            case _:
                turn = self.turns.guest()
        try:
            with turn as alone:
                self.inside[name] = alone
                assert self._go[name].wait(30)
                del self.inside[name]
        except CancelledError:
            self.away.append(name)


@pytest.fixture
def people() -> Iterator[People]:
    people = People(Turns(threads=4, guests_abreast=True))
    yield people
    people.close()


def test_who_comes_alone_has_all_cores(people: People) -> None:
    people.come("guest 1")
    assert people.inside == {"guest 1": True}
    people.come("guest 2")
    people.go("guest 1")
    until(lambda: people.inside == {"guest 2": True})


def test_two_that_wait_share_the_cores_and_a_third_takes_the_place_of_the_first_to_go(people: People) -> None:
    for name in ("guest 1", "guest 2", "guest 3", "guest 4"):
        people.come(name)
    people.go("guest 1")
    until(lambda: people.inside == {"guest 2": False, "guest 3": False})
    people.go("guest 3")
    until(lambda: people.inside == {"guest 2": False, "guest 4": False})
    people.come("guest 5")
    people.go("guest 2")
    people.go("guest 4")
    until(lambda: people.inside == {"guest 5": False})


def test_the_line_comes_before_guests_that_waited_longer_and_has_the_network_alone(people: People) -> None:
    for name in ("guest 1", "guest 2", "guest 3", "guest 4"):
        people.come(name)
    people.go("guest 1")
    until(lambda: len(people.inside) == 2)
    people.come("line")
    people.go("guest 2")
    assert set(people.inside) == {"guest 3"}, "nobody is let in before the line, nor the line beside a guest"
    people.go("guest 3")
    until(lambda: people.inside == {"line": True})
    people.come("guest 5")
    people.go("line")
    until(lambda: people.inside == {"guest 4": False, "guest 5": False})


def test_who_looks_ahead_and_guests_come_by_turns(people: People) -> None:
    people.come("line")
    for name in ("ahead 1", "ahead 2", "ahead 3", "guest 1", "guest 2", "guest 3"):
        people.come(name)
    people.go("line")
    until(lambda: set(people.inside) == {"ahead 1", "guest 1"})
    people.go("guest 1")
    until(lambda: set(people.inside) == {"ahead 1", "ahead 2"})
    people.go("ahead 1")
    until(lambda: set(people.inside) == {"ahead 2", "guest 2"})
    people.go("guest 2")
    until(lambda: set(people.inside) == {"ahead 2", "ahead 3"})
    people.go("ahead 2")
    until(lambda: set(people.inside) == {"ahead 3", "guest 3"})


def test_who_looks_ahead_has_all_cores_only_for_the_last_board_in_a_row(people: People) -> None:
    people.turns.expect_more(yes=True)
    people.come("ahead 1")
    assert people.inside == {"ahead 1": False}
    people.come("ahead 2")
    people.go("ahead 1")
    people.go("ahead 2")
    people.turns.expect_more(yes=False)
    people.come("ahead 3")
    assert people.inside == {"ahead 3": True}
    people.come("ahead 4")
    people.come("guest 1")
    people.go("ahead 3")
    until(lambda: people.inside == {"ahead 4": False, "guest 1": False})
    people.turns.expect_more(yes=True)
    people.go("ahead 4")
    people.go("guest 1")
    people.come("guest 2")
    assert people.inside == {"guest 2": True}, "guests stand in no row"


def test_at_the_end_whoever_waits_to_look_ahead_is_sent_away_and_nobody_else(people: People) -> None:
    people.come("ahead 1")
    for name in ("ahead 2", "ahead 3", "guest 1"):
        people.come(name)
    people.turns.end_ahead()
    people.sent_away("ahead 2", "ahead 3")
    assert people.inside == {"ahead 1": True}, "who runs is left alone"
    people.go("ahead 1")
    until(lambda: people.inside == {"guest 1": True})
    with pytest.raises(CancelledError), people.turns.ahead():
        pass
    people.come("line")
    people.go("guest 1")
    until(lambda: people.inside == {"line": True})


def test_beside_a_line_guests_come_one_at_a_time_for_it_would_lose_more_to_two() -> None:
    people = People(Turns(threads=2, guests_abreast=False))
    for name in ("guest 1", "guest 2", "guest 3"):
        people.come(name)
    people.go("guest 1")
    until(lambda: people.inside == {"guest 2": True})
    for name in ("ahead 1", "ahead 2"):
        people.come(name)
    people.go("guest 2")
    until(lambda: people.inside == {"ahead 1": False, "guest 3": False})
    people.come("guest 4")
    people.go("ahead 1")
    until(lambda: people.inside == {"ahead 2": False, "guest 3": False})
    people.go("ahead 2")
    assert people.inside == {"guest 3": False}, "no guest beside a guest"
    people.go("guest 3")
    until(lambda: people.inside == {"guest 4": True})
    people.close()


def test_a_network_of_one_thread_serves_one_at_a_time() -> None:
    people = People(Turns(threads=1, guests_abreast=True))
    for name in ("guest 1", "guest 2", "guest 3"):
        people.come(name)
    people.go("guest 1")
    until(lambda: people.inside == {"guest 2": True})
    people.go("guest 2")
    until(lambda: people.inside == {"guest 3": True})
    people.close()


def test_never_more_than_all_cores_also_after_a_failure() -> None:
    turns, cores, most, lock = Turns(threads=2, guests_abreast=True), 0, 0, threading.Lock()
    ways = {"line": turns.line, "ahead": turns.ahead, "guest": turns.guest}

    def use(kind: str) -> None:
        nonlocal cores, most
        for _ in range(200):
            with suppress(ValueError), ways[kind]() as alone:
                mine = 2 if alone else 1
                with lock:
                    cores += mine
                    most = max(most, cores)
                with lock:
                    cores -= mine
                int("no number")

    threads = [threading.Thread(target=use, args=(kind,)) for kind in ("line", "ahead", "ahead", "guest", "guest")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert most == 2
