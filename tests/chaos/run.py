"""Torments two stations and a broker for a while, then asks the oracle."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.faults import BrokerFaults, StationFaults, Torment
from tests.chaos.lines import FolderLine, Line, TriggeredLine
from tests.chaos.oracle import judge, judge_folder, judge_triggers
from tests.daemon import PATIENCE_S, lasting_broker
from tests.waiting import until

SETTLE_S = 4 * PATIENCE_S
MOST = 5  # so many times the minutes are given to the faults that have not struck yet


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it; *broken* promises in words, none is the wish."""

    seed: int
    boards: dict[str, int]
    events: dict[str, int]
    messages: dict[str, int]
    lost: dict[str, int]
    tried: Counter[str]
    struck: Counter[str]
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"seed {self.seed}"]
        for name, boards in self.boards.items():
            lines.append(
                f"{name}: {boards} boards, {self.events[name]} events in {self.messages[name]} messages, "
                f"{self.lost[name]} lost by the broker or the disk"
            )
        lines += [f"  {name:38} {self.struck[name]:4} of {self.tried[name]:4}" for name in sorted(self.tried)]
        lines += [f"BROKEN: {one}" for one in self.broken] or ["every promise was kept"]
        return "\n".join(lines)


def run(folder: Path, *, minutes: float, seed: int, say: Callable[[str], None] = lambda _text: None) -> Outcome:
    """Raises AssertionError where it does not even come to an end."""
    dice = random.Random(seed)  # noqa: S311  # a replay, no secret
    with ExitStack() as stack:
        broker = stack.enter_context(lasting_broker(folder / "broker"))
        lines: list[Line] = []
        for kind in (FolderLine, TriggeredLine):
            chance = random.Random(dice.random())  # noqa: S311  # see above
            lines.append(stack.enter_context(kind(folder / kind.topic.rpartition("/")[2], broker.port, chance=chance)))
        shared = BrokerFaults(broker, lines, chance=random.Random(dice.random()))  # noqa: S311  # see above
        torments = [Torment(shared.menu(), chance=shared.chance)]
        for line in lines:
            faults = StationFaults(line, chance=random.Random(dice.random()))  # noqa: S311  # see above
            torments.append(Torment(faults.menu(), chance=faults.chance))
        for line in lines:
            line.begin()
        _torment(torments, minutes=minutes, say=say)
        for line in lines:
            line.finish()
        return _judged(seed, lines, torments, shared.lossy)


def _torment(torments: list[Torment], *, minutes: float, say: Callable[[str], None]) -> None:
    """One thread for each victim, so that faults meet each other."""
    end_s, most_s = time.monotonic() + 60 * minutes, time.monotonic() + 60 * minutes * MOST
    troubles: list[BaseException] = []

    def goes_on() -> bool:
        now_s = time.monotonic()
        return not troubles and now_s < most_s and (now_s < end_s or not all(one.complete() for one in torments))

    def torment(one: Torment, pause_s: float) -> None:
        try:
            while goes_on():
                one.strike()
                time.sleep(pause_s)
        except BaseException as error:
            troubles.append(error)
            raise

    # The broker is everybody's: it is left in peace longer.
    threads = [
        threading.Thread(target=torment, args=(one, 4.0 if number == 0 else 0.5), name=f"torment {number}")
        for number, one in enumerate(torments)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(30.0)
            say(f"{sum(one.struck.total() for one in torments)} faults struck")
    if troubles:
        raise AssertionError(f"a fault did not heal: {troubles[0]}") from troubles[0]


def _judged(seed: int, lines: list[Line], torments: list[Torment], lossy: list[tuple[float, float]]) -> Outcome:
    outcome = Outcome(seed, {}, {}, {}, {}, Counter(), Counter())
    for line in lines:
        _fresh_board(line)
        facts = line.facts(lossy=lossy)
        verdict = judge(facts)
        match line:
            case FolderLine():
                more = judge_folder(facts, line.folder_facts(), verdict.excused)
            case TriggeredLine():
                more = judge_triggers(facts, line.trigger_facts(), verdict.excused)
            case _:
                raise AssertionError(line)
        name = line.topic.rpartition("/")[2]
        outcome.boards[name] = line.boards
        outcome.events[name] = len({event_id for event_id, _ in facts.messages})
        outcome.messages[name] = len(facts.messages)
        outcome.lost[name] = line.missing(facts)
        outcome.broken.extend(f"{name}: {one}" for one in [*verdict.broken, *more])
        if (code := line.station.stop()) != 0:
            outcome.broken.append(f"{name}: it stopped with exit code {code}")
    for torment in torments:
        outcome.tried.update(torment.tried)
        outcome.struck.update(torment.struck)
        outcome.broken.extend(f"the fault never struck: {name}" for name in torment.names if not torment.struck[name])
    return outcome


def _fresh_board(line: Line) -> None:
    """All that is owed is delivered, the books are balanced, and one more board flows from end to end."""
    until(line.station.ready, within_s=PATIENCE_S, what=f"{line.topic} to be ready")
    until(line.idle, within_s=SETTLE_S, what=f"{line.topic} to be done with its boards")
    until(lambda: line.owed() == 0, within_s=SETTLE_S, what=f"{line.topic} to owe nothing")
    before = len(line.rows())
    line.boards += 1
    line.produce(line.boards)
    until(lambda: len(line.rows()) > before, within_s=PATIENCE_S, what=f"a fresh board on {line.topic}")
    until(line.idle, within_s=PATIENCE_S, what=f"{line.topic} to be done with its boards")
    until(lambda: line.owed() == 0, within_s=PATIENCE_S, what=f"{line.topic} to owe nothing")
    newest = max((row for row in line.rows() if row.current), key=lambda row: row.seq)
    until(
        lambda: newest.event_id in {one.document["event_id"] for one in line.subscriber.below("inspection")},
        within_s=PATIENCE_S,
        what=f"the event of a fresh board on {line.topic}",
    )
