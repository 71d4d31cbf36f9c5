"""What comes from elsewhere is shown, and never carried out."""

from __future__ import annotations

import json

import pytest

from station.commands.watch import line_of
from station.terminal import counted, shown


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("board 7 äöü 日本.jpg", "board 7 äöü 日本.jpg"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b]0;title\x07\x9b2J", r"\x1b]0;title\x07\x9b2J"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("\udcff", r"\udcff"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_carry_out_is_made_visible(text: str, seen: str) -> None:
    assert shown(text) == seen


def test_one_is_not_a_plural() -> None:
    assert [counted(count, "event") for count in (0, 1, 2)] == ["0 events", "1 event", "2 events"]


EVIL = "x\x1b[2J\ny"


@pytest.mark.parametrize(
    ("below", "document"),
    [
        (f"inspection/{EVIL}", {"seq": EVIL, "file": EVIL, "board_serial": None, "reason": EVIL}),
        ("state", {"state": EVIL, "why": EVIL}),
        ("heartbeat", {"owed": {"events": EVIL}, "faults": [{"code": EVIL}], "backlog": EVIL, "last_seq": EVIL}),
        ("fault", {"what": EVIL, "code": EVIL, "detail": EVIL}),
        (EVIL, {"any": EVIL}),
        ("state", [EVIL]),
        ("fault", 7),
    ],
)
def test_watch_shows_any_message_as_one_harmless_line(below: str, document: object) -> None:
    for payload in (json.dumps(document), str(document), "\x1b\xff"):
        assert str(line_of(below, payload.encode("latin-1", "replace"))).isprintable()
