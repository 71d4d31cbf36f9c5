"""
Writes a report on a model: curves, confusion, precision and recall, thresholds, and its worst cases as pictures.

    python scripts/report.py --data DIR [--model FILE.onnx] [--results RUN/results.csv] --out build/report

DIR as for scripts/evaluate.py. Needs matplotlib, which the ``ultralytics`` extra brings. Open OUT/index.html.
"""

from __future__ import annotations

import argparse
import html
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cases
import cv2
from evaluate import add_options, evaluate, judged
from judge import CONFIDENCE, Judgement

from station.commands.model import toml_of
from station.detectors.metric import by_paper
from station.detectors.thresholds import Choice, thresholds_from_cost
from station.errors import StationError
from station.types import Recipe

MISS_COST = 50.0
WORST = 12  # of each kind
STYLE = (
    "body{font:16px/1.45 sans-serif;max-width:1200px;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:.25em .8em;border-bottom:1px solid #ccc;text-align:right}"
    "td:first-child,th:first-child{text-align:left}"
    "img{max-width:100%}figure{display:inline-block;margin:0 1.5em 1.5em 0;vertical-align:top;max-width:540px}"
    "figure img{border:1px solid #999}figcaption{font-size:14px}pre{background:#eee;padding:.6em}"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """*arguments* None: those of the command line. Raises SystemExit for what cannot be done."""
    parser = argparse.ArgumentParser(
        prog="report.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--results", type=Path, help="ultralytics' results.csv of the training")
    parser.add_argument("--miss-cost", type=float, default=MISS_COST, help="how many false calls one miss is worth")
    parser.add_argument("--note", default="", help="what else to say at its top")
    parser.add_argument("--out", type=Path, default=Path("build/report"))
    options = parser.parse_args(arguments)
    if options.results and not options.results.is_file():
        parser.error(f"{options.results} is not there: it lies in the folder of the training run")
    try:
        index = write(
            judged(options),
            options.out,
            results=options.results,
            miss_cost=options.miss_cost,
            floor=options.confidence,
            note=options.note,
        )
    except (StationError, ValueError) as error:
        parser.error(str(error))
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        parser.error("the report is drawn with matplotlib, which is not installed: pip install matplotlib")
    except OSError as error:
        parser.error(f"--out {options.out}: cannot be written ({error.strerror}): choose another folder")
    print(f"wrote {index}")


def write(
    judgement: Judgement,
    out: Path,
    *,
    results: Path | None = None,
    miss_cost: float = MISS_COST,
    floor: float = CONFIDENCE,
    note: str = "",
) -> Path:
    """
    Writes the report on *judgement* into *out* (its own folders there are replaced); returns its index.html.

    *results*: ultralytics' results.csv. *note*: what the reader should know first. Raises ModuleNotFoundError without
    matplotlib, ValueError as ``thresholds_from_cost`` does, and OSError.
    """
    import charts

    out.mkdir(parents=True, exist_ok=True)
    recipe = judgement.recipe
    figures = evaluate(judgement, miss_cost=miss_cost if judgement.labelled else None, floor=floor)
    (out / "figures.json").write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")
    curves = results is not None and charts.training(results, out / "training.png")
    charts.confusion(cases.confusion(judgement), judgement.classes, out / "confusion.png")
    by_class, thresholds = _classes(figures), ""
    if judgement.labelled:  # else there is nothing that a curve could be drawn of
        hits = judgement.hits_with_templates(by_paper)
        chosen = thresholds_from_cost(hits, miss_cost=miss_cost, floor=floor)
        alone = dict(zip(judgement.classes, judgement.hits(by_paper), strict=True))
        charts.precision_recall(alone, {one: recipe.threshold(one) for one in alone}, out / "precision-recall.png")
        charts.trade_offs(hits, chosen, miss_cost=miss_cost, floor=floor, target=out / "thresholds.png")
        by_class += _image("precision-recall.png")
        thresholds = _thresholds(chosen, recipe, miss_cost, templates=figures["templates"])
    misses = cases.worst_misses(judgement, most=WORST)
    false_calls = cases.worst_false_calls(judgement, most=WORST)
    sections = [
        f"<p><strong>{html.escape(note)}</strong></p>\n" if note else "",
        _head(figures),
        _section("Training", _image("training.png")) if curves else "",
        _section("By class", by_class),
        _section("Who was taken for what", _image("confusion.png")),
        _section("Thresholds", thresholds or "<p>No defect is labelled: there is none to be weighed.</p>"),
        _section(f"Worst misses ({len(misses)})", _gallery(misses, judgement, out / "misses")),
        _section(f"Worst false calls ({len(false_calls)})", _gallery(false_calls, judgement, out / "false-calls")),
    ]
    title = html.escape(f"Report: {judgement.model.name}")
    index = out / "index.html"
    index.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1>\n{''.join(sections)}</html>\n",
        encoding="utf-8",
    )
    return index


def _head(figures: dict[str, Any]) -> str:
    at, best, recipe = figures["f_score_recipe"], figures["f_score"], figures["recipe"]
    rows = [
        ("mAP (DeepPCB's rule, IoU > 0.33)", _percent(figures["mAP33"])),
        ("mAP50 (COCO)", _percent(figures["mAP50"])),
        ("mAP50-95 (COCO)", _percent(figures["mAP50_95"])),
        (f"F-score at the thresholds of recipe {recipe['name']!r}", _percent(at["value"])),
        (f"F-score at {_number(best['threshold'])} for all labels, the best of these boards", _percent(best["value"])),
        ("defective boards that would pass", f"{figures['defective_boards_passed']} of {figures['defective_boards']}"),
    ]
    if figures["good_boards"]:
        rows.append(
            ("defect-free boards that would fail", f"{figures['good_boards_failed']} of {figures['good_boards']}")
        )
    if figures["templates"]:
        moved = figures["templates_moved_px"]
        how = f" (each moved by up to {moved} px)" if moved else ""
        rows.append(
            (f"defect-free templates that would fail{how}", f"{figures['templates_failed']} of {figures['templates']}")
        )
    if figures["unknown_boards"] or figures["unknown_templates"]:
        rows.append(
            ("boards, templates not judged (UNKNOWN)", f"{figures['unknown_boards']}, {figures['unknown_templates']}")
        )
    model = figures["model"]
    file = f", sha256 {model['sha256'][:12]}" if model["sha256"] else ""
    said = f"<p>Model {html.escape(model['name'])}{file}, on {figures['boards']} labelled boards.</p>"
    return said + _table(("", ""), rows)


def _classes(figures: dict[str, Any]) -> str:
    columns = {"AP33": "AP33", "AP50": "AP50", "AP50_95": "AP50-95", "precision": "precision", "recall": "recall"}
    rows = [
        (name, str(one["labelled"]), *(_percent(one[column]) for column in columns))
        for name, one in figures["classes"].items()
    ]
    return "<p>Precision and recall at the recipe's thresholds.</p>" + _table(
        ("class", "labelled", *columns.values()), rows
    )


def _thresholds(chosen: dict[str, Choice], recipe: Recipe, miss_cost: float, *, templates: int) -> str:
    rows = [
        (
            label,
            f"{recipe.threshold(label):g}",
            f"{one.threshold:g}" + (" (of all labels: few examples)" if one.pooled else ""),
            f"{one.misses} of {one.labelled}",
            str(one.false_calls),
        )
        for label, one in chosen.items()
    ]
    said = (
        f"<p>Of least cost where one missed defect is worth {miss_cost:g} false calls, on these boards"
        f"{f' and {templates} defect-free templates' if templates else ''}. "
        "Where the line sees fewer defects a board than these boards have, a miss is rarer: take a smaller price.</p>"
    )
    line = html.escape("[recipe]\n" + toml_of({label: one.threshold for label, one in chosen.items()}))
    header = ("label", "recipe", "of least cost", "misses there", "false calls there")
    return said + _table(header, rows) + f"<pre>{line}</pre>" + _image("thresholds.png")


def _gallery(worst: Sequence[cases.Case], judgement: Judgement, folder: Path) -> str:
    """The pictures of *worst* into *folder*, and the page that shows them."""
    shutil.rmtree(folder, ignore_errors=True)
    if not worst:
        return "<p>None.</p>"
    folder.mkdir()
    shown = []
    for number, case in enumerate(worst, 1):
        name = f"{number:02}-{Path(case.board).name}.png"
        cv2.imwrite(str(folder / name), cases.picture_of(case, judgement))
        place = f"at {case.box.x1:.0f}, {case.box.y1:.0f}"
        said = html.escape(f"{number}. {case.said}") + f"<br>{html.escape(case.board)}, {place}"
        shown.append(f"<figure>{_image(f'{folder.name}/{name}')}<figcaption>{said}</figcaption></figure>")
    key = "<p>In the middle of each. Thin green: labelled. Thick red: found. Right: the same place on the template.</p>"
    return key + "\n".join(shown)


def _section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{body}\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>\n"

    return f"<table>{line(header, 'th') if any(header) else ''}{''.join(line(row, 'td') for row in rows)}</table>\n"


def _image(source: str) -> str:
    return f'<img src="{html.escape(source)}" alt="">'


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


if __name__ == "__main__":
    main()
