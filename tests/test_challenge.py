"""The challenge board: no board passes while the proof is due."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from station.challenge import DUE, FAILED, Announcement, Challenge, Rule
from station.decide import decide, unknown
from station.errors import CommandError
from station.health import Health
from station.types import Box, Decision, Defect, Frame, ModelInfo, Recipe, Trigger, Verdict

MONDAY = datetime(2026, 11, 23, 10, 0).astimezone()
RULE = Rule(frozenset({"BAD-1"}), ("short", "open"))
BOX = Box(0, 0, 10, 10)
CONFIDENT = {"short": 0.91, "open": 0.88, "spur": 0.7}


def found(*labels: str) -> Decision:
    defects = [Defect(label, CONFIDENT[label], BOX, "net") for label in labels]
    return decide(defects, Recipe("default", 0.5))


class Line:
    """A line whose ledger is a list of event ids, at a clock that the test moves."""

    def __init__(self, folder: Path, rule: Rule = RULE) -> None:
        self.folder, self.rule = folder, rule
        self.now = MONDAY
        self.ledger: list[str] = []
        self.model = ModelInfo("net", "m1")
        self.recipe = "r1"
        self.health = Health()
        self.announcement = Announcement()
        self.challenge = self.restarted()

    def restarted(self) -> Challenge:
        self.health = Health()
        self.announcement = Announcement()
        self.challenge = Challenge(
            self.rule,
            kept=self.folder / "default.json",
            announcement=self.announcement,
            boards_after=self._boards_after,
            health=self.health,
            now=lambda: self.now,
        )
        return self.challenge

    def _boards_after(self, event_id: str) -> int | None:
        return len(self.ledger) - 1 - self.ledger.index(event_id) if event_id in self.ledger else None

    def board(self, decision: Decision, *, serial: str | None = None, recorded: bool = True) -> Decision:
        frame = Frame(str(uuid.uuid4()), None, self.now, "camera", board_serial=serial)
        after = self.challenge.judge(frame, decision, model=self.model, recipe_sha256=self.recipe)
        if recorded:
            self.ledger.append(frame.id)
        return after

    def good(self) -> Verdict:
        return self.board(found()).verdict

    def passed(self) -> Decision:
        return self.board(found("short", "open"), serial="BAD-1")

    def faults(self) -> set[str]:
        return {fault.code for fault in self.health.faults()}


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_before_the_first_challenge_no_board_passes_and_bad_ones_still_fail(line: Line) -> None:
    withheld = line.board(found())
    assert withheld.verdict is Verdict.UNKNOWN
    assert withheld.reason.startswith("challenge due: none is on record")
    assert line.board(found("spur")).verdict is Verdict.FAIL
    assert line.board(unknown("too dark")).reason == "too dark"
    assert line.faults() == {DUE}
    (fault,) = line.health.faults()
    assert fault.detail.startswith("a challenge board (serial BAD-1"), "what is waited for"


def test_without_serials_the_fault_says_that_one_is_announced(tmp_path: Path) -> None:
    line = Line(tmp_path, replace(RULE, serials=frozenset()))
    line.good()
    (fault,) = line.health.faults()
    assert fault.detail.startswith("a challenge board (one that the command challenge announces) must be inspected")


def test_a_known_bad_board_that_is_found_bad_lets_boards_pass_again_and_is_itself_rejected(line: Line) -> None:
    line.good()
    proof = line.passed()
    assert (proof.verdict, proof.reason) == (Verdict.FAIL, "challenge passed: short 0.91, open 0.88")
    assert line.good() is Verdict.PASS
    assert line.faults() == set()


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (found("short"), "open not found"),
        (found(), "short, open not found"),
        (unknown("too dark"), "too dark"),
    ],
)
def test_a_known_bad_board_that_is_not_found_bad_is_unknown_and_nothing_passes_after_it(
    line: Line, decision: Decision, words: str
) -> None:
    line.passed()
    failed = line.board(decision, serial="BAD-1")
    assert failed.verdict is Verdict.UNKNOWN
    assert failed.reason == f"challenge failed: {words}"
    assert line.good() is Verdict.UNKNOWN
    assert FAILED in line.faults()
    line.restarted()
    assert line.good() is Verdict.UNKNOWN
    line.passed()
    assert line.good() is Verdict.PASS
    assert line.faults() == set()


def test_an_announced_board_is_the_challenge_once(line: Line) -> None:
    line.announcement.announce()
    assert line.board(found("short", "open")).reason.startswith("challenge passed")
    assert line.board(found("short", "open")).reason.startswith("short")


def test_where_no_recipe_has_a_challenge_none_can_be_announced() -> None:
    """It was answered with ok, and who announced it believed that the station is watched."""
    with pytest.raises(CommandError, match=r"no recipe has a challenge"):
        Announcement().announce()


def test_a_board_that_was_triggered_before_the_announcement_is_not_the_challenge() -> None:
    announcement = Announcement(monotonic=lambda: 100.0)
    announcement.want()
    announcement.announce()

    def frame(at_s: float) -> Frame:
        trigger = Trigger(str(uuid.uuid4()), "serial", MONDAY, at_s, None, None)
        return Frame(trigger.id, None, MONDAY, "camera", trigger=trigger)

    assert [announcement.take(frame(at_s)) for at_s in (99.0, 99.9, 100.1, 100.2)] == [False, False, True, False]


def test_it_is_due_after_so_many_boards(tmp_path: Path) -> None:
    line = Line(tmp_path, Rule(RULE.serials, RULE.expect, every_boards=3))
    line.passed()
    assert [line.good() for _ in range(4)] == [Verdict.PASS] * 3 + [Verdict.UNKNOWN]
    line.passed()
    line.good()
    line.restarted()
    assert [line.good() for _ in range(3)] == [Verdict.PASS] * 2 + [Verdict.UNKNOWN], "the ledger has counted"


def test_it_is_due_at_each_shift_start(tmp_path: Path) -> None:
    line = Line(tmp_path, Rule(RULE.serials, RULE.expect, at=((6, 0), (14, 0))))
    line.passed()
    line.now = MONDAY.replace(hour=13, minute=59)
    assert line.good() is Verdict.PASS
    line.now = MONDAY.replace(hour=14)
    assert "the shift began at 14:00" in line.board(found()).reason
    line.passed()
    assert line.good() is Verdict.PASS
    line.now += timedelta(hours=16)
    assert "06:00" in line.board(found()).reason


@pytest.mark.parametrize(("change", "due"), [(True, Verdict.UNKNOWN), (False, Verdict.PASS)])
def test_another_model_or_recipe_makes_it_due_if_wanted(tmp_path: Path, change: bool, due: Verdict) -> None:
    line = Line(tmp_path, Rule(RULE.serials, RULE.expect, on_change=change))
    line.passed()
    line.model = ModelInfo("net", "m2")
    line.restarted()
    assert line.good() is due
    line.passed()
    line.recipe = "r2"
    assert line.good() is due


def test_a_clock_that_was_set_back_makes_it_due_and_what_is_due_stays_so(tmp_path: Path) -> None:
    line = Line(tmp_path, Rule(RULE.serials, RULE.expect, at=((14, 0),)))
    line.passed()
    line.now = MONDAY.replace(hour=14)
    assert line.good() is Verdict.UNKNOWN
    line.now = MONDAY.replace(hour=13)
    assert line.good() is Verdict.UNKNOWN
    line.restarted()
    assert line.good() is Verdict.UNKNOWN
    line.passed()
    line.now = MONDAY.replace(hour=9)
    assert "set back" in line.board(found()).reason


def test_a_crash_before_the_proof_was_on_record_leaves_it_due(line: Line) -> None:
    line.board(found("short", "open"), serial="BAD-1", recorded=False)
    assert line.good() is Verdict.PASS
    line.restarted()
    assert line.good() is Verdict.UNKNOWN


def test_a_proof_that_cannot_be_kept_is_none(tmp_path: Path) -> None:
    line = Line(tmp_path / "gone")
    failed = line.passed()
    assert failed.verdict is Verdict.UNKNOWN
    assert "cannot be kept" in failed.reason
    assert line.good() is Verdict.UNKNOWN


@pytest.mark.parametrize("text", ["", "{", "[]", '{"passed": 5}', '{"passed": {"at_s": 1}}', '{"due": 7}'])
def test_a_damaged_memory_is_none(line: Line, text: str) -> None:
    line.passed()
    (line.folder / "default.json").write_text(text)
    line.restarted()
    assert line.good() is Verdict.UNKNOWN


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_a_board_passes_only_after_a_proof_that_still_holds(tmp_path: Path, seed: int) -> None:
    """Against a model that is stricter or equal: a PASS needs a recorded proof by this model, and no shift since."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    line = Line(tmp_path, Rule(RULE.serials, RULE.expect, every_boards=5, at=((6, 0), (14, 0))))
    proof: tuple[datetime, str, int] | None = None
    for _ in range(300):
        match chance.randrange(8):
            case 0:
                line.restarted()
            case 1:
                line.now += timedelta(hours=chance.randrange(1, 9))
            case 2:
                line.model = ModelInfo("net", chance.choice(["m1", "m2"]))
            case 3 if line.passed().verdict is Verdict.FAIL:
                proof = (line.now, line.model.sha256, len(line.ledger))
            case 4:
                line.board(found(), serial="BAD-1")
                proof = None
            case _ if line.good() is Verdict.PASS:
                assert proof is not None
                at, model, ledger = proof
                assert model == line.model.sha256
                assert len(line.ledger) - ledger <= 5
                starts = [
                    line.now.replace(hour=hour, minute=0) - timedelta(days=back) for hour in (6, 14) for back in (0, 1)
                ]
                assert not [start for start in starts if at < start <= line.now]
