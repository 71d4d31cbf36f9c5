"""What the texts on the line to a PLC can look like, before anybody has filled in a number or a serial. Pure."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from string import Formatter

# A trigger of each ``[trigger] preset``: a regular expression for the whole line.
TRIGGERS = {"plain": r"T( *(?P<number>[0-9]{1,18}))?", "keyence": r"T[1-4A]", "cognex": r"S[EW]8"}

ANYTHING = "[ -~]*"
LIKE = {"number": "[0-9]*", "verdict": "(PASS|FAIL|UNKNOWN)"}  # what is not here may be anything

# For trying: numbers of every length, each digit for those that have one, and serials that read like triggers.
NUMBERS = ("", *"0123456789", *("1" * digits for digits in range(2, 19)))
SERIALS = ("", "T1", "SE8")
VERDICTS = ("PASS", "FAIL", "UNKNOWN")


def pattern_of(text: str) -> re.Pattern[str]:
    """Matches whatever *text* becomes when its fields are filled in."""
    found = ""
    for literal, field, spec, conversion in Formatter().parse(text):
        found += re.escape(literal)
        if field is not None:
            found += ANYTHING if spec or conversion else LIKE.get(field, ANYTHING)
    return re.compile(found)


def can_be_equal(one: str, other: str) -> bool:
    """
    Whether two texts can become the same line, each with a number of its own, or none.

    Of the other fields each is equal to itself alone: that a serial reads like the rest of a text is not looked for.
    """
    left, right = _parts(one), _parts(other)

    @cache
    def meet(at: int, there: int) -> bool:
        a, b = left[at], right[there]
        if a == b == END:
            return True
        if a == NUMBER and (meet(at + 1, there) or (b.isdigit() and meet(at, there + 1))):
            return True
        if b == NUMBER and (meet(at, there + 1) or (a.isdigit() and meet(at + 1, there))):
            return True
        return a == b and meet(at + 1, there + 1)

    return meet(0, 0)


def could_trigger(text: str, pattern: str) -> str | None:
    """A line that *text* can become and that *pattern* takes for a trigger; None: none was found."""
    for number, serial, verdict in product(NUMBERS, SERIALS, VERDICTS):
        line = text.format(number=number, serial=serial, verdict=verdict, reason="")
        if re.fullmatch(pattern, line):
            return line
    return None


END, NUMBER = "", "{number}"


def _parts(text: str) -> list[str]:
    """Its characters and its fields, and END."""
    found: list[str] = []
    for literal, field, _, _ in Formatter().parse(text):
        found += literal
        if field is not None:
            found.append(f"{{{field}}}")
    return [*found, END]
