"""
How good is a detector on labelled boards? By DeepPCB's rule and by COCO's, and on boards without a defect.

    python scripts/evaluate.py --data DIR [--model pcb-demo | FILE.onnx] [--split val] [--family 44000] [--json FILE]

DIR has images/ and labels/ (YOLO's or DeepPCB's .txt), and templates/ if there are any: defect-free boards of the same
file names. Judges with the station's own detector, as a board on the line is judged; what compares boards with
templates is given each board's own.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from judge import (
    CONFIDENCE,
    SHIFT_PX,
    BoardDetector,
    BothJudge,
    GoldenJudge,
    Judgement,
    choose,
    judge,
    open_detector,
    part_of,
)
from rich.console import Console
from rich.table import Table

from station.detectors.metric import (
    Hits,
    average_precision,
    best_f_score,
    by_coco50,
    by_paper,
    coco_precision,
    f_score_at,
    interpolated_precision,
)
from station.detectors.thresholds import thresholds_from_cost
from station.errors import StationError
from station.types import Recipe

SHIPPED = Path(__file__).parents[1] / "configs" / "station.toml"
THRESHOLDS = (0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--json", type=Path, help="writes the figures there too")
    parser.add_argument("--miss-cost", type=float, help="derives thresholds: how many false calls one miss is worth")
    options = parser.parse_args()
    try:
        judgement = judged(options)
        figures = evaluate(judgement, recipe_of(options), miss_cost=options.miss_cost, floor=options.confidence)
    except (StationError, ValueError) as error:
        parser.error(str(error))
    figures |= {"split": part_of(options.data, options.split), "families": options.family}
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")


def add_options(parser: argparse.ArgumentParser) -> None:
    """What says which detector judges which boards by which recipe."""
    parser.add_argument("--data", type=Path, required=True, help="the folder of labelled boards")
    parser.add_argument("--model", default="pcb-demo", help="pcb-demo, or an .onnx file")
    parser.add_argument("--backend", choices=("auto", "onnxruntime", "openvino"), default="auto", help="runs the model")
    parser.add_argument("--kind", choices=("network", "golden", "both"), default="network", help="what judges")
    parser.add_argument("--split", help="SPLIT.txt or images/SPLIT of DIR, or all; val if there is one")
    parser.add_argument("--family", action="append", default=[], help="only boards whose name begins so; repeatable")
    parser.add_argument("--templates", type=Path, help="defect-free boards of the same names; DIR/templates if there")
    parser.add_argument("--confidence", type=float, default=CONFIDENCE, help="what scores less is not looked at")
    parser.add_argument("--class-blind", action="store_true", help="any label is right for any other")
    recipe = parser.add_mutually_exclusive_group()
    recipe.add_argument(
        "--config", type=Path, default=SHIPPED, help="whose [recipe] has the thresholds; the shipped one"
    )
    recipe.add_argument("--threshold", type=float, help="one threshold for all labels instead")


def judged(options: argparse.Namespace) -> Judgement:
    """Raises StationError for what cannot be done, saying what to do."""
    boards = choose(options.data, split=part_of(options.data, options.split), families=options.family)
    beside = options.data / "templates"
    templates = options.templates or (beside if beside.is_dir() else None)
    blind = options.class_blind or options.kind != "network"
    return judge(detector_of(options), boards, templates=templates, blind=blind)


def detector_of(options: argparse.Namespace) -> BoardDetector:
    """The network, the golden board, or both. Raises ModelError and ConfigError."""
    golden = GoldenJudge(options.confidence)
    if options.kind == "golden":
        return golden
    network = open_detector(options.model, backend=options.backend, confidence=options.confidence)
    return BothJudge(network, golden, recipe=recipe_of(options)) if options.kind == "both" else network


def recipe_of(options: argparse.Namespace) -> Recipe:
    if options.threshold is not None:
        return Recipe(f"{options.threshold:g} for all labels", options.threshold)
    from station.config import load
    from station.parts import build_recipe

    return build_recipe(load(options.config))


def evaluate(
    judgement: Judgement, recipe: Recipe, *, miss_cost: float | None = None, floor: float = CONFIDENCE
) -> dict[str, Any]:
    """
    All figures as a document; None is a figure that does not exist.

    ``mAP33`` is the mean over the classes of DeepPCB's AP, ``f_score`` the best at one threshold for all classes
    (chosen on these very boards), ``f_score_recipe`` that at the recipe's thresholds, as are all counts of boards.
    """
    paper, coco = judgement.hits(by_paper), judgement.hits(by_coco50)
    counted = judgement.hits(by_paper, recipe=recipe)
    wide = [coco_precision(judgement.boxes, judgement.truths, class_id=kind) for kind in range(len(judgement.classes))]
    best = best_f_score(paper)
    has_template = sum(one is not None for one in judgement.templates)
    highest: dict[int, float] = {}
    for one in judgement.on_templates:
        highest[one.image] = max(one.score, highest.get(one.image, 0.0))
    figures: dict[str, Any] = {
        "model": {"name": judgement.model.name, "sha256": judgement.model.sha256},
        "boards": len(judgement.boards),
        "labelled_defects": len(judgement.labelled),
        "mAP33": _mean([average_precision(one) for one in paper]),
        "mAP50": _mean([interpolated_precision(one) for one in coco]),
        "mAP50_95": _mean(wide),
        "f_score": asdict(best),
        "recipe": {"name": recipe.name, "threshold": recipe.default_threshold, "thresholds": recipe.thresholds},
        "f_score_recipe": _without_threshold(counted),
        "classes": {
            name: _of_class(paper[kind], coco[kind], counted[kind], wide=wide[kind])
            for kind, name in enumerate(judgement.classes)
            if paper[kind].labelled or len(paper[kind].scores)
        },
        "defective_boards": len({one.image for one in judgement.labelled}),
        "defective_boards_passed": _passed(judgement, recipe),
        "unknown_boards": len(judgement.unknown),
        "unknown_templates": len(judgement.unknown_templates),
        "templates": has_template,
        "templates_moved_px": SHIFT_PX if judgement.moved else 0,
        "templates_failed": len(
            {one.image for one in judgement.counting(judgement.on_templates, recipe)} | judgement.unknown_templates
        ),
        "templates_failed_at": {
            f"{threshold:.2f}": sum(one >= threshold for one in highest.values()) + len(judgement.unknown_templates)
            for threshold in sorted({*THRESHOLDS, round(best.threshold, 2)})
        },
    }
    if miss_cost is not None:
        chosen = thresholds_from_cost(judgement.hits_with_templates(by_paper), miss_cost=miss_cost, floor=floor)
        figures["cost"] = {"miss_cost": miss_cost, "labels": {label: asdict(one) for label, one in chosen.items()}}
    return figures


def _of_class(paper: Hits, coco: Hits, counted: Hits, *, wide: float) -> dict[str, float | None]:
    at = f_score_at([counted], 0.0)
    return {
        "labelled": paper.labelled,
        "AP33": _mean([average_precision(paper)]),
        "AP50": _mean([interpolated_precision(coco)]),
        "AP50_95": _mean([wide]),
        "precision": at.precision,
        "recall": at.recall,
    }


def _without_threshold(counted: Sequence[Hits]) -> dict[str, float]:
    at = f_score_at(counted, 0.0)
    return {"value": at.value, "precision": at.precision, "recall": at.recall}


def _passed(judgement: Judgement, recipe: Recipe) -> int:
    """Boards with a labelled defect on which nothing counts, right or wrong: they would go out of the door."""
    failed = {one.image for one in judgement.counting(judgement.found, recipe)}
    return len({one.image for one in judgement.labelled} - failed - judgement.unknown)


def _mean(values: Sequence[float]) -> float | None:
    """Of the classes that have a labelled box; None: no class has one."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def show(figures: dict[str, Any]) -> None:
    """Prints the figures as a table."""
    columns = ("AP33", "AP50", "AP50_95", "precision", "recall")
    table = Table(
        "class", "labelled", *columns, title=f"{figures['model']['name']} on {figures['boards']} labelled boards"
    )
    for name, one in figures["classes"].items():
        table.add_row(name, str(one["labelled"]), *(_shown(one[column]) for column in columns))
    table.add_section()
    at, best, recipe = figures["f_score_recipe"], figures["f_score"], figures["recipe"]
    means = (figures["mAP33"], figures["mAP50"], figures["mAP50_95"], at["precision"], at["recall"])
    table.add_row("all", str(figures["labelled_defects"]), *map(_shown, means))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    own = "".join(f", {label} {value:g}" for label, value in recipe["thresholds"].items())
    console.print("AP33: DeepPCB's own rule, IoU > 0.33; AP50 and AP50_95: COCO's. Precision and recall: IoU > 0.33,")
    console.print(f"at the thresholds of the recipe {recipe['name']!r} ({recipe['threshold']:g}{own}).")
    console.print(f"F-score {at['value']:.4f} there; at best {best['value']:.4f}, at {best['threshold']:.3f} for all")
    console.print(
        f"defective boards that would pass: {figures['defective_boards_passed']} of {figures['defective_boards']}"
    )
    if figures["unknown_boards"] or figures["unknown_templates"]:
        console.print(
            f"not judged (UNKNOWN): {figures['unknown_boards']} of {figures['boards']} boards, "
            f"{figures['unknown_templates']} of {figures['templates']} templates"
        )
    if figures["templates"]:
        failed = ", ".join(f"{count} at {threshold}" for threshold, count in figures["templates_failed_at"].items())
        moved = figures["templates_moved_px"]
        how = f", each moved by up to {moved} px" if moved else ""
        console.print(
            f"defect-free templates that would fail: {figures['templates_failed']} of {figures['templates']}{how} "
            f"({failed} for all labels)"
        )
    if "cost" in figures:
        _show_cost(console, figures["cost"])


def _show_cost(console: Console, cost: dict[str, Any]) -> None:
    table = Table(
        "label",
        "threshold",
        "misses",
        "of",
        "false calls",
        title=f"where a miss costs {cost['miss_cost']:g} false calls",
    )
    for label, one in cost["labels"].items():
        threshold = f"{one['threshold']:g}{' (all labels)' if one['pooled'] else ''}"
        table.add_row(label, threshold, str(one["misses"]), str(one["labelled"]), str(one["false_calls"]))
    console.print(table)
    console.print(
        f"[recipe]\n{toml_of({label: one['threshold'] for label, one in cost['labels'].items()})}", markup=False
    )


def toml_of(thresholds: dict[str, float]) -> str:
    """*thresholds* as the line of a station's configuration."""
    return f"thresholds = {{ {', '.join(f'{json.dumps(label)} = {value}' for label, value in thresholds.items())} }}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
