"""The oracle itself: each promise broken once on purpose, and each excuse no wider than it is meant."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.oracle import FolderFacts, Row, StationFacts, TriggerFacts, judge, judge_folder, judge_triggers
from tests.chaos.proxy import Passed

SHA = "5ha"


def payload(event_id: str, seq: int, verdict: str = "fail", **more: Any) -> bytes:
    document = {"event_id": event_id, "ledger": "L", "seq": seq, "verdict": verdict, "reason": "", "gate": "shown"}
    trigger = {"number": seq}
    return json.dumps({**document, "file": f"{seq}.png", "image": {"sha256": SHA}, "trigger": trigger, **more}).encode()


def facts(**changes: Any) -> StationFacts:
    kept = StationFacts(
        name="line",
        messages=[("a", payload("a", 1)), ("b", payload("b", 2, "pass")), ("a", payload("a", 1))],
        passed=[Passed("a", 9.9, 10.0), Passed("b", 10.9, 11.0)],
        rows=[Row("L", 1, "a", "fail", "1"), Row("L", 2, "b", "pass", "2")],
    )
    return replace(kept, **changes)


def test_where_every_promise_was_kept_nothing_is_broken() -> None:
    assert judge(facts()).broken == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"messages": [("a", payload("a", 1))]}, "the broker acknowledged b, and the subscriber never got it"),
        (
            {"messages": [("a", payload("a", 1))], "passed": [Passed("a", 0.9, 1.0)]},
            "b is on record, and was never delivered",
        ),
        ({"messages": [*facts().messages, ("a", payload("a", 1, reason="?"))]}, "a came with 2 different payloads"),
        ({"messages": [*facts().messages, ("c", payload("c", 3))]}, "c is in no ledger"),
        ({"passed": [*facts().passed, Passed("c", 0.9, 1.0)]}, "c is in no ledger"),
        ({"rows": [Row("L", 1, "a", "fail", "1"), Row("L", 3, "b", "pass", "2")]}, "has gaps: [2]"),
        ({"rows": [Row("L", 1, "a", "fail", "1"), Row("L", 1, "b", "pass", "2")]}, "one number twice"),
        ({"rows": [Row("L", 1, "a", "pass", "1"), Row("L", 2, "b", "pass", "2")]}, "a is pass in the ledger and fail"),
        ({"messages": [("a", payload("a", 1)), ("b", payload("b", 1, "pass"))]}, "b and a have one number"),
        (
            {"messages": [("a", payload("a", 1)), ("b", payload("b", 2, "pass", ledger="M"))]},
            "a ledger that nobody has",
        ),
    ],
)
def test_each_broken_promise_of_a_station_is_named(changes: dict[str, Any], words: str) -> None:
    assert any(words in one for one in judge(facts(**changes)).broken), judge(facts(**changes)).broken


def test_a_forgetful_broker_excuses_what_it_had_acknowledged_then_and_nothing_else() -> None:
    lost = facts(messages=[("a", payload("a", 1))])
    assert judge(replace(lost, lossy=[(10.5, 11.5)])).broken == []
    assert judge(replace(lost, lossy=[(11.5, 12.0)])).broken != []
    stalled = replace(lost, passed=[Passed("a", 9.9, 10.0), Passed("b", 11.0, 15.0)])
    assert judge(replace(stalled, lossy=[(11.5, 12.0)])).broken == [], "the broker said it before it forgot"
    assert judge(replace(stalled, lossy=[(9.0, 10.5)])).broken != []
    never_sent = replace(lost, passed=[Passed("a", 9.9, 10.0)], lossy=[(0.0, 99.0)])
    assert judge(never_sent).broken != []


def test_a_damaged_ledger_excuses_the_boards_at_its_end_and_nothing_else() -> None:
    lost = facts(rows=[Row("L", 1, "a", "fail", "1")])
    assert judge(replace(lost, forgotten={"b": "2"})).broken == []
    assert judge(replace(lost, forgotten={"a": "1"})).broken != []
    assert judge(replace(lost, known={"b"})).broken == []
    assert judge(replace(lost, known={"a"})).broken != []


def in_folder(**changes: Any) -> list[str]:
    of_station = facts(messages=[("a", payload("a", 1, changes.pop("verdict", "fail"), **changes.pop("event", {})))])
    folder = FolderFacts(dropped={SHA: ("1.png", "fail")}, places={SHA: ["done"]})
    return judge_folder(of_station, replace(folder, **changes), set())


def test_a_folder_is_judged_by_each_file() -> None:
    assert in_folder() == []
    assert "1.png lies in no folder" in in_folder(places={})
    assert "1.png lies in ['done', 'failed']" in in_folder(places={SHA: ["done", "failed"]})
    assert "1.png lies in ['processing']" in in_folder(places={SHA: ["processing"]})
    assert "1.png passed, and fail was due" in in_folder(verdict="pass")
    assert "1.png is unknown, and fail was due (dark)" in in_folder(verdict="unknown", event={"reason": "dark"})
    assert in_folder(verdict="unknown", event={"reason": "the station ended 3 times during this file"}) == []
    assert "2.png has no event" in in_folder(
        dropped={SHA: ("1.png", "fail"), "o": ("2.png", "fail")}, places={SHA: ["done"], "o": ["done"]}
    )
    assert "an event of 1.png, which nobody dropped" in in_folder(dropped={}, places={})


def test_a_file_with_two_events_is_broken() -> None:
    twice = facts(messages=[("a", payload("a", 1)), ("b", payload("b", 2, file="1.png"))])
    folder = FolderFacts(dropped={SHA: ("1.png", "fail")}, places={SHA: ["done"]})
    assert "1.png has several events: ['a', 'b']" in judge_folder(twice, folder, set())


def test_a_board_whose_record_was_damaged_is_unknown_whatever_was_said_and_nothing_else() -> None:
    line = TriggerFacts(sent=2, said=[("P", 1, 5.0), ("P", 2, 6.0)], seen=2, closed=2, unseen=set())
    unknown = payload("a", 1, "unknown", gate="late")
    lost = facts(messages=[("a", unknown), ("b", payload("b", 2, "pass"))])
    assert judge_triggers(lost, line, set()) != []
    assert judge_triggers(replace(lost, forgotten={"a": "1"}), line, set()) == []
    assert judge_triggers(replace(facts(), forgotten={"a": "1"}), line, set()) != [], "a FAIL for a PASS that was said"


SAID = [("F", 1, 5.0), ("P", 2, 6.0)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"said": [*SAID, ("P", 2, 7.0)]}, "trigger 2 was answered 2 times"),
        ({"said": [*SAID, ("P", 3, 7.0)]}, "P3 was said, and there is no event of it"),
        ({"said": [("P", 1, 5.0)]}, "P1 was said, and its event is fail"),
        ({"said": [("F", 2, 5.0)]}, "F2 was said, and its event is pass"),
        ({"unseen": {2}}, "trigger 2 passed or failed unseen"),
        ({"closed": 1}, "2 triggers were heard and 1 are closed"),
        ({"sent": 1}, "2 triggers were heard and only 1 sent"),
        ({"said": [*SAID, ("U", 3, 7.0)]}, "U3 was said, and there is no event of it"),
        ({"said": [*SAID, ("U", 3, 7.0)], "unwritten": [(6.5, 7.5)]}, None),
        ({"said": [*SAID, ("P", 3, 7.0)], "unwritten": [(6.5, 7.5)]}, "P3 was said, and there is no event of it"),
        ({"said": [*SAID, ("U", 3, 8.0)], "unwritten": [(6.5, 7.5)]}, "U3 was said, and there is no event of it"),
    ],
)
def test_a_triggered_line_is_judged_by_each_answer(changes: dict[str, Any], words: str | None) -> None:
    line = TriggerFacts(sent=2, said=SAID, seen=2, closed=2, unseen=set())
    broken = judge_triggers(facts(), replace(line, **changes), set())
    assert (broken == []) if words is None else any(words in one for one in broken), broken
