"""
Writes the figures of the bundled model into its card, from what scripts/evaluate.py measured.

    python scripts/evaluate.py --data DIR/deeppcb --json figures.json && python scripts/card.py figures.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from station.assets import ASSETS

BEGIN, END = "<!-- figures: written by scripts/card.py -->\n", "<!-- end of figures -->\n"


def main() -> None:
    figures: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    (ASSETS / "pcb-demo.json").write_text(
        json.dumps({"sha256": figures["model"]["sha256"], "figures": figures}, indent=2) + "\n"
    )
    card = ASSETS / "pcb-demo.md"
    before, _, rest = card.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    card.write_text(before + BEGIN + table(figures) + END + after)


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    best = figures["f_score"]
    rows = [
        f"| {name} | {one['AP50']:.3f} | {one['AP33']:.3f} | {one['precision']:.3f} | {one['recall']:.3f} |\n"
        for name, one in figures["classes"].items()
    ]
    failed = ", ".join(f"{count} at {threshold}" for threshold, count in figures["templates_failed_at"].items())
    return (
        "| class | AP50 | AP (IoU > 0.33) | precision | recall |\n|---|---|---|---|---|\n"
        + "".join(rows)
        + f"| **all** | **{figures['mAP50']:.3f}** | **{figures['mAP33']:.3f}** "
        f"| {best['precision']:.3f} | {best['recall']:.3f} |\n\n"
        f"F-score {best['value']:.3f} at threshold {best['threshold']:.2f}; precision and recall are given there.\n"
        f"Of {figures['boards']} defect-free templates these would fail: {failed}.\n"
    )


if __name__ == "__main__":
    main()
