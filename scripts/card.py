"""
Writes the figures of a shipped model into its card, from what scripts/evaluate.py measured.

    python scripts/evaluate.py --data DIR/deeppcb --miss-cost 50 --json figures.json
    python scripts/card.py figures.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from station.assets import ASSETS
from station.commands.model import toml_of

LOWEST = 0.05  # threshold that is advised: below, a handful of boards is no witness
BEGIN, END = "<!-- figures: written by scripts/card.py -->\n", "<!-- end of figures -->\n"


def main() -> None:
    figures: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    name = figures["model"]["name"]
    (ASSETS / f"{name}.json").write_text(
        json.dumps({"sha256": figures["model"]["sha256"], "figures": figures}, indent=2) + "\n"
    )
    card = ASSETS / f"{name}.md"
    before, _, rest = card.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    card.write_text(before + BEGIN + table(figures) + END + after)


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    at, best, recipe = figures["f_score_recipe"], figures["f_score"], figures["recipe"]
    columns = ("AP50", "AP33", "precision", "recall")
    rows = [
        f"| {name} | {' | '.join(_shown(one[column]) for column in columns)} |\n"
        for name, one in figures["classes"].items()
    ]
    own = "".join(f", {label} {value:g}" for label, value in recipe["thresholds"].items())
    moved = figures["templates_moved_px"]
    failed = ", ".join(f"{count} at {threshold}" for threshold, count in figures["templates_failed_at"].items())
    return (
        "| class | AP50 | AP (IoU > 0.33) | precision | recall |\n|---|---|---|---|---|\n"
        + "".join(rows)
        + f"| **all** | **{_shown(figures['mAP50'])}** | **{_shown(figures['mAP33'])}** "
        f"| {at['precision']:.3f} | {at['recall']:.3f} |\n\n"
        f"F-score {at['value']:.3f} at the recipe's thresholds ({recipe['threshold']:g}{own}), where precision and "
        f"recall are given too; at best {best['value']:.3f}, at {best['threshold']:.2f} for all labels. "
        f"mAP50-95 {_shown(figures['mAP50_95'])}.\n"
        f"Of {figures['templates']} defect-free templates {figures['templates_failed']} would fail there"
        f"{f' (each moved by up to {moved} px)' if moved else ''}; with one threshold for all labels: {failed}.\n"
        + least_cost(figures)
    )


def least_cost(figures: dict[str, Any]) -> str:
    """The thresholds of least cost, to be pasted; nothing where they were not derived."""
    if "cost" not in figures:
        return ""
    labels = figures["cost"]["labels"]
    advised = {label: max(LOWEST, round(one["threshold"], 2)) for label, one in labels.items()}
    return (
        f"\nThresholds of least cost on these boards, where a miss costs {figures['cost']['miss_cost']:g} false calls "
        f"(none below {LOWEST:g}):\n\n```toml\n[recipe]\n{toml_of(advised)}\n```\n"
    )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
