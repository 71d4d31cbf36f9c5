"""``station ledger export --dataset``: what people have reviewed, as pictures and labels to train with."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from station.config import Settings
from station.errors import ConfigError
from station.ledger import SqliteLedger
from station.ledger_file import connect_to_read
from station.parts import make_folder
from station.reviews import Review, Reviews
from station.sections import FolderSection
from station.terminal import counted


def export_dataset(settings: Settings, target: Path, *, console: Console) -> int:
    """
    Writes ``images/``, ``labels/`` and ``data.yaml`` (YOLO's layout) into *target*; returns how many boards it took.

    A confirmed FAIL has the defects that failed it as labels; a confirmed PASS and a FAIL that was a false call have
    none. A PASS that was wrong is left out, since nobody has said where its defect is. Raises ConfigError, LedgerError.
    """
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"{target} is not empty: name a new folder")
    path = settings.station.data_dir / "ledger.db"
    connect_to_read(path).close()  # says what to do where there is none
    with closing(SqliteLedger(path)) as ledger:
        reviewed = Reviews(ledger, station=settings.station.name).all()
        events = {one: ledger.event(one) for one in reviewed}
    make_folder(target / "images", "--dataset")
    make_folder(target / "labels", "--dataset")
    left: Counter[str] = Counter()
    boards: list[tuple[dict[str, Any], Path, list[dict[str, Any]]]] = []
    for event_id, review in reviewed.items():
        found = events[event_id]
        event = json.loads(found) if found else None
        defects = None if event is None else labelled(event, review)
        picture = None if event is None else original(settings, event)
        if event is None:
            left["forgotten: their events were deleted after [ledger] keep_days"] += 1
        elif defects is None:
            left["a PASS that was wrong, or UNKNOWN: nobody has said where the defects are"] += 1
        elif picture is None:
            left["no picture: the original is not in done/ any more, or it came from a camera"] += 1
        else:
            boards.append((event, picture, defects))
    names = sorted({one["label"] for _, _, defects in boards for one in defects})
    for event, picture, defects in boards:
        shutil.copyfile(picture, target / "images" / f"{event['event_id']}{picture.suffix}")
        lines = "".join(f"{line}\n" for line in yolo_lines(event, defects, names))
        (target / "labels" / f"{event['event_id']}.txt").write_text(lines, encoding="ascii")
    listed = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(names))
    (target / "data.yaml").write_text(f"path: .\ntrain: images\nval: images\nnames:\n{listed}", encoding="utf-8")
    for why, count in left.items():
        console.print(f"left out: {counted(count, 'board')}, {why}", markup=False)
    return len(boards)


def labelled(event: dict[str, Any], review: Review) -> list[dict[str, Any]] | None:
    """The defects that this board has, as people see it; None: that is not known."""
    match event["verdict"], review.call:
        case "fail", "confirmed":
            return [one for one in event["defects"] if one["counts"]]
        case ("pass", "confirmed") | ("fail", "false"):
            return []
        case _:
            return None


def yolo_lines(event: dict[str, Any], defects: list[dict[str, Any]], names: list[str]) -> Iterator[str]:
    """``class cx cy w h``, as shares of the picture."""
    width, height = event["image"]["width"], event["image"]["height"]
    for one in defects:
        box = one["box"]
        middle = (box["x"] + box["width"] / 2) / width, (box["y"] + box["height"] / 2) / height
        numbers = (*middle, box["width"] / width, box["height"] / height)
        yield " ".join([str(names.index(one["label"])), *(f"{number:.6f}" for number in numbers)])


def original(settings: Settings, event: dict[str, Any]) -> Path | None:
    """The picture as it came, found by its name and known by its checksum."""
    if not isinstance(settings.source, FolderSection) or not event.get("image") or not event["file"]:
        return None
    name = Path(event["file"])
    home = settings.source.path
    places = [home / name, *sorted((home / "done").glob(f"*/{_plain(name.stem)}*{_plain(name.suffix)}"))]
    for one in places:
        if one.is_file() and hashlib.sha256(one.read_bytes()).hexdigest() == event["image"]["sha256"]:
            return one
    return None


def _plain(text: str) -> str:
    """For glob: a board's name may hold its signs."""
    return "".join(f"[{one}]" if one in "*?[" else one for one in text)
