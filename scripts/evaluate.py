"""
How good is a model on DeepPCB? By the paper's rule (IoU > 0.33) and COCO's AP50, and on boards without a defect.

    python scripts/evaluate.py --data DIR/deeppcb [--model pcb-demo | FILE.onnx] [--split val] [--json FILE]

Judges with the station's own detector, as a board on the line is judged.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import deeppcb
from metric import (
    Hits,
    Marked,
    average_precision,
    best_f_score,
    by_coco50,
    by_paper,
    f_score_at,
    interpolated_precision,
    match,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table

from station.detectors.onnx import OnnxDetector
from station.detectors.store import find_model
from station.errors import ModelError

CONFIDENCE = 0.001  # AP is over all thresholds: what a station would not report belongs to it too
THRESHOLDS = (0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the DeepPCB folder")
    parser.add_argument("--model", default="pcb-demo", help="pcb-demo, or an .onnx file")
    parser.add_argument("--split", choices=("train", "val", "all"), default="val")
    parser.add_argument("--confidence", type=float, default=CONFIDENCE, help="what scores less is not looked at")
    parser.add_argument("--json", type=Path, help="writes the figures there too")
    options = parser.parse_args()
    try:
        detector = detector_of(options.model, confidence=options.confidence)
    except ModelError as error:
        parser.error(str(error))
    if detector.labels != deeppcb.CLASSES:
        parser.error(f"the model knows {detector.labels}, DeepPCB has {deeppcb.CLASSES}")
    figures = evaluate(detector, options.data, options.split)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")


def detector_of(model: str, *, confidence: float) -> OnnxDetector:
    """The station's own detector for *model*, with its own limit of overlap."""
    file = find_model(model)
    return OnnxDetector(file.path, name=file.name, sha256=file.sha256, confidence=confidence, iou=0.45)


def evaluate(detector: OnnxDetector, root: Path, split: str) -> dict[str, Any]:
    """All figures of *detector* on one part of the dataset, as a document; None is a figure that does not exist."""
    names = deeppcb.names(root, split)
    found: list[Marked] = []
    labelled: list[Marked] = []
    highest_on_templates: list[float] = []
    for number, name in enumerate(track(names, description="judging boards", console=Console(stderr=True))):
        found += judged(detector, root / "images" / f"{name}.jpg", number=number)
        truths = deeppcb.truths(root / "labels" / f"{name}.txt")
        labelled += (Marked(number, one.class_id, one.x1, one.y1, one.x2, one.y2) for one in truths)
        on_template = judged(detector, root / "templates" / f"{name}.jpg", number=number)
        highest_on_templates.append(max((one.score for one in on_template), default=0.0))
    kinds = range(len(deeppcb.CLASSES))
    paper = [match(found, labelled, class_id=kind, right_by=by_paper) for kind in kinds]
    coco = [match(found, labelled, class_id=kind, right_by=by_coco50) for kind in kinds]
    best = best_f_score(paper)
    return {
        "model": {"name": detector.model.name, "sha256": detector.model.sha256},
        "split": split,
        "boards": len(names),
        "labelled_defects": len(labelled),
        "mAP33": _mean([average_precision(one) for one in paper]),
        "mAP50": _mean([interpolated_precision(one) for one in coco]),
        "f_score": asdict(best),
        "classes": {
            deeppcb.CLASSES[kind]: _of_class(paper[kind], coco[kind], threshold=best.threshold) for kind in kinds
        },
        "templates_failed_at": {
            f"{threshold:.2f}": sum(highest >= threshold for highest in highest_on_templates)
            for threshold in sorted({*THRESHOLDS, round(best.threshold, 2)})
        },
    }


def judged(detector: OnnxDetector, path: Path, *, number: int) -> list[Marked]:
    """What *detector* finds in the picture at *path*, as boxes of image *number*."""
    together = ((one, one.box, detector.labels.index(one.label)) for one in detector.detect(deeppcb.picture(path)))
    return [
        Marked(number, kind, box.x, box.y, box.x + box.width, box.y + box.height, one.confidence)
        for one, box, kind in together
    ]


def _of_class(paper: Hits, coco: Hits, *, threshold: float) -> dict[str, float | None]:
    at = f_score_at([paper], threshold)
    return {
        "AP33": _mean([average_precision(paper)]),
        "AP50": _mean([interpolated_precision(coco)]),
        "precision": at.precision,
        "recall": at.recall,
    }


def _mean(values: Sequence[float]) -> float | None:
    """Of the classes that have a labelled box; None: no class has one."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def show(figures: dict[str, Any]) -> None:
    best = figures["f_score"]
    table = Table(
        "class", "AP33", "AP50", "precision", "recall", title=f"{figures['boards']} boards ({figures['split']})"
    )
    for name, one in figures["classes"].items():
        table.add_row(name, *(_shown(one[column]) for column in ("AP33", "AP50", "precision", "recall")))
    table.add_section()
    table.add_row("all", *map(_shown, (figures["mAP33"], figures["mAP50"], best["precision"], best["recall"])))
    console = Console()
    console.print(table)
    console.print(f"F-score {best['value']:.3f} at threshold {best['threshold']:.3f} (paper's rule, IoU > 0.33)")
    failed = ", ".join(f"{count} at {threshold}" for threshold, count in figures["templates_failed_at"].items())
    console.print(f"defect-free templates that would fail, of {figures['boards']}: {failed}")


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
