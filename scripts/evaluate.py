"""
How good is a detector on labelled boards? By DeepPCB's rule and by COCO's, and on boards without a defect.

    python scripts/evaluate.py --data DIR [--model pcb-demo | FILE.onnx] [--split val] [--family 44000] [--json FILE]

DIR has images/ and labels/ (YOLO's or DeepPCB's .txt), and templates/ if there are any: defect-free boards of the same
file names. A board without labels is defect-free. Judges with the station's own detector, as a board on the line of
--config is judged: its bit depth, its tiles, its recipe with what that suppresses or refuses. What compares boards with
templates is given each board's own. A defect that the recipe hides is a miss.
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

from station.commands.model import toml_of
from station.config import Settings, load
from station.detectors.metric import (
    FScore,
    Hits,
    Marked,
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
from station.parts import build_recipe, depth_bits
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
        figures = evaluate(judged(options), miss_cost=options.miss_cost, floor=options.confidence)
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
    parser.add_argument("--backend", choices=("auto", "onnxruntime", "openvino"), help="runs it; as --config says")
    parser.add_argument("--kind", choices=("network", "golden", "both"), default="network", help="what judges")
    parser.add_argument("--split", help="SPLIT.txt or images/SPLIT of DIR, or all; val if there is one")
    parser.add_argument("--family", action="append", default=[], help="only boards whose name begins so; repeatable")
    parser.add_argument("--templates", type=Path, help="defect-free boards of the same names; DIR/templates if there")
    parser.add_argument("--confidence", type=float, default=CONFIDENCE, help="what scores less is not looked at")
    parser.add_argument("--class-blind", action="store_true", help="any label is right for any other")
    parser.add_argument(
        "--config", type=Path, default=SHIPPED, help="the station.toml of the line that it would judge; the shipped one"
    )
    parser.add_argument("--threshold", type=float, help="one threshold for all labels instead of its own")


def judged(options: argparse.Namespace) -> Judgement:
    """Raises StationError for what cannot be done, saying what to do."""
    settings = settings_of(options)
    recipe = build_recipe(settings)
    boards = choose(
        options.data,
        split=part_of(options.data, options.split),
        families=options.family,
        depth_bits=depth_bits(settings),
    )
    beside = options.data / "templates"
    templates = options.templates or (beside if beside.is_dir() else None)
    blind = options.class_blind or options.kind != "network"
    detector = detector_of(options.kind, settings, recipe, confidence=options.confidence)
    return judge(detector, boards, recipe=recipe, templates=templates, blind=blind)


def settings_of(options: argparse.Namespace) -> Settings:
    """The configuration of the line, with what the command line says instead. Raises ConfigError."""
    settings = load(options.config)
    settings = settings.with_detector(model=options.model, backend=options.backend or settings.detector.backend)
    if (threshold := options.threshold) is None:
        return settings
    same = {"name": f"{threshold:g} for all labels", "threshold": threshold, "thresholds": {}}
    return settings.model_copy(update={"recipe": settings.recipe.model_copy(update=same)})


def detector_of(kind: str, settings: Settings, recipe: Recipe, *, confidence: float) -> BoardDetector:
    """The network, the golden board, or both. Raises ModelError and ConfigError."""
    golden = GoldenJudge(settings, confidence=confidence)
    if kind == "golden":
        return golden
    network = open_detector(settings, confidence=confidence)
    return BothJudge(network, golden, recipe=recipe) if kind == "both" else network


def evaluate(judgement: Judgement, *, miss_cost: float | None = None, floor: float = CONFIDENCE) -> dict[str, Any]:
    """
    All figures as a document; None is a figure that does not exist.

    ``mAP33`` is the mean over the classes of DeepPCB's AP, ``f_score`` the best at one threshold for all classes
    (chosen on these very boards), ``f_score_recipe`` that at the recipe's thresholds, as are all counts of boards.
    ``good_boards`` are those on which nothing is labelled; the templates are not among them.
    """
    recipe = judgement.recipe
    paper, coco = judgement.hits(by_paper), judgement.hits(by_coco50)
    counted = judgement.hits(by_paper, counted=True)
    wide = [coco_precision(judgement.boxes, judgement.truths, class_id=kind) for kind in range(len(judgement.classes))]
    best = best_f_score(paper)
    has_template = sum(one is not None for one in judgement.templates)
    thresholds = sorted({*THRESHOLDS, *([round(best.threshold, 2)] if judgement.labelled else [])})
    good, templates_unknown = judgement.good, judgement.unknown_templates
    on_good = [one for one in judgement.found if one.image in good]
    figures: dict[str, Any] = {
        "model": {"name": judgement.model.name, "sha256": judgement.model.sha256},
        "boards": len(judgement.boards),
        "labelled_defects": len(judgement.labelled),
        "mAP33": _mean([average_precision(one) for one in paper]),
        "mAP50": _mean([interpolated_precision(one) for one in coco]),
        "mAP50_95": _mean(wide),
        "f_score": asdict(best) if judgement.labelled else dict.fromkeys(FScore.__slots__),
        "recipe": {"name": recipe.name, "threshold": recipe.default_threshold, "thresholds": recipe.thresholds},
        "f_score_recipe": _at_recipe(counted),
        "classes": {
            name: _of_class(paper[kind], coco[kind], counted[kind], wide=wide[kind])
            for kind, name in enumerate(judgement.classes)
            if paper[kind].labelled or len(paper[kind].scores)
        },
        "defective_boards": len({one.image for one in judgement.labelled}),
        "defective_boards_passed": _passed(judgement),
        "good_boards": len(good),
        "good_boards_failed": len(good & ({one.image for one in judgement.counted} | judgement.unknown)),
        "good_boards_failed_at": _failed_at(on_good, len(good & judgement.unknown), thresholds),
        "unknown_boards": len(judgement.unknown),
        "unknown_templates": len(judgement.unknown_templates),
        "templates": has_template,
        "templates_moved_px": SHIFT_PX if judgement.moved else 0,
        "templates_failed": len({one.image for one in judgement.counted_on_templates} | templates_unknown),
        "templates_failed_at": _failed_at(judgement.on_templates, len(templates_unknown), thresholds),
    }
    if miss_cost is not None:
        chosen = thresholds_from_cost(judgement.hits_with_templates(by_paper), miss_cost=miss_cost, floor=floor)
        figures["cost"] = {"miss_cost": miss_cost, "labels": {label: asdict(one) for label, one in chosen.items()}}
    return figures


def _of_class(paper: Hits, coco: Hits, counted: Hits, *, wide: float) -> dict[str, float | None]:
    at = _at_recipe([counted])
    return {
        "labelled": paper.labelled,
        "AP33": _mean([average_precision(paper)]),
        "AP50": _mean([interpolated_precision(coco)]),
        "AP50_95": _mean([wide]),
        "precision": at["precision"],
        "recall": at["recall"],
    }


def _at_recipe(counted: Sequence[Hits]) -> dict[str, float | None]:
    """Of nothing that counts there is no precision, and of nothing that is labelled no recall and no F-score."""
    at = f_score_at(counted, 0.0)
    labelled, some = any(one.labelled for one in counted), any(len(one.scores) for one in counted)
    return {
        "value": at.value if labelled else None,
        "precision": at.precision if some else None,
        "recall": at.recall if labelled else None,
    }


def _failed_at(found: Sequence[Marked], unknown: int, thresholds: Sequence[float]) -> dict[str, int]:
    """Of defect-free pictures on which so much was *found*: how many fail at each threshold, for all labels."""
    highest: dict[int, float] = {}
    for one in found:
        highest[one.image] = max(one.score, highest.get(one.image, 0.0))
    return {f"{threshold:.2f}": sum(one >= threshold for one in highest.values()) + unknown for threshold in thresholds}


def _passed(judgement: Judgement) -> int:
    """Boards with a labelled defect on which nothing counts, right or wrong: they would go out of the door."""
    failed = {one.image for one in judgement.counted}
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
    if figures["labelled_defects"]:
        console.print(
            f"F-score {at['value']:.4f} there; at best {best['value']:.4f}, at {best['threshold']:.3f} for all"
        )
    else:
        console.print("No defect is labelled: all boards are taken to be defect-free.")
    console.print(
        f"defective boards that would pass: {figures['defective_boards_passed']} of {figures['defective_boards']}"
    )
    if figures["unknown_boards"] or figures["unknown_templates"]:
        console.print(
            f"not judged (UNKNOWN): {figures['unknown_boards']} of {figures['boards']} boards, "
            f"{figures['unknown_templates']} of {figures['templates']} templates"
        )
    for what, key in (("boards", "good_boards"), ("templates", "templates")):
        if not figures[key]:
            continue
        failed = ", ".join(f"{count} at {threshold}" for threshold, count in figures[f"{key}_failed_at"].items())
        moved = figures["templates_moved_px"]
        how = f", each moved by up to {moved} px" if moved and key == "templates" else ""
        console.print(
            f"defect-free {what} that would fail: {figures[f'{key}_failed']} of {figures[key]}{how} "
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


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
