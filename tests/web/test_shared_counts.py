"""What several workers count together."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import limits
import pytest
from limits.strategies import SlidingWindowCounterRateLimiter

from station.web.shared_counts import SharedCounts

A_MINUTE = limits.RateLimitItemPerMinute(6)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0  # the beginning of a minute

    def __call__(self) -> float:
        return self.now_s


def limiter(path: Path, clock: Clock) -> SlidingWindowCounterRateLimiter:
    return SlidingWindowCounterRateLimiter(SharedCounts(path, now=clock))


def hits(path: Path, times: int) -> int:
    """In a process of its own, by a clock that stands."""
    counts = SharedCounts(path, now=Clock())
    mine = SlidingWindowCounterRateLimiter(counts)
    with ThreadPoolExecutor(3) as threads:
        taken = sum(threads.map(lambda _: mine.hit(A_MINUTE, "key"), range(times)))
    counts.close()
    return taken


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "requests.counts"


def test_two_workers_count_one_caller_together_and_others_apart(path: Path) -> None:
    one, other = limiter(path, Clock()), limiter(path, Clock())
    assert [worker.hit(A_MINUTE, "key") for worker in [one, other] * 4] == [True] * 6 + [False] * 2
    assert other.hit(A_MINUTE, "another")


def test_a_minute_later_half_of_the_last_one_still_counts_and_after_two_nothing_does(path: Path) -> None:
    clock = Clock()
    mine = limiter(path, clock)
    assert sum(mine.hit(A_MINUTE, "key") for _ in range(9)) == 6
    assert mine.get_window_stats(A_MINUTE, "key").remaining == 0
    clock.now_s += 90
    assert sum(mine.hit(A_MINUTE, "key") for _ in range(9)) == 3
    clock.now_s += 180
    assert sum(mine.hit(A_MINUTE, "key") for _ in range(9)) == 6


def test_what_is_over_is_not_kept(path: Path) -> None:
    clock = Clock()
    counts = SharedCounts(path, now=clock)
    mine = SlidingWindowCounterRateLimiter(counts)
    for number in range(100):
        mine.hit(A_MINUTE, f"10.0.0.{number}")
    clock.now_s += 200
    mine.hit(A_MINUTE, "10.0.1.1")
    assert counts.reset() == 1


def test_however_many_ask_at_once_no_more_than_the_limit_is_let_in(path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as processes:
        assert sum(processes.map(hits, [path] * 3, [40] * 3)) == 6
