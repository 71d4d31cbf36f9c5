"""
How good is a model on DeepPCB? By the paper's rule (IoU > 0.33) and COCO's AP50, and on boards without a defect.

    python scripts/evaluate.py --data DIR/deeppcb [--model pcb-demo | FILE.onnx] [--split val] [--json FILE]

Judges with the station's own detector, as a board on the line is judged.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import deeppcb
import numpy as np
from metric import FScore, Marked, average_precision, best_f_score, match
from rich.console import Console
from rich.progress import track
from rich.table import Table

from station.detectors.onnx import OnnxDetector
from station.detectors.store import find_model

PAPER_IOU, COCO_IOU = 0.33, 0.5
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the DeepPCB folder")
    parser.add_argument("--model", default="pcb-demo", help="pcb-demo, or an .onnx file")
    parser.add_argument("--split", choices=("train", "val", "all"), default="val")
    parser.add_argument("--json", type=Path, help="writes the figures there too")
    options = parser.parse_args()
    detector = detector_of(options.model, confidence=0.001)
    if detector.labels != deeppcb.CLASSES:
        parser.error(f"the model knows {detector.labels}, DeepPCB has {deeppcb.CLASSES}")
    figures = evaluate(detector, options.data, options.split)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def detector_of(model: str, *, confidence: float) -> OnnxDetector:
    """The station's own detector for *model*, with its own limit of overlap."""
    file = find_model(model)
    return OnnxDetector(file.path, name=file.name, sha256=file.sha256, confidence=confidence, iou=0.45)


def evaluate(detector: OnnxDetector, root: Path, split: str) -> dict[str, Any]:
    """All figures of *detector* on one part of the dataset, as a document."""
    names = deeppcb.names(root, split)
    found: list[Marked] = []
    labelled: list[Marked] = []
    highest_on_templates: list[float] = []
    for number, name in enumerate(track(names, description="judging boards")):
        for one in detector.detect(deeppcb.picture(root / "images" / f"{name}.jpg")):
            kind, box = detector.labels.index(one.label), one.box
            found.append(Marked(number, kind, box.x, box.y, box.x + box.width, box.y + box.height, one.confidence))
        truths = deeppcb.truths(root / "labels" / f"{name}.txt")
        labelled.extend(Marked(number, one.class_id, one.x1, one.y1, one.x2, one.y2) for one in truths)
        on_template = detector.detect(deeppcb.picture(root / "templates" / f"{name}.jpg"))
        highest_on_templates.append(max((one.confidence for one in on_template), default=0.0))
    kinds = range(len(deeppcb.CLASSES))
    paper = [match(found, labelled, class_id=kind, over=PAPER_IOU) for kind in kinds]
    coco = [match(found, labelled, class_id=kind, over=COCO_IOU) for kind in kinds]
    f_score: FScore = best_f_score(paper)
    return {
        "model": {"name": detector.model.name, "sha256": detector.model.sha256},
        "split": split,
        "boards": len(names),
        "labelled_defects": len(labelled),
        "mAP33": float(np.nanmean([average_precision(one) for one in paper])),
        "mAP50": float(np.nanmean([average_precision(one) for one in coco])),
        "f_score": asdict(f_score),
        "classes": {
            deeppcb.CLASSES[kind]: {
                "AP33": average_precision(paper[kind]),
                "AP50": average_precision(coco[kind]),
                **_at(paper[kind].right, paper[kind].scores, paper[kind].labelled, f_score.threshold),
            }
            for kind in kinds
        },
        "templates_failed_at": {
            f"{threshold:g}": int(sum(highest >= threshold for highest in highest_on_templates))
            for threshold in THRESHOLDS
        },
    }


def _at(right: Any, scores: Any, labelled: int, threshold: float) -> dict[str, float]:
    kept = scores >= threshold
    true = int(right[kept].sum())
    return {"precision": true / max(int(kept.sum()), 1), "recall": true / max(labelled, 1)}


def show(figures: dict[str, Any]) -> None:
    table = Table(
        "class", "AP33", "AP50", "precision", "recall", title=f"{figures['boards']} boards ({figures['split']})"
    )
    for name, one in figures["classes"].items():
        table.add_row(name, *(f"{one[column]:.3f}" for column in ("AP33", "AP50", "precision", "recall")))
    best = figures["f_score"]
    table.add_section()
    table.add_row(
        "all", f"{figures['mAP33']:.3f}", f"{figures['mAP50']:.3f}", f"{best['precision']:.3f}", f"{best['recall']:.3f}"
    )
    console = Console()
    console.print(table)
    console.print(f"F-score {best['value']:.3f} at threshold {best['threshold']:.2f} (paper's rule, IoU > 0.33)")
    failed = ", ".join(f"{count} at {threshold}" for threshold, count in figures["templates_failed_at"].items())
    console.print(f"defect-free templates that would fail, of {figures['boards']}: {failed}")


if __name__ == "__main__":
    main()
