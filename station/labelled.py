"""
Reads folders of boards whose defects somebody has marked, and has a detector judge them.

``DIR/images`` holds the pictures and ``DIR/labels`` a .txt of the same name for each: YOLO's (``class cx cy w h``,
relative to the picture; docs.ultralytics.com/datasets/detect) or DeepPCB's (``x1 y1 x2 y2 type`` in pixels, types
from 1 on; github.com/tangsanli5201/DeepPCB). A picture without a label file has no defect. ``DIR/data.yaml``, or one
beside DIR (where a data set has its parts in folders of their own), says what YOLO's classes are called; without it
they are numbered as the model numbers its labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from station.class_names import class_names
from station.detectors.metric import Hits, Marked, by_coco50, match
from station.errors import LabelsError, PictureError
from station.picture import DEEP_BITS, read
from station.types import Defect, Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
NAMES = "data.yaml"
HINT = "give a folder with images/ and labels/ (a .txt of the same name for each picture)"


class Layout(Enum):
    """What the five numbers of a label line mean."""

    YOLO = "class cx cy w h"
    DEEPPCB = "x1 y1 x2 y2 type"


@dataclass(frozen=True, slots=True)
class Row:
    """One marked defect: class from 0 on, and two corners, in pixels or as shares of the picture."""

    class_id: int
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class LabelledBoard:
    """
    One board: its name (path below ``images`` without suffix), its picture, and its defects in their layout.

    *names*: what its classes are called; None: as the model's labels, in their order. *depth_bits*: how many of 16 bits
    its picture uses.
    """

    name: str
    picture: Path
    rows: tuple[Row, ...]
    layout: Layout
    names: Mapping[int, str] | None = None
    depth_bits: int = DEEP_BITS

    def marked(self, number: int, *, height_px: int, width_px: int) -> list[Marked]:
        """Its defects as boxes of image *number*, in pixels of a picture of that size."""
        across, down = (width_px, height_px) if self.layout is Layout.YOLO else (1, 1)
        return [Marked(number, r.class_id, r.x1 * across, r.y1 * down, r.x2 * across, r.y2 * down) for r in self.rows]


def read_labelled(
    root: Path, *, split: str = "all", depth_bits: int = DEEP_BITS, unlabelled: bool = False
) -> list[LabelledBoard]:
    """
    The boards of *root* in the order of their names; *split* "all", or a part: ``SPLIT.txt`` or ``images/SPLIT``.

    *unlabelled*: there need not be a label file at all, since good boards alone will do. Raises
    LabelsError for a folder, a split, a label line or a data.yaml that cannot be understood, naming it.
    """
    pictures = _pictures(root, split)
    labels = {name: root / "labels" / f"{name}.txt" for name in pictures}
    lines = {name: _lines(file) for name, file in labels.items() if file.is_file()}
    if not lines and not unlabelled:
        raise LabelsError(f"{root / 'labels'} has no label for any picture of {root / 'images'}: {HINT}")
    layout = _layout(lines, labels)
    names = _names(_names_file(root)) if layout is Layout.YOLO else None
    return [
        LabelledBoard(name, picture, tuple(_row(one, layout) for one in lines.get(name, ())), layout, names, depth_bits)
        for name, picture in pictures.items()
    ]


def load(path: Path, *, depth_bits: int = DEEP_BITS) -> Image:
    """The picture at *path*, H x W x 3 uint8 BGR. Raises LabelsError saying why it cannot be had."""
    try:
        return read(path.read_bytes(), depth_bits=depth_bits)
    except OSError as error:
        raise LabelsError(f"{path} cannot be read: {error.strerror}") from None
    except PictureError as error:
        raise LabelsError(f"{path} is no whole picture: {error}") from None


def as_marked(defects: Sequence[Defect], number: int, labels: Sequence[str]) -> list[Marked]:
    """*defects* found on image *number*, with the index of their label in *labels*; others are left out."""
    kinds = {label: kind for kind, label in enumerate(labels)}
    return [
        Marked(number, kinds[d.label], d.box.x, d.box.y, d.box.x + d.box.width, d.box.y + d.box.height, d.confidence)
        for d in defects
        if d.label in kinds
    ]


def hits_by_label(
    detect: Callable[[Image], list[Defect]],
    boards: Sequence[LabelledBoard],
    labels: Sequence[str],
    *,
    right_by: Callable[[float], bool] = by_coco50,
) -> dict[str, Hits]:
    """
    What *detect* (a detector's) gets right on *boards*, by label.

    Run the detector at a low confidence: what it does not report cannot be weighed. Raises LabelsError for a class that
    *labels* does not have and for a picture that cannot be read; DetectorError is the detector's.
    """
    boards = renumbered(boards, labels)
    found: list[Marked] = []
    truths: list[Marked] = []
    for number, board in enumerate(boards):
        image = load(board.picture, depth_bits=board.depth_bits)
        height_px, width_px = image.shape[:2]
        found += as_marked(detect(image), number, labels)
        truths += board.marked(number, height_px=height_px, width_px=width_px)
    return {label: match(found, truths, class_id=kind, right_by=right_by) for kind, label in enumerate(labels)}


def renumbered(boards: Sequence[LabelledBoard], labels: Sequence[str]) -> list[LabelledBoard]:
    """
    *boards* with classes that are numbered as *labels* are, by their names where they have some.

    Raises LabelsError when one is marked with what *labels* does not have.
    """
    return [replace(board, rows=tuple(_renumbered(one, board, labels) for one in board.rows)) for board in boards]


def _renumbered(row: Row, board: LabelledBoard, labels: Sequence[str]) -> Row:
    known = f"the model knows only {len(labels)} labels ({', '.join(labels)}): these boards are of another model"
    number = row.class_id + (board.layout is Layout.DEEPPCB)
    if board.names is None:
        if row.class_id >= len(labels):
            raise LabelsError(f"{board.name} is labelled with class {number}, but {known}")
        return row
    name = board.names.get(row.class_id)
    if name is None:
        raise LabelsError(f"{board.name} is labelled with class {number}, which {NAMES} does not name")
    if name not in labels:
        what = f"{name} (class {number} of {NAMES})"
        raise LabelsError(f"{board.name} is labelled with {what}, but {known}, or {NAMES} calls it otherwise")
    return replace(row, class_id=list(labels).index(name))


def _names_file(root: Path) -> Path:
    """Where it would be written what the classes of *root* are called: there, or else one level above."""
    own, above = root / NAMES, root.resolve().parent / NAMES
    return own if own.exists() or not above.is_file() else above


def _names(file: Path) -> dict[int, str] | None:
    """What *file* calls the classes; None: it is not there. Raises LabelsError."""
    try:
        return class_names(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LabelsError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise LabelsError(
            f"{file}: what the classes are called is not understood: {error}; write it as names: [open, short], or "
            "move the file away if its classes are numbered as the model's labels"
        ) from None


def _pictures(root: Path, split: str) -> dict[str, Path]:
    """Pictures of *split* by their name below ``images``."""
    images = root / "images"
    if not images.is_dir():
        raise LabelsError(f"{images} is no folder: {HINT}")
    every = {
        path.relative_to(images).with_suffix("").as_posix(): path
        for path in sorted(images.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    }
    if not every:
        raise LabelsError(f"{images} has no picture: {HINT}")
    listed = root / f"{split}.txt"
    if split == "all":
        return every
    if listed.is_file():
        by_stem = {Path(name).name: name for name in every}
        wanted = [Path(one).stem for one in _text(listed).split()]
        if missing := [one for one in wanted if one not in by_stem]:
            raise LabelsError(f"{listed} names {missing[0]}, which is not in {images}")
        return {by_stem[one]: every[by_stem[one]] for one in wanted}
    chosen = {name: path for name, path in every.items() if name.startswith(f"{split}/")}
    if not chosen:
        raise LabelsError(f"no part {split!r}: there is neither {listed} nor {images / split}; take all boards instead")
    return chosen


def _text(file: Path) -> str:
    """What *file* says; some editors put a mark (BOM) before it."""
    return file.read_text(encoding="utf-8-sig", errors="replace")


def _lines(file: Path) -> list[list[float]]:
    found: list[list[float]] = []
    for number, line in enumerate(_text(file).splitlines(), 1):
        words = line.replace(",", " ").split()
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if words and len(values) != 5:
            raise LabelsError(f"{file}:{number}: {line[:60]!r} is neither {_layouts()}")
        if values:
            found.append(values)
    return found


def _layout(lines: dict[str, list[list[float]]], files: dict[str, Path]) -> Layout:
    """The one layout that fits every line; without a line both do."""
    for layout, fits in ((Layout.YOLO, _is_yolo), (Layout.DEEPPCB, _is_deeppcb)):
        if all(fits(one) for rows in lines.values() for one in rows):
            return layout
    for name, rows in lines.items():
        for one in rows:
            if not _is_yolo(one) and not _is_deeppcb(one):
                raise LabelsError(f"{files[name]}: {' '.join(f'{v:g}' for v in one)} is neither {_layouts()}")
    raise LabelsError(
        f"the labels of {next(iter(files.values())).parent} are of two kinds, {_layouts('and')}: part them"
    )


def _layouts(word: str = "nor") -> str:
    return f"YOLO's ({Layout.YOLO.value}) {word} DeepPCB's ({Layout.DEEPPCB.value})"


def _is_yolo(row: list[float]) -> bool:
    return row[0] >= 0 and row[0].is_integer() and all(0 <= one <= 1 for one in row[1:]) and row[3] > 0 and row[4] > 0


def _is_deeppcb(row: list[float]) -> bool:
    x1, y1, x2, y2, kind = row
    return 0 <= x1 < x2 and 0 <= y1 < y2 and kind >= 1 and kind.is_integer()


def _row(values: list[float], layout: Layout) -> Row:
    match layout:
        case Layout.YOLO:
            kind, x, y, width, height = values
            return Row(int(kind), x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        case Layout.DEEPPCB:
            x1, y1, x2, y2, kind = values
            return Row(int(kind) - 1, x1, y1, x2, y2)
