"""``station ledger export --dataset``: what people have reviewed, as pictures and labels to train with."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from station.config import Settings
from station.errors import ConfigError, ModelError
from station.folders import make_folder
from station.formats import NoImageError, kind_of
from station.judge import build_judge
from station.ledger import SqliteLedger
from station.ledger_file import connect_to_read
from station.reviews import Review, Reviews
from station.sections import FolderSection
from station.sources.names import DONE
from station.terminal import counted, shown

# By what they are: whoever trains finds pictures by their suffix, and an inbox takes them under any.
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "TIFF": ".tif", "WebP": ".webp"}
NOT_TEXT = "\N{REPLACEMENT CHARACTER}"  # in an event's file name: there were bytes that are not UTF-8


def export_dataset(settings: Settings, target: Path, *, console: Console) -> int:
    """
    Writes ``images/``, ``labels/`` and ``data.yaml`` (YOLO's layout) into *target*; returns how many boards it took.

    A confirmed FAIL has the defects that failed it as labels; a confirmed PASS and a FAIL that was a false call have
    none. A PASS that was wrong is left out, since nobody has said where its defect is. Classes have the numbers of the
    configured model. Raises ConfigError, LedgerError, and ModelError where that model cannot be had.
    """
    if target.exists() and any(target.iterdir()):
        raise ConfigError(f"{target} is not empty: name a new folder")
    path = settings.station.data_dir / "ledger.db"
    connect_to_read(path).close()  # says what to do where there is none
    with closing(SqliteLedger(path)) as ledger:
        reviewed = Reviews(ledger, station=settings.station.name).all()
        events = {one: ledger.event(one) for one in reviewed}
    model_labels = _labels(settings)
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
    used = {one["label"] for _, _, defects in boards for one in defects}
    names = [*model_labels, *sorted(used.difference(model_labels))]
    for why, count in left.items():
        console.print(f"left out: {counted(count, 'board')}, {why}", markup=False)
    if not boards:  # no folder either: the next try, when there are some, wants it new
        return 0
    make_folder(target / "images", "--dataset")
    make_folder(target / "labels", "--dataset")
    for event, picture, defects in boards:
        data = picture.read_bytes()
        (target / "images" / f"{event['event_id']}{_suffix(data)}").write_bytes(data)
        lines = "".join(f"{line}\n" for line in yolo_lines(event, defects, names))
        (target / "labels" / f"{event['event_id']}.txt").write_text(lines, encoding="ascii")
    listed = "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(names))
    (target / "data.yaml").write_text(f"path: .\ntrain: images\nval: images\nnames:\n{listed}", encoding="utf-8")
    for number, name in list(enumerate(names))[len(model_labels) :]:
        said = f"class {number}, {shown(name)}: of an earlier model; the configured one does not know it"
        console.print(said, markup=False)
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


def yolo_lines(event: dict[str, Any], defects: list[dict[str, Any]], names: Sequence[str]) -> Iterator[str]:
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
    name, home = Path(event["file"]), settings.source.path
    pattern = "/".join([*map(_plain, name.parent.parts), f"{_plain(name.stem)}*{_plain(name.suffix)}"])
    places = [*home.glob(pattern), *sorted(home.glob(f"{DONE}/*/{pattern}"))]
    for one in places:
        if one.is_file() and hashlib.sha256(one.read_bytes()).hexdigest() == event["image"]["sha256"]:
            return one
    return None


def _labels(settings: Settings) -> tuple[str, ...]:
    """
    The classes in their order: that of the configured model, which an export and a training after it must share.

    An order made of the boards that happen to be there would be another one at the next export.
    """
    try:
        return build_judge(settings).detector.labels
    except ModelError as error:
        raise ModelError(f"{error} (a dataset's classes have the numbers of the configured model)") from None


def _suffix(data: bytes) -> str:
    try:
        return SUFFIXES[kind_of(data)]
    except NoImageError:
        return ""


def _plain(text: str) -> str:
    """For glob: a board's name may hold its signs, and what was not UTF-8 in it may have been any bytes."""
    return "".join(f"[{one}]" if one in "*?[" else "*?" if one == NOT_TEXT else one for one in text)
