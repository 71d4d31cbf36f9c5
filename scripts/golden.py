"""
Says how good the golden board is on DeepPCB: class-blind, one threshold, each family judged by what the others chose.

    nice -n 5 python scripts/golden.py DEEPPCB_DIR

A blob is right when its IoU with an unmatched labelled box is over 0.33, surest first; every other one is false. A
board that is not judged (UNKNOWN) has missed all its boxes. Blank and mirrored boards, and those of another product,
must be refused; defect-free boards, shifted by one or two pixels and with noise, must have no blob.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import deeppcb
import numpy as np

from station.detectors.golden import GoldenDetector
from station.detectors.metric import Marked, by_paper, match
from station.detectors.reference import Reference
from station.errors import DetectorError
from station.types import Image

GOAL = 0.2  # false blobs a board
LISTED = 0.02  # confidence from which blobs are listed, so that any threshold above can be tried
NOISE = 8.0  # grey levels, standard deviation


@dataclass(frozen=True, slots=True)
class Board:
    """What was found on one board: confidences and whether they are right, labelled boxes, false blobs without any."""

    name: str
    confidences: tuple[float, ...]
    right: tuple[bool, ...]
    labelled: int
    cpu_ms: float | None  # None: refused
    on_good: tuple[float, ...]  # confidences on the template itself, moved and with noise
    taken: tuple[str, ...]  # what should have been refused and was not

    @property
    def family(self) -> str:
        return self.name[:5]


@dataclass(frozen=True, slots=True)
class Figures:
    recall: float
    false_per_board: float


def judged(root: Path, name: str) -> Board:
    """One board of the dataset in *root*."""
    cv2.setNumThreads(1)
    board, template = (deeppcb.picture(root / part / f"{name}.jpg") for part in ("images", "templates"))
    truths = deeppcb.truths(root / "labels" / f"{name}.txt")
    detector = GoldenDetector(Reference(template[..., 0], name=name, sha256=""), confidence=LISTED)
    wanted = [Marked(0, 0, one.x1, one.y1, one.x2, one.y2) for one in truths]
    good = _moved(template, np.random.default_rng(int(name)))
    taken = tuple(what for what, other in _others(root, name, board) if _detected(detector, other) is not None)
    on_good = tuple(one.score for one in _detected(detector, good) or ())
    began_s = time.thread_time()
    found = _detected(detector, board)
    cpu_ms = (time.thread_time() - began_s) * 1000
    if found is None:
        return Board(name, (), (), len(wanted), None, on_good, taken)
    hits = match(found, wanted, class_id=0, right_by=by_paper)
    return Board(name, tuple(hits.scores.tolist()), tuple(hits.right.tolist()), len(wanted), cpu_ms, on_good, taken)


def figures(boards: Sequence[Board], threshold: float) -> Figures:
    """Recall and false blobs a board at *threshold*."""
    sure = [
        right for one in boards for score, right in zip(one.confidences, one.right, strict=True) if score >= threshold
    ]
    return Figures(sum(sure) / max(1, sum(one.labelled for one in boards)), (len(sure) - sum(sure)) / len(boards))


def threshold_for(boards: Sequence[Board], false_per_board: float) -> float:
    """The lowest threshold with no more false blobs a board than that."""
    return next(one / 100 for one in range(2, 100) if figures(boards, one / 100).false_per_board <= false_per_board)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the DeepPCB folder: images, templates, labels, train.txt, val.txt")
    parser.add_argument("--threshold", type=float, default=0.5, help="the recipe's (0.5)")
    parser.add_argument("--every", type=int, default=1, help="judge every so many boards: quicker, and less certain")
    asked = parser.parse_args()
    names = sorted(deeppcb.names(asked.data, "all"))[:: asked.every]
    with ProcessPoolExecutor(2) as pool:
        boards = list(pool.map(judged, [asked.data] * len(names), names, chunksize=20))
    print(f"{'family':<8} {'boards':>6} {'recall':>7} {'false/board':>11}   left out: recall, false/board at threshold")
    for family in sorted({one.family for one in boards}):
        own, others = [one for one in boards if one.family == family], [one for one in boards if one.family != family]
        chosen = threshold_for(others, GOAL)
        here, left_out = figures(own, asked.threshold), figures(own, chosen)
        print(
            f"{family:<8} {len(own):>6} {here.recall:>7.2%} {here.false_per_board:>11.3f}   "
            f"{left_out.recall:.2%} {left_out.false_per_board:.3f} at {chosen:.2f}"
        )
    for what, some in (("train", "train"), ("val", "val"), ("all", "all")):
        part = set(deeppcb.names(asked.data, some))
        mine = [one for one in boards if one.name in part]
        here = figures(mine, asked.threshold)
        print(f"{what:<8} {len(mine):>6} {here.recall:>7.2%} {here.false_per_board:>11.3f}")
    spent = [one.cpu_ms for one in boards if one.cpu_ms is not None]
    median_ms, slow_ms = np.percentile(spent, (50, 95)).tolist()
    calls = sum(any(score >= asked.threshold for score in one.on_good) for one in boards)
    print(f"CPU a board: median {median_ms:.1f} ms, 95 of 100 within {slow_ms:.1f} ms")
    print(f"not judged: {', '.join(one.name for one in boards if one.cpu_ms is None) or 'none'}")
    print(f"defect-free boards, moved by up to 2 px, noise {NOISE:g}: {calls} of {len(boards)} with a false blob")
    for what in ("blank", "mirrored", "turned by 90", "turned by 180", "another family"):
        print(f"{what}: {sum(what in one.taken for one in boards)} of {len(boards)} not refused")


def _detected(detector: GoldenDetector, image: Image) -> list[Marked] | None:
    try:
        found = detector.detect(image)
    except DetectorError:
        return None
    boxes = ((one.box, one.confidence) for one in found)
    return [Marked(0, 0, box.x, box.y, box.x + box.width, box.y + box.height, score) for box, score in boxes]


def _moved(template: Image, random: np.random.Generator) -> Image:
    matrix = np.array([[1.0, 0.0, random.uniform(-2, 2)], [0.0, 1.0, random.uniform(-2, 2)]])
    size = (template.shape[1], template.shape[0])
    moved = cv2.warpAffine(template, matrix, size, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    noise = random.normal(0.0, NOISE, template.shape[:2])[..., None]
    return np.clip(np.rint(moved + noise), 0, 255).astype(np.uint8)


def _others(root: Path, name: str, board: Image) -> Iterator[tuple[str, Image]]:
    yield "blank", np.full_like(board, 128)
    yield "mirrored", board[:, ::-1].copy()
    yield "turned by 90", np.rot90(board).copy()
    yield "turned by 180", np.rot90(board, 2).copy()
    strangers = [one for one in deeppcb.names(root, "all") if one[:5] != name[:5]]
    stranger = strangers[int(name) % len(strangers)]
    yield "another family", deeppcb.picture(root / "images" / f"{stranger}.jpg")


if __name__ == "__main__":
    main()
