"""Commands from outside: nothing that was not allowed, and an answer that says why."""

from __future__ import annotations

import json
import threading
from queue import Queue
from typing import Any

import pytest

from station.errors import CommandError
from station.remote import MAX_BYTES, Command, Commands
from station.triggers import Reply
from station.types import Answer, Verdict
from tests.waiting import until


class Desk:
    """Everything is allowed, and remembered."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []
        self.pulled: list[tuple[int | None, str | None, Reply]] = []
        self.recipes: list[str] = []
        self.flooded = False
        self.all = Commands(trigger=self._trigger, recipe=self._recipe, challenge=lambda: {"announced": True})

    def _trigger(self, number: int | None, board_serial: str | None, *, reply: Reply) -> object | None:
        if self.flooded:
            return None
        self.pulled.append((number, board_serial, reply))
        return object()

    def _recipe(self, name: str) -> dict[str, str]:
        if name != "board-b":
            raise CommandError(f"no recipe {name}: known are board-b")
        self.recipes.append(name)
        return {"recipe": name}

    def do(self, name: str, payload: bytes, commands: Commands | None = None) -> dict[str, Any]:
        """The one response to a command, or none yet."""
        (commands or self.all).carry_out(Command(name, payload, self.said.append))
        return self.said[-1] if self.said else {}


def test_a_trigger_is_answered_when_its_board_is() -> None:
    desk = Desk()
    assert desk.do("trigger", b'{"number": 17, "board_serial": "SN1"}') == {}
    ((number, serial, reply),) = desk.pulled
    assert (number, serial) == (17, "SN1")
    reply(Answer("id-1", Verdict.FAIL, "short 0.91 >= 0.50"))
    assert desk.said == [
        {
            "command": "trigger",
            "ok": True,
            "event_id": "id-1",
            "number": 17,
            "verdict": "fail",
            "reason": "short 0.91 >= 0.50",
        }
    ]


def test_an_empty_payload_is_a_trigger_without_a_number() -> None:
    desk = Desk()
    desk.do("trigger", b"")
    assert desk.pulled[0][:2] == (None, None)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"17", "JSON object"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 4000, "no JSON"),
        (b'{"\\ud800": 1}', "no JSON"),  # half a surrogate pair: nothing that could be told to anybody
        (b"{}" + b" " * MAX_BYTES, "at most 4096 bytes"),
        (b'{"number": "17"}', "whole number"),
        (b'{"number": true}', "whole number"),
        (b'{"number": -1}', "whole number"),
        (b'{"number": 1e400}', "whole number"),
        (b'{"number": 99999999999999999999}', "whole number"),
        (b'{"board_serial": 5}', "printable"),
        (b'{"board_serial": "a\\nb"}', "printable"),
        (b'{"board_serial": ""}', "printable"),
        (b'{"nummer": 1}', "unknown: nummer; accepted: number, board_serial"),
    ],
)
def test_a_trigger_that_is_not_understood_pulls_nothing_and_says_what_is_accepted(payload: bytes, why: str) -> None:
    desk = Desk()
    response = desk.do("trigger", payload)
    assert desk.pulled == []
    assert response["ok"] is False
    assert why in response["error"]


def test_a_trigger_that_was_not_taken_is_told_at_once() -> None:
    desk = Desk()
    desk.flooded = True
    assert "too many" in desk.do("trigger", b"")["error"]


def test_a_recipe_is_chosen_by_name_and_an_unknown_one_is_refused() -> None:
    desk = Desk()
    assert desk.do("recipe", b'{"name": "board-b"}') == {"command": "recipe", "ok": True, "recipe": "board-b"}
    assert "known are board-b" in desk.do("recipe", b'{"name": "board-x"}')["error"]
    assert '{"name"' in desk.do("recipe", b"{}")["error"]
    assert desk.recipes == ["board-b"]


def test_a_challenge_is_announced() -> None:
    assert Desk().do("challenge", b"")["announced"] is True


@pytest.mark.parametrize("name", ["reboot", ""])
def test_what_is_no_command_is_refused_with_those_that_are(name: str) -> None:
    response = Desk().do(name, b"{}", Commands())
    assert response["ok"] is False
    assert "known are trigger, recipe, challenge" in response["error"]


@pytest.mark.parametrize("name", ["trigger", "recipe", "challenge"])
def test_what_is_not_allowed_is_refused(name: str) -> None:
    response = Desk().do(name, b"{}", Commands())
    assert response["ok"] is False
    assert "[" in response["error"], "it names the key that would allow it"


def test_commands_in_the_queue_are_carried_out_in_their_order() -> None:
    desk, queue, stop = Desk(), Queue[Command](), threading.Event()
    beats: list[str] = []
    for number in range(3):
        queue.put(Command("trigger", json.dumps({"number": number}).encode(), desk.said.append))
    loop = threading.Thread(target=desk.all.run, args=(stop,), kwargs={"queue": queue, "beat": beats.append})
    loop.start()
    until(lambda: len(desk.pulled) == 3 and len(beats) > 4)
    stop.set()
    loop.join(10)
    assert [number for number, _, _ in desk.pulled] == [0, 1, 2]
