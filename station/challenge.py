"""
The challenge board: proof, now and then, that the station still finds what it must find.

While a challenge is due no board passes, until a known-bad board was found bad with the defects that it is known for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog

from station.durable import read_kept, write_kept
from station.errors import CommandError
from station.health import Health
from station.types import Decision, Frame, ModelInfo, Verdict, cut

log = structlog.get_logger(__name__)

CLOCK_S = 60.0  # by which a clock may be set back and mean nothing
DUE, FAILED = "challenge_due", "challenge_failed"


@dataclass(frozen=True, slots=True)
class Rule:
    """
    When it is due, and what passes it.

    *serials* are the known-bad boards, *expect* the labels that each of them must show. Due after *every_boards*
    (0: never), at each of *at* (hour and minute, by the clock on the wall), and with *on_change* when the model or the
    recipe are others than those that passed. Before the first one it is due.
    """

    serials: frozenset[str]
    expect: tuple[str, ...]
    every_boards: int = 0
    at: tuple[tuple[int, int], ...] = ()
    on_change: bool = True

    @property
    def boards(self) -> str:
        """Which boards pass it, in words: the first three of them."""
        if not self.serials:
            return "one that the command challenge announces"
        return f"serial {', '.join(sorted(self.serials)[:3])}{' ...' if len(self.serials) > 3 else ''}"


@dataclass(frozen=True, slots=True)
class Passed:
    """The last challenge that was passed: when (UNIX time), by which board, model and recipe."""

    at_s: float
    event_id: str
    model_sha256: str
    recipe_sha256: str


class Announcement:
    """Somebody said that the next board is the challenge. *monotonic* is the clock of the triggers."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._announced_s: float | None = None
        self._wanted = False

    def want(self) -> None:
        """There is a recipe that has challenges."""
        self._wanted = True

    def announce(self) -> dict[str, Any]:
        """Raises CommandError where no recipe has challenges: who announces one believes that they are on."""
        if not self._wanted:
            raise CommandError("no recipe has a challenge: see challenge of [recipe] and [recipes.NAME]")
        with self._lock:
            self._announced_s = self._monotonic()
        log.info("challenge announced")
        return {"announced": True}

    def take(self, frame: Frame) -> bool:
        """Whether the board of *frame* is it; asked once a board. One that was triggered before that is not."""
        with self._lock:
            since_s = self._announced_s
            if since_s is None or (frame.trigger is not None and frame.trigger.at_s < since_s):
                return False
            self._announced_s = None
        return True


class Challenge:
    """
    The challenges of one recipe. ``judge`` is called from the line's thread, once a board.

    *kept* is the file that proves the last one, and that one is due: both outlive a crash. *boards_after* asks the
    ledger how many boards came after the one of an event id, or None if it does not know that: what is not on record
    was not passed. *now* is local time.
    """

    def __init__(
        self,
        rule: Rule,
        *,
        kept: Path,
        announcement: Announcement,
        boards_after: Callable[[str], int | None],
        health: Health,
        now: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self._rule = rule
        self._kept = kept
        self._announcement = announcement
        announcement.want()
        self._health = health
        self._now = now
        self._boards = 0
        self._passed: Passed | None = None
        document = read_kept(kept)
        self._due: str | None = document.get("due") if isinstance(document.get("due"), str) else None
        try:
            passed = Passed(**document["passed"])
        except (KeyError, TypeError):
            passed = None
        after = boards_after(passed.event_id) if passed is not None else None
        if passed is not None and after is not None:
            self._passed, self._boards = passed, after

    def judge(self, frame: Frame, decision: Decision, *, model: ModelInfo, recipe_sha256: str) -> Decision:
        """What becomes of *decision*: a PASS is withheld while a challenge is due, and from a challenge board."""
        announced = self._announcement.take(frame)
        if announced or frame.board_serial in self._rule.serials:
            return self._challenged(frame, decision, model=model, recipe_sha256=recipe_sha256)
        due = self._why_due(model, recipe_sha256)
        self._boards += 1
        if due is None:
            return decision
        detail = f"a challenge board ({self._rule.boards}) must be inspected: {due}; until then no board passes"
        self._health.begin(DUE, detail)
        if decision.verdict is not Verdict.PASS:
            return decision
        return replace(decision, verdict=Verdict.UNKNOWN, reason=f"challenge due: {due}; it would have been pass")

    def _why_due(self, model: ModelInfo, recipe_sha256: str) -> str | None:
        """Why one is due. Once it is, it stays so until one is passed, whatever the clock does."""
        if self._due is None:
            self._due = self._newly_due(model, recipe_sha256)
            if self._due is not None:
                log.warning("challenge due", reason=self._due)
                self._keep()
        return self._due

    def _newly_due(self, model: ModelInfo, recipe_sha256: str) -> str | None:
        rule, passed = self._rule, self._passed
        if passed is None:
            return "none is on record"
        now = self._now()
        shift = next((one for one in rule.at if passed.at_s < _latest(one, now).timestamp()), None)
        reasons = {
            "the model is another one": rule.on_change and model.sha256 != passed.model_sha256,
            "the recipe is another one": rule.on_change and recipe_sha256 != passed.recipe_sha256,
            f"{self._boards} boards since the last one": rule.every_boards and self._boards >= rule.every_boards,
            "the clock was set back behind the last one": now.timestamp() < passed.at_s - CLOCK_S,
            "the shift began at {:02d}:{:02d}".format(*(shift or (0, 0))): shift is not None,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def _challenged(self, frame: Frame, decision: Decision, *, model: ModelInfo, recipe_sha256: str) -> Decision:
        found = {one.defect.label: one.defect.confidence for one in reversed(decision.defects) if one.counts}
        missing = [label for label in self._rule.expect if label not in found]
        if decision.verdict is not Verdict.FAIL or missing:
            what = f"{', '.join(missing)} not found" if missing else "nothing was found"
            if decision.verdict is Verdict.UNKNOWN:
                what = decision.reason
            return self._failed(decision, what)
        before = (self._passed, self._due, self._boards)
        self._passed = Passed(self._now().timestamp(), frame.id, model.sha256, recipe_sha256)
        self._due, self._boards = None, 0
        if not self._keep():
            self._passed, self._due, self._boards = before
            return self._failed(decision, "it was passed, and that cannot be kept on disk")
        shown = self._rule.expect or tuple(found)
        log.info("challenge passed", event_id=frame.id, found=list(shown))
        for fault in (DUE, FAILED):
            self._health.end(fault)
        told = ", ".join(f"{one} {cut(found[one], 2):.2f}" for one in shown)
        return replace(decision, reason=f"challenge passed: {told}")

    def _failed(self, decision: Decision, what: str) -> Decision:
        """The station does not find what it must find: that is worse than none at all."""
        self._due = self._due or "the last one failed"
        self._keep()
        log.error("challenge failed", reason=what)
        self._health.begin(FAILED, f"the challenge board was not found bad as it should: {what}")
        return replace(decision, verdict=Verdict.UNKNOWN, reason=f"challenge failed: {what}")

    def _keep(self) -> bool:
        passed = self._passed
        document: dict[str, Any] = {"due": self._due}
        if passed is not None:
            document["passed"] = {name: getattr(passed, name) for name in Passed.__slots__}
        try:
            write_kept(self._kept, document)
        except OSError as error:
            log.error("challenge not kept", file=str(self._kept), reason=str(error.strerror))
            return False
        return True


def _latest(at: tuple[int, int], now: datetime) -> datetime:
    """When it was last so late by the clock on the wall."""
    start = now.replace(hour=at[0], minute=at[1], second=0, microsecond=0)
    return start if start <= now else start - timedelta(days=1)
