"""What texts to and from a PLC can look like: a PASS is like nothing else, and an acknowledgement like no trigger."""

from __future__ import annotations

import pytest

from station.line_texts import TRIGGERS, can_be_equal, could_trigger, pattern_of


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("P{number}", "F{number}", False),
        ("P{number}", "P{number}", True),
        ("P{number}", "P1{number}", True),
        ("P{number}", "P0{number}0", True),
        ("{number}", "{number}1", True),
        ("{number}P", "{number}F", False),
        ("{number}-{number}P", "{number}P", False),
        ("P{number}", "P", True),
        ("P{number}", "P{serial}", False),
        ("{serial},PASS", "{serial},FAIL,{reason}", False),
        ("P{number}{{}}", "P{number}{{}}", True),
        ("{number}" * 20, "{number}" * 20 + "x", False),
    ],
)
def test_two_texts_are_compared_whatever_their_numbers(one: str, other: str, equal: bool) -> None:
    assert can_be_equal(one, other) is equal
    assert can_be_equal(other, one) is equal


@pytest.mark.parametrize(
    ("text", "is_like", "is_not_like"),
    [
        ("{number}", ["", "17"], ["T17", "A17", "17 "]),
        ("A{number}", ["A", "A17"], ["ABC-1", "a17"]),
        ("{verdict}.", ["PASS.", "UNKNOWN."], ["OK.", "PASSx"]),
        ("({serial})", ["()", "(SN 1)"], ["SN1", "(\x02)"]),
        ("A{number:0>5}", ["A00017"], ["B00017"]),
        ("A{{{number}}}", ["A{17}"], ["A17"]),
    ],
)
def test_a_text_is_a_pattern_of_what_it_becomes(text: str, is_like: list[str], is_not_like: list[str]) -> None:
    pattern = pattern_of(text)
    assert [one for one in [*is_like, *is_not_like] if pattern.fullmatch(one)] == is_like


@pytest.mark.parametrize(
    ("text", "pattern", "line"),
    [
        ("A{number}", TRIGGERS["plain"], None),
        ("{number}", TRIGGERS["plain"], None),
        ("T{number}", TRIGGERS["plain"], "T"),
        ("{serial}", TRIGGERS["plain"], "T1"),
        ("T{number}", TRIGGERS["keyence"], "T1"),
        ("SE{number}", TRIGGERS["cognex"], "SE8"),
        ("{number}", "[0-9]{5}", "11111"),
        ("{verdict}", "PASS", "PASS"),
    ],
)
def test_an_acknowledgement_that_could_be_a_trigger_is_found(text: str, pattern: str, line: str | None) -> None:
    assert could_trigger(text, pattern) == line
