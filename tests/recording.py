"""Run as a program: records boards into a ledger until it is killed, and says each one only when it is on the disk."""

from __future__ import annotations

import sys
from pathlib import Path

from station.ledger import open_ledger
from station.types import Message
from tests.boards import board, message_of


def main() -> None:
    ledger = open_ledger(Path(sys.argv[1])).ledger
    turn = 0
    while True:
        turn += 1
        inspection = board()
        if turn % 2:
            entry = ledger.record(inspection, message_of(inspection), owed=True)
        else:
            entry = ledger.record(inspection, message_of(inspection, gate="unknown"), owed=False)
            sys.stdout.write(f"{inspection.frame.id} {entry.seq} shown\n")
            sys.stdout.flush()
            ledger.seal(entry, message_of(inspection, gate="shown")(entry))
        if turn % 5 == 0:
            ledger.notice(Message("fault", b"{}"))
        sys.stdout.write(f"{inspection.frame.id} {entry.seq} done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
