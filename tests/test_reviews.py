"""Reviews are read from the ledger once, by whichever thread comes first."""

from __future__ import annotations

import threading

from station.reviews import Reviews
from station.types import Message


class SlowNotices:
    """Keeps nothing; whoever reads it waits until ``release``."""

    def __init__(self) -> None:
        self.reading, self.release = threading.Event(), threading.Event()

    def notice(self, _message: Message, /) -> bool:
        return True

    def notices(self, _topic: str, /) -> list[bytes]:
        first = not self.reading.is_set()
        self.reading.set()
        if first:
            assert self.release.wait(30)
        return []


def test_a_review_that_comes_while_another_thread_still_reads_is_not_forgotten() -> None:
    notices = SlowNotices()
    reviews = Reviews(notices, station="aoi-1")
    reader = threading.Thread(target=reviews.all)
    reader.start()
    assert notices.reading.wait(30)
    person = threading.Thread(
        target=lambda: reviews.add("board-1", verdict="fail", call="false", by=None, note="a hair on the lens")
    )
    person.start()
    person.join(0.2)  # it ends at once if it does not wait for the reader, which is what went wrong
    notices.release.set()
    reader.join(30)
    person.join(30)
    said = reviews.of("board-1")
    assert said is not None
    assert said.call == "false"
