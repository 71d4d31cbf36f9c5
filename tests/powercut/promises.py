"""What must hold of every disk that a power cut can leave: the product's own code opens it, and nothing is missing."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from station.ledger import open_ledger
from station.trigger_journal import open_journal
from tests.packets import PUBLISH, QOS_1, body_of, event_id_of, packet_length, published
from tests.powercut.disk import Op, State

INBOX, DATA = "inbox", "data"


@dataclass(slots=True)
class Said:
    """What the outside had heard by a moment: events by their ids, and answers at the gate."""

    events: dict[str, bytes] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)


def said_by(ops: list[Op]) -> list[Said]:
    """For each moment (0: before the first op) what had been said by then. The lists are shared: do not change them."""
    streams: dict[int, bytearray] = {}
    now = Said()
    found = [now]
    for op in ops:
        if op.kind == "s" and op.path == "socket":
            if op.data[:1] == b"\x10" and b"MQTT" in op.data[:12]:  # a connection begins; else it speaks HTTP
                streams[op.at] = bytearray()
            elif op.data.startswith(b"HTTP/"):
                streams.pop(op.at, None)
            if op.at not in streams:
                found.append(now)
                continue
            streams[op.at] += op.data
            fresh = dict(_events(streams[op.at]))
            if fresh:
                now = Said({**now.events, **fresh}, now.answers)
        elif op.kind == "s":
            lines = [one for one in op.data.decode("latin-1").split("\r") if one[:1] == "P" and one[1:].isdigit()]
            if lines:
                now = Said(now.events, [*now.answers, *lines])
        found.append(now)
    return found


def _events(stream: bytearray) -> list[tuple[str, bytes]]:
    """The events at the start of *stream*, which are taken away from it. What is no MQTT is dropped."""
    found: list[tuple[str, bytes]] = []
    while (length := packet_length(stream)) is not None and len(stream) >= length:
        packet = bytes(stream[:length])
        del stream[:length]
        if packet[0] & 0xF0 == PUBLISH and packet[0] & 0x06 == QOS_1:
            _, payload = published(body_of(packet), properties=True)
            event_id = event_id_of(payload)
            if event_id is not None:
                found.append((event_id, payload))
    return found


@dataclass(frozen=True, slots=True)
class Kept:
    """What the product finds in a ledger: the messages of each board (whatever their state), and each one's row."""

    damage: str
    messages: dict[str, list[bytes]]
    verdicts: dict[str, str]
    files: dict[str, str]


class Judge:
    """Opens what is left with the product's own code, in *folder*; equal ledgers are opened once."""

    def __init__(self, folder: Path, boards: dict[str, str], final: dict[str, bytes]) -> None:
        self._folder = folder
        self._boards = boards  # names by the sha256 of their bytes
        self._final = final  # what lay there when the run was over
        self._known: dict[str, Kept] = {}
        self.ledgers = 0

    def broken(self, state: State, said: Said) -> list[str]:
        """The promises that this state breaks, in words."""
        lies = state.disk.lies()
        kept = self._ledger(lies)
        broken = [f"the ledger is damaged: {kept.damage}"] if kept.damage else []
        for event_id, payload in said.events.items():
            if payload not in kept.messages.get(event_id, []):
                broken.append(f"{event_id} was sent, and is not on record as it was sent")
        broken += [f"{one} has {len(texts)} messages" for one, texts in kept.messages.items() if len(texts) != 1]
        passed = {str(_number(texts[0])) for one, texts in kept.messages.items() if kept.verdicts.get(one) == "pass"}
        broken += [f"{one} was said, and no such pass is on record" for one in said.answers if one[1:] not in passed]
        broken += self._files(lies, kept)
        for texts in kept.messages.values():
            evidence = (json.loads(texts[0]).get("image") or {}).get("evidence")
            name = f"{DATA}/evidence/{evidence}"
            if evidence is not None and lies.get(name) != self._final.get(name):
                broken.append(f"an event names the picture {evidence}, which is not whole")
        return broken

    def _files(self, lies: dict[str, bytes], kept: Kept) -> list[str]:
        broken = []
        places: dict[str, list[str]] = {digest: [] for digest in self._boards}
        for name, data in lies.items():
            digest = sha256(data).hexdigest()
            if name.startswith(f"{INBOX}/") and digest in places:
                places[digest].append(name)
        on_record = set(kept.files.values())
        for digest, where in places.items():
            board = self._boards[digest]
            if len(where) != 1:
                broken.append(f"{board} lies in {where or 'no place'}")
                continue
            folder = where[0].split("/")[1]
            if folder in {"done", "failed"} and board not in on_record:
                broken.append(f"{board} lies in {folder}, and no ledger knows it")
            if folder == "failed" and not lies.get(f"{where[0]}.reason.txt"):
                broken.append(f"{board} lies in failed, without the reason")
        return broken

    def _ledger(self, lies: dict[str, bytes]) -> Kept:
        own = {name: data for name, data in lies.items() if name.startswith(f"{DATA}/") and ".db" in name}
        own = {name: data for name, data in own.items() if not name.endswith("-shm")}  # made anew from the WAL
        digest = sha256(repr(sorted((name, sha256(data).hexdigest()) for name, data in own.items())).encode())
        known = self._known.get(digest.hexdigest())
        if known is None:
            self.ledgers += 1
            known = self._known[digest.hexdigest()] = self._opened(own)
        return known

    def _opened(self, files: dict[str, bytes]) -> Kept:
        folder = self._folder / f"{self.ledgers}"
        (folder / DATA).mkdir(parents=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        opened = open_ledger(folder / DATA / "ledger.db")
        opened.ledger.close()
        damage = opened.damage if opened.quarantined is not None else ""
        if (folder / DATA / "triggers.db").exists():
            journal, put_aside = open_journal(folder / DATA / "triggers.db")
            journal.close()
            damage = damage or ("" if put_aside is None else "the journal of the triggers was put aside")
        with closing(sqlite3.connect(folder / DATA / "ledger.db")) as db:
            rows = db.execute("SELECT event_id, verdict, file FROM inspections").fetchall()
            messages: dict[str, list[bytes]] = {row[0]: [] for row in rows}
            for event_id, payload in db.execute("SELECT event_id, payload FROM outbox WHERE event_id IS NOT NULL"):
                messages.setdefault(event_id, []).append(payload)
        for one in (folder / DATA).iterdir():
            one.unlink()
        return Kept(damage, messages, {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows})


def _number(payload: bytes) -> object:
    trigger = json.loads(payload).get("trigger")
    return None if trigger is None else trigger["number"]
