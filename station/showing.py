"""What the operator's page shows: the day, the last boards, and how the station is; one document, made at a moment."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from station.drawing import drawn
from station.events import utc_text
from station.heartbeat import Vitals, fault_document, today_document
from station.ledger_read import Board
from station.reviews import Review, Reviews
from station.types import Image, Inspection

BOARDS = 12  # thumbnails
TREND_BOARDS = 240
TREND_BARS = 24
PARETO_BOARDS = 200
REMEMBERED = 1000


class Boards(Protocol):
    """The boards on record (``ledger.SqliteLedger``). Raises LedgerError."""

    def page(self, *, limit: int, before_seq: int | None = None, verdict: str | None = None) -> list[Board]: ...

    def event(self, event_id: str, /) -> bytes | None: ...

    def figures(self, *, since_s: float, boards: int, failed: int) -> tuple[dict[str, int], list[str], list[bytes]]: ...


@dataclass(frozen=True, slots=True)
class Line:
    """What does not change while the station runs, for the page: how pictures come, and where answers go."""

    source: str
    gate: str
    broker: str


@dataclass(slots=True)
class Showing:
    """
    Makes the page's document. ``saw`` is the line's; all else is for any thread.

    *count* rises whenever there is something new to be shown.
    """

    boards: Boards
    reviews: Reviews
    vitals: Callable[[], Vitals]
    recipe: Callable[[], str]
    line: Line
    count: int = 0
    _last: Inspection | None = None
    _pictures: dict[str, bool] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def saw(self, inspection: Inspection) -> None:
        """Keeps the last board's picture: no evidence is kept of a board that passes."""
        with self._lock:
            self._last = inspection

    def changed(self) -> None:
        self.count += 1

    def last_picture(self, event_id: str) -> Image | None:
        """The last board's picture, drawn, if that is the one."""
        with self._lock:
            last = self._last
        if last is None or last.frame.id != event_id or last.frame.image is None:
            return None
        return drawn(last.frame.image, last.decision)

    def document(self) -> dict[str, Any]:
        """Raises LedgerError."""
        now = self.vitals()
        counts, verdicts, failed = self.boards.figures(
            since_s=now.today.since.timestamp(), boards=TREND_BOARDS, failed=PARETO_BOARDS
        )
        judged = counts.get("pass", 0) + counts.get("fail", 0)
        return {
            "station": now.station,
            "version": now.version,
            "at": now.at,
            "model": now.model,
            "recipe": self.recipe(),
            "ready": now.ready,
            "not_ready": now.not_ready,
            "stalled": list(now.stalled),
            "faults": [fault_document(one) for one in now.faults],
            "today": {
                **today_document(now.today),
                "counts": {one: counts.get(one, 0) for one in ("pass", "fail", "unknown")},
                "yield": None if not judged else round(100 * counts.get("pass", 0) / judged, 1),
            },
            "trend": trend(verdicts),
            "pareto": pareto(failed),
            "source": {"kind": self.line.source, "backlog": now.backlog},
            "gate": self.line.gate,
            "broker": {
                "where": self.line.broker,
                "connected": now.connected,
                "owed": now.owed,
                "oldest_s": round(now.owed_oldest_s),
            },
            "boards": [self.board(one) for one in self.boards.page(limit=BOARDS)],
        }

    def board(self, board: Board) -> dict[str, Any]:
        """One board, as a line of ``/boards``. Raises LedgerError."""
        return {
            "event_id": board.event_id,
            "seq": board.seq,
            "at": utc_text(board.captured_at),
            "verdict": board.verdict,
            "reason": board.reason,
            "file": board.file,
            "board_serial": board.board_serial,
            "delivery": board.delivery,
            "picture": self._has_picture(board),
            "review": review_document(self.reviews.of(board.event_id)),
        }

    def _has_picture(self, board: Board) -> bool:
        with self._lock:
            if self._last is not None and self._last.frame.id == board.event_id:
                return self._last.frame.image is not None
        known = self._pictures.get(board.event_id)
        if known is None:
            found = self.boards.event(board.event_id)
            known = found is not None and bool((json.loads(found).get("image") or {}).get("evidence"))
            if board.delivery != "unsealed":  # until then it is not known
                with self._lock:
                    if len(self._pictures) >= REMEMBERED:
                        del self._pictures[next(iter(self._pictures))]
                    self._pictures[board.event_id] = known
        return known


def review_document(review: Review | None) -> dict[str, Any] | None:
    return None if review is None else {"call": review.call, "at": review.at, "by": review.by, "note": review.note}


def trend(verdicts: list[str]) -> list[dict[str, int]]:
    """*verdicts* (newest first) in bars of ten, oldest first: how many of each."""
    per_bar = TREND_BOARDS // TREND_BARS
    groups = [verdicts[at : at + per_bar] for at in range(0, len(verdicts), per_bar)]
    return [{one: group.count(one) for one in ("pass", "fail", "unknown")} for group in reversed(groups)]


def pareto(failed: list[bytes]) -> list[dict[str, Any]]:
    """How often each label failed a board among *failed* events, most frequent first."""
    counts: Counter[str] = Counter()
    for one in failed:
        counts.update({defect["label"] for defect in json.loads(one)["defects"] if defect["counts"]})
    return [{"label": label, "boards": boards} for label, boards in counts.most_common()]
