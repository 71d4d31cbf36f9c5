"""Commands from outside, by MQTT or HTTP: one small JSON document in, one out, and nothing that was not allowed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Any, Protocol

import structlog

from station.errors import CommandError, StationError
from station.triggers import Reply
from station.types import Answer, Beat, Stop

log = structlog.get_logger(__name__)

MAX_BYTES = 4096
MAX_SERIAL = 128
NAMES = ("trigger", "recipe", "challenge")

Respond = Callable[[dict[str, Any]], None]
"""Where the answer to one command goes. It may be called at once or later, from another thread, and never raises."""


@dataclass(frozen=True, slots=True)
class Command:
    """What arrived, not looked at yet: *payload* is the sender's."""

    name: str
    payload: bytes
    respond: Respond


class TakeTrigger(Protocol):
    """Takes a trigger (``triggers.Triggers.arrived``); None: it was not taken."""

    def __call__(self, number: int | None, board_serial: str | None, *, reply: Reply) -> object | None: ...


class Commands:
    """
    Carries out commands. Each gets one response: ``{"command", "ok", …}``, with ``error`` where ok is false.

    *trigger*, *recipe* (its name) and *challenge* are what is allowed; None: it is not, and the response says so.
    *recipe* and *challenge* return what to tell, and raise a StationError that says what would be accepted.
    """

    def __init__(
        self,
        *,
        trigger: TakeTrigger | None = None,
        recipe: Callable[[str], Mapping[str, Any]] | None = None,
        challenge: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self._trigger = trigger
        self._recipe = recipe
        self._challenge = challenge

    def run(self, stop: Stop, *, queue: Queue[Command], beat: Beat) -> None:
        """Carries out what arrives in *queue*, one after the other, until *stop*."""
        while not stop.is_set():
            beat("commands")
            try:
                command = queue.get(timeout=0.25)
            except Empty:
                continue
            self.carry_out(command)

    def carry_out(self, command: Command) -> None:
        """Does it, and sees to its response. Never raises for what a sender can do."""
        try:
            done = self._do(command)
        except StationError as error:
            log.warning("command refused", command=command.name, reason=str(error))
            command.respond({"command": command.name, "ok": False, "error": str(error)})
        else:
            if done is not None:
                log.info("command carried out", command=command.name, **done)
                command.respond({"command": command.name, "ok": True, **done})

    def _do(self, command: Command) -> Mapping[str, Any] | None:
        """What to tell of it; None: the response comes later."""
        match command.name:
            case "trigger" if self._trigger is not None:
                self._pull(self._trigger, command)
                return None
            case "recipe" if self._recipe is not None:
                name = _document(command.payload, known=("name",)).get("name")
                if not isinstance(name, str):
                    raise CommandError('a recipe is chosen by {"name": "NAME"}')
                return self._recipe(name)
            case "challenge" if self._challenge is not None:
                _document(command.payload, known=())
                return self._challenge()
            case "trigger":
                raise CommandError("triggers come from somewhere else: see [trigger] kind")
            case _ if command.name in NAMES:
                raise CommandError("it is not allowed here: see the commands keys of [mqtt] and [http]")
            case _:
                raise CommandError(f"there is no such command; known are {', '.join(NAMES)}")

    def _pull(self, take: TakeTrigger, command: Command) -> None:
        document = _document(command.payload, known=("number", "board_serial"))
        number, serial = document.get("number"), document.get("board_serial")
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**63):
            raise CommandError("number must be a whole number from 0 on, or left out")
        if serial is not None and not (
            isinstance(serial, str) and 0 < len(serial) <= MAX_SERIAL and serial.isprintable()
        ):
            raise CommandError(f"board_serial must be a printable text of at most {MAX_SERIAL} characters, or left out")

        def reply(answer: Answer) -> None:
            command.respond(
                {
                    "command": command.name,
                    "ok": True,
                    "event_id": answer.event_id,
                    "number": number,
                    "verdict": answer.verdict.value,
                    "reason": answer.reason,
                }
            )

        if take(number, serial, reply=reply) is None:
            raise CommandError("too many triggers wait: this one was not taken")


def _document(payload: bytes, *, known: tuple[str, ...]) -> dict[str, Any]:
    if len(payload) > MAX_BYTES:
        raise CommandError(f"a command has at most {MAX_BYTES} bytes, and this one has more")
    try:
        document = json.loads(payload) if payload.strip() else {}
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair is no text, and not to be answered
    except (ValueError, RecursionError):
        raise CommandError("it is no JSON") from None
    if not isinstance(document, dict):
        raise CommandError("it must be a JSON object, such as {}")
    if unknown := sorted(set(document) - set(known)):
        accepted = ", ".join(known) or "none"
        raise CommandError(f"unknown: {', '.join(unknown)[:100]}; accepted: {accepted}")
    return document
