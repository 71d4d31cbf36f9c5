"""What was promised, checked against what was seen from outside: pure, so that each promise can be broken in a test."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.proxy import Passed

LETTERS = {"P": "pass", "F": "fail", "U": "unknown"}


@dataclass(frozen=True, slots=True)
class Row:
    """
    A board on record; *current*: in the ledger that the station uses, not in one that was put aside.

    *board* is what the producer calls it: the file's name, or the trigger's number.
    """

    ledger: str
    seq: int
    event_id: str
    verdict: str
    board: str
    current: bool = True


@dataclass(frozen=True, slots=True)
class StationFacts:
    """
    What both kinds of line show.

    *messages* are (event id, payload) as a subscriber got them, repeats and all; *passed* are the PUBACKs that reached
    the station. *known* are boards of ledgers that were put aside. In the *lossy* spans the broker forgot what it had
    acknowledged. *forgotten* are the boards, by event id, that were still owed, or just recorded, when somebody damaged
    the end of the ledger: all that it may lack.
    """

    name: str
    messages: list[tuple[str, bytes]]
    passed: list[Passed]
    rows: list[Row]
    known: set[str] = field(default_factory=set)
    lossy: list[tuple[float, float]] = field(default_factory=list)
    forgotten: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """*dropped*: (name, verdict that is due) by the file's sha256; *places*: the folders where it lies at the end."""

    dropped: dict[str, tuple[str, str]]
    places: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class TriggerFacts:
    """
    *said*: (letter, number, when) as the PLC heard it; *unseen*: triggers in front of a covered lens.

    In the *unwritten* spans the disk took nothing, and then the power went: an UNKNOWN of then may be in no book.
    """

    sent: int
    said: list[tuple[str, int, float]]
    seen: int
    closed: int
    unseen: set[int]
    unwritten: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    *broken* promises, in words. *excused*: boards that need not be delivered, because a forgetful broker or a damaged
    disk may have swallowed them; most of them were.
    """

    broken: list[str]
    excused: set[str]


def judge(facts: StationFacts) -> Verdict:
    """Every obligation met, no unknown id, equal payloads, no gap that the ledger does not explain."""
    broken: list[str] = []
    payloads: dict[str, set[bytes]] = defaultdict(set)
    for event_id, payload in facts.messages:
        payloads[event_id].add(payload)
    # A board whose record the damaged disk lost may be judged again, under the id that its file is claimed by.
    changed = [one for one, texts in payloads.items() if len(texts) > 1 and one not in facts.forgotten]
    broken += [f"the event {event_id} came with {len(payloads[event_id])} different payloads" for event_id in changed]

    on_record = {row.event_id: row for row in facts.rows}
    acked = {one.event_id for one in facts.passed}
    swallowed = {
        one.event_id for one in facts.passed if any(since <= one.at_s and one.sent_s <= to for since, to in facts.lossy)
    }
    excused: dict[str, str] = {}
    for event_id in sorted(on_record.keys() | acked):
        if event_id in payloads:
            continue
        if event_id in swallowed or event_id in facts.forgotten:
            excused[event_id] = (
                on_record[event_id].board if event_id in on_record else facts.forgotten.get(event_id, "")
            )
        elif event_id in acked:
            broken.append(f"the broker acknowledged {event_id}, and the subscriber never got it")
        else:
            broken.append(f"the board {event_id} is on record, and was never delivered")
    for event_id in sorted(payloads.keys() | acked):
        if event_id not in on_record and event_id not in facts.forgotten and event_id not in facts.known:
            broken.append(f"the event {event_id} is in no ledger")
    broken += _counting(facts)
    for event_id, texts in payloads.items():
        document = json.loads(next(iter(texts)))
        row = on_record.get(event_id)
        if row is not None and event_id not in facts.forgotten and row.verdict != document["verdict"]:
            broken.append(f"{event_id} is {row.verdict} in the ledger and {document['verdict']} in its event")
    return Verdict(broken, set(excused.values()) | set(facts.forgotten.values()))


def _counting(facts: StationFacts) -> Iterable[str]:
    """Each ledger counts from 1 without gaps, and no two boards have one number."""
    of_ledger: dict[str, list[Row]] = defaultdict(list)
    for row in facts.rows:
        of_ledger[row.ledger].append(row)
    for ledger, rows in of_ledger.items():
        seqs = [row.seq for row in rows]
        if len(set(seqs)) < len(seqs):
            yield f"ledger {ledger} has one number twice"
        if all(row.current for row in rows) and sorted(seqs) != list(range(1, len(seqs) + 1)):
            missing = sorted(set(range(1, max(seqs) + 1)) - set(seqs))
            yield f"ledger {ledger} has gaps: {missing[:10]}"
    numbered: dict[tuple[str, int], str] = {}
    for event_id, payload in dict(facts.messages).items():
        document = json.loads(payload)
        other = numbered.setdefault((document["ledger"], document["seq"]), event_id)
        if other != event_id and not {event_id, other} & facts.forgotten.keys():
            yield f"{event_id} and {other} have one number"
        if document["ledger"] not in of_ledger and event_id not in facts.forgotten:
            yield f"{event_id} names a ledger that nobody has"


def judge_folder(facts: StationFacts, folder: FolderFacts, excused: set[str]) -> list[str]:
    """Each file is one board with one event and the verdict that is due, and lies in one place at the end."""
    broken: list[str] = []
    by_sha: dict[str, set[str]] = defaultdict(set)
    by_name: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event_id, document in _documents(facts).items():
        if document["image"] is not None:
            by_sha[document["image"]["sha256"]].add(event_id)
        by_name[document["file"]].append(document)
    for sha256, (name, due) in folder.dropped.items():
        places = folder.places.get(sha256, [])
        if len(places) != 1 or places[0] not in {"done", "failed"}:
            broken.append(f"{name} lies in {places or 'no folder'}")
        documents = by_name[name]
        if not documents:
            if name not in excused:
                broken.append(f"{name} has no event")
            continue
        if len({one["event_id"] for one in documents}) > 1:
            broken.append(f"{name} has several events: {[one['event_id'] for one in documents]}")
        verdict = documents[0]["verdict"]
        if verdict == "pass" and due != "pass":
            broken.append(f"{name} passed, and {due} was due")
        elif verdict != due and not _given_up(documents[0]):
            broken.append(f"{name} is {verdict}, and {due} was due ({documents[0]['reason']})")
    strangers = by_name.keys() - {name for name, _ in folder.dropped.values()}
    broken += [f"an event of {name}, which nobody dropped" for name in strangers]
    return broken


def judge_triggers(facts: StationFacts, line: TriggerFacts, excused: set[str]) -> list[str]:
    """Each trigger at most one answer, each answer on record with the same verdict, nothing unseen passes, balance."""
    broken: list[str] = []
    for number, times in Counter(number for _, number, _ in line.said).items():
        if times > 1:
            broken.append(f"trigger {number} was answered {times} times")
    by_number: dict[int, dict[str, Any]] = {}
    for document in _documents(facts).values():
        number = int(document["trigger"]["number"])
        if number in by_number:
            broken.append(f"trigger {number} has two events")
        by_number[number] = document
    for letter, number, at_s in line.said:
        event = by_number.get(number)
        if event is None:
            unwritten = letter == "U" and any(a <= at_s <= b for a, b in line.unwritten)
            if str(number) not in excused and not unwritten:
                broken.append(f"{letter}{number} was said, and there is no event of it")
        elif event["event_id"] in facts.forgotten and event["verdict"] == "unknown":
            continue  # its record was damaged: what the station makes of its journal is UNKNOWN, and says why
        elif letter == "P" and event["verdict"] != "pass":
            broken.append(f"P{number} was said, and its event is {event['verdict']} ({event['reason']})")
        elif event["gate"] in {"shown", "late"} and event["verdict"] != LETTERS[letter]:
            broken.append(f"{letter}{number} was said, and its event is {event['verdict']}, {event['gate']}")
    broken += [
        f"trigger {number} passed or failed unseen"
        for number in line.unseen & by_number.keys()
        if by_number[number]["verdict"] != "unknown"
    ]
    if line.seen != line.closed:
        broken.append(f"{line.seen} triggers were heard and {line.closed} are closed")
    if line.seen > line.sent:
        broken.append(f"{line.seen} triggers were heard and only {line.sent} sent")
    return broken


def _documents(facts: StationFacts) -> dict[str, dict[str, Any]]:
    return {event_id: json.loads(payload) for event_id, payload in facts.messages}


def _given_up(document: dict[str, Any]) -> bool:
    """It was in flight in too many crashes: an honest UNKNOWN."""
    return document["verdict"] == "unknown" and "the station ended" in document["reason"]
