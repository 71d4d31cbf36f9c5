"""The pictures of a training report and of a soak, drawn with matplotlib (which the ``ultralytics`` extra brings)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from station.detectors.metric import Hits
from station.detectors.thresholds import Choice, cheapest, counts_at, trade_off

mpl.use("Agg")  # to files only: there may be no screen
from matplotlib import pyplot as plt  # after the choice above

PRICES = (1, 3, 10, 30, 100, 300)  # of a miss, in false calls, marked on the trade-off
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")

plt.rcParams.update({"figure.dpi": 110, "font.size": 11, "axes.grid": True, "grid.alpha": 0.3, "savefig.bbox": "tight"})


def training(results: Path, target: Path) -> bool:
    """Losses and accuracy by epoch, from ultralytics' results.csv; False (and no file) where it has no epoch."""
    with results.open(newline="", encoding="utf-8") as file:
        rows = [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    if not rows:
        return False
    epochs = [row["epoch"] for row in rows]
    figure, (losses, accuracy) = plt.subplots(1, 2, figsize=(13, 4.5))
    names = [name for name in rows[0] if name.endswith("_loss")]
    kinds = list(dict.fromkeys(name.split("/")[1] for name in names))
    for name in names:
        part, kind = name.split("/")
        line = "-" if part == "train" else "--"
        losses.plot(epochs, [row[name] for row in rows], line, color=COLOURS[kinds.index(kind)], label=name, marker=".")
    for number, name in enumerate(name for name in rows[0] if name.startswith("metrics/")):
        short = name.removeprefix("metrics/").removesuffix("(B)")
        accuracy.plot(epochs, [row[name] for row in rows], color=COLOURS[number], label=short, marker=".")
    losses.set(xlabel="epoch", ylabel="loss", title="loss: training (solid), validation (dashed)")
    accuracy.set(xlabel="epoch", ylabel="share", title="validation by ultralytics' own rule", ylim=(0, 1.02))
    for axes in (losses, accuracy):
        axes.legend(fontsize=9)
    _save(figure, target)
    return True


def confusion(table: NDArray[np.int64], classes: Sequence[str], target: Path) -> None:
    """*table* as ``cases.confusion`` makes it."""
    size = 2.5 + 0.85 * len(table)
    figure, axes = plt.subplots(figsize=(size + 1, size))
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    shares[-1] = table[-1] / max(int(table[-1].sum()), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25)
    axes.grid(visible=False)
    for row, column in np.ndindex(*table.shape):
        if row == column == len(classes):
            continue  # nothing labelled and nothing found: that is most of every board
        dark = shares[row, column] > 0.6
        wrong = row != column and table[row, column] > 0
        axes.text(
            column,
            row,
            str(table[row, column]),
            ha="center",
            va="center",
            color="white" if dark else "#b00020" if wrong else "#999999" if not table[row, column] else "black",
            fontweight="bold" if wrong else "normal",
        )
    axes.set_xticks(range(len(table)), [*classes, "nothing\n(missed)"], rotation=40, ha="right")
    axes.set_yticks(range(len(table)), [*classes, "nothing\n(false call)"])
    axes.set(xlabel="found", ylabel="labelled", title="who was taken for what (shade: share of the row)")
    _save(figure, target)


def precision_recall(by_class: Mapping[str, Hits], thresholds: Mapping[str, float], target: Path) -> None:
    """One curve a class at IoU > 0.33; a dot where its threshold of the recipe lies."""
    figure, axes = plt.subplots(figsize=(8, 6))
    lowest = 1.0
    for number, (name, hits) in enumerate(by_class.items()):
        if not hits.labelled:
            continue
        true = np.cumsum(hits.right)
        precision, recall = true / np.arange(1, len(true) + 1), true / hits.labelled
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(recall, precision, color=colour, label=name)
        counted = int((hits.scores >= thresholds[name]).sum())
        if counted:
            at = (recall[counted - 1], precision[counted - 1])
            axes.plot(*at, "o", color=colour, markersize=9, markeredgecolor="black")
            lowest = min(lowest, *at)
    # Most of a good curve lies in one corner: show that.
    start = max(0.0, np.floor((lowest - 0.1) * 10) / 10)
    axes.set(xlabel="recall", ylabel="precision", xlim=(start, 1.005), ylim=(start, 1.005))
    axes.set_title("precision and recall at IoU > 0.33; dots: at the recipe's thresholds")
    axes.legend(loc="lower left")
    _save(figure, target)


def trade_offs(
    by_class: Mapping[str, Hits], chosen: Mapping[str, Choice], *, miss_cost: float, floor: float, target: Path
) -> None:
    """Left the cost by threshold for each class, right what every price of a miss buys over all classes."""
    figure, (costs, both) = plt.subplots(1, 2, figsize=(14, 5.5))
    for number, (name, hits) in enumerate(by_class.items()):
        if not hits.labelled:
            continue
        colour = COLOURS[number % len(COLOURS)]
        curve = trade_off(hits, miss_cost=miss_cost, floor=floor)
        costs.step([one.up_to for one in curve], [one.cost for one in curve], where="post", color=colour, label=name)
        costs.plot(chosen[name].threshold, chosen[name].cost, "o", color=colour, markersize=9, markeredgecolor="black")
    least = min(one.cost for one in chosen.values())
    costs.set(xlabel="threshold", ylabel="cost, in false calls", xlim=(0, 1), yscale="log" if least > 1 else "symlog")
    costs.set_ylim(bottom=least / 2 if least > 1 else 0)
    costs.set_title(f"cost where a miss is worth {miss_cost:g} false calls; dots: chosen")
    costs.legend(fontsize=9)
    points = [(price, *_at_price(by_class, price, floor)) for price in sorted({*PRICES, miss_cost})]
    both.plot([one[2] for one in points], [one[1] for one in points], "-", color="#555555")
    for price, misses, false_calls in points:
        mine = price == miss_cost
        both.plot(false_calls, misses, "o", color="#d62728" if mine else "#555555", markersize=10 if mine else 6)
        both.annotate(f"{price:g}", (false_calls, misses), xytext=(6, 6), textcoords="offset points")
    both.set(
        xlabel="false calls", ylabel="misses", title="what a price of a miss buys, all classes (number: the price)"
    )
    both.set_ylim(bottom=0)
    _save(figure, target)


def _at_price(by_class: Mapping[str, Hits], price: float, floor: float) -> tuple[int, int]:
    """(misses, false calls) over all classes, each at its cheapest threshold."""
    counts = []
    for hits in by_class.values():
        best = cheapest(trade_off(hits, miss_cost=price, floor=floor))
        counts.append(counts_at(hits, best.threshold))
    return sum(one[0] for one in counts), sum(one[1] for one in counts)


SOAK = {
    "memory_mb": "memory (MB, children included)",
    "handles": "file handles",
    "threads": "threads",
    "ledger_mb": "ledger (MB)",
    "disk_mb": "data folder (MB)",
    "boards": "boards inspected",
}


def soak(samples: Sequence[Mapping[str, Any]], target: Path) -> None:
    """*samples* as ``scripts/soak`` takes them: one small chart for each figure, one line for each station."""
    figure, places = plt.subplots(2, 3, figsize=(15, 7))
    names = list(dict.fromkeys(str(one["station"]) for one in samples))
    for axes, (key, title) in zip(places.flat, SOAK.items(), strict=True):
        for number, name in enumerate(names):
            own = [one for one in samples if one["station"] == name]
            minutes, values = [float(one["minute"]) for one in own], [float(one[key]) for one in own]
            axes.plot(minutes, values, color=COLOURS[number], label=name)
        axes.set(title=title, xlabel="minutes")
        axes.set_ylim(bottom=0)
    places.flat[0].legend()
    figure.tight_layout()
    _save(figure, target)


def _save(figure: Any, target: Path) -> None:
    figure.savefig(target)
    plt.close(figure)
