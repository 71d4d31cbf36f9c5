"""The line goes first at the network, and loses at most the inference that runs already."""

from __future__ import annotations

import threading
from contextlib import suppress

from station.turns import Turns
from tests.waiting import until


def test_the_line_comes_before_guests_that_waited_longer() -> None:
    turns, order = Turns(), list[str]()
    go, inside = threading.Event(), threading.Event()

    def first() -> None:
        with turns.guest():
            inside.set()
            assert go.wait(30)
            order.append("first")

    def guest(name: str) -> None:
        with turns.guest():
            order.append(name)

    def line() -> None:
        with turns.line():
            order.append("line")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert inside.wait(30)
    threads += [threading.Thread(target=guest, args=(f"guest {number}",)) for number in range(5)]
    for number, thread in enumerate(threads[1:], 1):
        thread.start()
        until(lambda number=number: len(turns._guests) == number)  # type: ignore[misc]  # no type for a default
    threads.append(threading.Thread(target=line))
    threads[-1].start()
    until(lambda: turns.line_waits)
    go.set()
    for thread in threads:
        thread.join(30)
    assert order == ["first", "line", *(f"guest {number}" for number in range(5))], "and guests in their own order"


def test_one_at_a_time_also_after_a_failure() -> None:
    turns, busy, most = Turns(), 0, 0

    def use(kind: str) -> None:
        nonlocal busy, most
        for _ in range(200):
            with suppress(ValueError), turns.line() if kind == "line" else turns.guest():
                busy += 1
                most = max(most, busy)
                busy -= 1
                int("no number")

    threads = [threading.Thread(target=use, args=(kind,)) for kind in ("line", "guest", "guest")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert most == 1
