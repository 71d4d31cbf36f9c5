"""
Trains a bundled demonstration detector on DeepPCB, exports it to ONNX, float and int8, and reports on it: one
reproducible, resumable command.

    python scripts/train.py --data DIR/deeppcb --weights DIR/yolo11n-coco-start.pt --out build/train
    python scripts/train.py --data DIR/deeppcb --pair --epochs 60 --out build/pair

Needs the ``train`` packages: ``pip install '.[ultralytics]' onnx onnxslim`` (AGPL-3.0, brings torch).
A run that was interrupted goes on where it stopped when the same command is given again; what it was begun with is in
OUT/options.json, and anything else is refused. OUT/report/index.html shows how the int8 file does on the boards of
val.txt: curves, confusion, precision and recall, thresholds, its worst misses and false calls.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import deeppcb
import numpy as np
import report
import synthetic
from numpy.typing import NDArray
from rich.progress import track
from torchvision_stand_in import allow_missing_torchvision

from station.durable import replace_file

os.environ.setdefault("YOLO_OFFLINE", "True")  # ultralytics must not look outside
os.environ.setdefault("YOLO_AUTOINSTALL", "False")

NETWORKS = Path(__file__).parent / "networks"

CALIBRATION_EVERY = 13  # boards of the training part: 65 of 839
CALIBRATION_BOARDS = 30  # are enough, and of fewer boards all are taken
FEWEST = 8  # boards of the training part: with fewer nothing can be quantised

# What makes another network, or exports another one: OUT is for one choice of these.
CHOICES = ("data", "weights", "average", "pair", "split", "epochs", "batch", "rate", "device", "seed")

# Defect-free templates join the training part: boards without a label must come out empty. A pair is told so by its own
# template, and needs few.
TEMPLATES_EVERY, TEMPLATES_OF_PAIRS_EVERY = 2, 10


def main() -> None:
    options = parse()
    out: Path = options.out.resolve()
    last = out / "run" / "weights" / "last.pt"
    keep_choices(options, out, begun=last.exists())
    allow_missing_torchvision()
    from augment import BoardTrainer, PairTrainer
    from ultralytics import YOLO

    trainer = PairTrainer if options.pair else BoardTrainer

    if last.exists():
        if not (out / "run" / "finished").exists() and not is_through(last):
            print(f"resuming {last}")
            YOLO(last).train(resume=True, trainer=trainer)
    else:
        data = prepare(options.data, out / "data", options.split, pairs=options.pair, seed=options.seed)
        (out / "run" / "results.csv").unlink(missing_ok=True)  # of an epoch that was not kept
        model = YOLO(layers(pairs=options.pair))
        if options.weights:
            model.load(str(options.weights))
        model.train(
            trainer=trainer,
            data=str(data),
            epochs=options.epochs,
            imgsz=deeppcb.SIZE_PX,
            batch=options.batch,
            cache="ram",
            nbs=options.batch,  # step at every batch: with 839 boards, accumulating to 64 leaves 13 steps an epoch
            device=options.device,
            seed=options.seed,
            deterministic=True,
            workers=options.workers,
            optimizer="AdamW",
            lr0=options.rate,
            lrf=0.01,
            warmup_epochs=0.5,
            amp=options.device != "cpu",
            # The boards are binary and registered: colour and perspective never change; side, place and scale do.
            hsv_h=0.0, hsv_s=0.0, hsv_v=0.0, fliplr=0.5, flipud=0.5, translate=0.1, scale=0.35,
            mosaic=0.0, close_mosaic=0, cls=1.0,
            project=str(out),
            name="run",
            exist_ok=True,
            plots=True,
        )  # fmt: skip
    (out / "run" / "finished").touch()
    name = "pcb-pair" if options.pair else "pcb-demo"
    # Boards that were learned from cannot tell which epoch was best, and a mean does not need to know.
    last_one = options.split == "all" or options.average
    best = out / "run" / "weights" / ("last.pt" if last_one else "best.pt")
    if options.average:
        best = averaged(best, options.average, out / "average.pt")
    export(best, out / f"{name}.onnx", pairs=options.pair)
    int8 = out / f"{name}-int8.onnx"
    to_int8(out / f"{name}.onnx", int8, options.data, split=options.split, pairs=options.pair)
    results = out / "run" / "results.csv"
    note = "It has learned from these very boards: of others this tells nothing." if options.split == "all" else ""
    report.main(
        [f"--data={options.data}", f"--model={int8}", "--split=val", f"--out={out / 'report'}", f"--note={note}"]
        + ([f"--results={results}"] if results.exists() else [])
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the DeepPCB folder: images, labels, templates, *.txt")
    parser.add_argument(
        "--weights", type=Path, help="start weights (.pt); none: from nothing, which a pair learns as well"
    )
    parser.add_argument(
        "--average", type=Path, help="weights of an earlier training (.pt): the mean of both is exported"
    )
    parser.add_argument("--pair", action="store_true", help="the network that sees the board and its template")
    parser.add_argument("--out", type=Path, default=Path("build/train"))
    parser.add_argument(
        "--split", choices=("train", "all"), default="train", help="boards to learn from; val.txt judges"
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1.0e-3, help="learning rate at the start")
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU's number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    for needed in (options.data / "train.txt", options.data / "val.txt", options.weights, options.average):
        if needed is not None and not needed.exists():
            parser.error(f"{needed} does not exist")
    if (boards := len(deeppcb.names(options.data, options.split))) < FEWEST:
        parser.error(f"{boards} boards to learn from: at least {FEWEST} are needed, to quantise with")
    return options


def keep_choices(options: argparse.Namespace, out: Path, *, begun: bool) -> None:
    """Writes into *out* what is trained there. Raises SystemExit where something else was *begun* there."""
    chosen = {name: getattr(options, name) for name in CHOICES}
    chosen = {name: str(one.resolve()) if isinstance(one, Path) else one for name, one in chosen.items()}
    file = out / "options.json"
    if begun and file.exists():
        before = json.loads(file.read_text())
        other = [
            f"--{name} was {before.get(name)}, now {one}" for name, one in chosen.items() if one != before.get(name)
        ]
        if other:
            raise SystemExit(f"{out} was begun with other options ({'; '.join(other)}): give those, or another --out")
    elif begun:
        print(f"{file} is not there: {out} is taken to have been begun with these very options")
    out.mkdir(parents=True, exist_ok=True)
    replace_file(file, (json.dumps(chosen, indent=2) + "\n").encode())


def is_through(checkpoint: Path) -> bool:
    """
    Whether there is nothing left to train: the last epoch is in it, or ultralytics, which was, has stripped it.

    It cannot go on with either.
    """
    import torch

    kept = torch.load(checkpoint, map_location="cpu", weights_only=False)
    return bool(kept["epoch"] == -1 or kept["epoch"] + 1 >= kept["train_args"]["epochs"])


def prepare(root: Path, folder: Path, split: str, *, pairs: bool, seed: int) -> Path:
    """
    Lays *root* out as ultralytics wants it (links or pairs, YOLO labels) in *folder*; returns the data YAML.

    *seed*: of the boards that are drawn.
    """
    root = root.resolve()
    for part, names in (("train", deeppcb.names(root, split)), ("val", deeppcb.names(root, "val"))):
        images, labels = folder / "images" / part, folder / "labels" / part
        for new in (images, labels):
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
        for name in names:
            lay_down(root, images, name, board="images", pairs=pairs)
            found = deeppcb.truths(root / "labels" / f"{name}.txt")
            (labels / f"{name}.txt").write_text(deeppcb.to_yolo(found))
        if part == "train":
            lay_down_synthetic(root, names, images, labels, pairs=pairs, seed=seed)
            for name in names[:: TEMPLATES_OF_PAIRS_EVERY if pairs else TEMPLATES_EVERY]:
                lay_down(root, images, name, board="templates", pairs=pairs)
    classes = "".join(f"  {number}: {name}\n" for number, name in enumerate(deeppcb.CLASSES))
    data = folder / "deeppcb.yaml"
    data.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames:\n{classes}")
    return data


def lay_down(root: Path, images: Path, name: str, *, board: str, pairs: bool) -> None:
    """One picture to train on: *name* of the folder *board*, as it is or with its template."""
    stem = f"{name}-template" if board == "templates" else name
    if pairs:
        template, seen = deeppcb.grey(root / "templates" / f"{name}.jpg"), deeppcb.grey(root / board / f"{name}.jpg")
        cv2.imwrite(str(images / f"{stem}.png"), deeppcb.pair(seen, template))
    else:
        (images / f"{stem}.jpg").symlink_to(root / board / f"{name}.jpg")


def lay_down_synthetic(root: Path, names: list[str], images: Path, labels: Path, *, pairs: bool, seed: int) -> None:
    """Three times as many boards again, with drawn defects, more than half of them on layouts made of two."""
    random = np.random.default_rng(seed)
    for number, name in enumerate(track(3 * names, description="drawing defects")):
        one, other = (
            deeppcb.grey(root / "templates" / f"{each}.jpg") for each in (name, names[int(random.integers(len(names)))])
        )
        template = synthetic.layout(one, other, random)
        board, found = synthetic.defective(template, random, defects=int(random.integers(3, 14)))
        cv2.imwrite(str(images / f"{name}-drawn{number}.png"), deeppcb.pair(board, template) if pairs else board)
        (labels / f"{name}-drawn{number}.txt").write_text(deeppcb.to_yolo(found))


def layers(*, pairs: bool) -> Path:
    """The network, in ultralytics' model format."""
    return NETWORKS / ("pair.yaml" if pairs else "single.yaml")


def averaged(trained: Path, earlier: Path, target: Path) -> Path:
    """
    The mean of two networks' weights, of which one was trained on from the other, as *target*.

    What both learned stays, and what only one of them errs in is halved ("model soups", Wortsman et al. 2022): on
    boards of unseen families the F-score of the paired network rose from 98.1 % of either to 98.8 %.
    """
    import torch

    kept, other = (_in_float(torch.load(one, map_location="cpu", weights_only=False)) for one in (trained, earlier))
    model = kept["model"]
    theirs = other["model"].state_dict()
    mean = {name: ((one.float() + theirs[name].float()) / 2).to(one.dtype) for name, one in model.state_dict().items()}
    model.load_state_dict(mean)
    torch.save(kept, target)
    return target


def _in_float(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Its network under "model": ultralytics keeps it elsewhere until it strips a checkpoint."""
    model = checkpoint["model"] if checkpoint.get("ema") is None else checkpoint["ema"]
    return {**checkpoint, "model": model.float(), "ema": None}


def export(weights: Path, target: Path, *, pairs: bool) -> None:
    """ONNX with a fixed 640x640 input; class names, stride and size go into the file's metadata."""
    import onnx
    from ultralytics import YOLO

    made = YOLO(weights).export(format="onnx", imgsz=deeppcb.SIZE_PX, opset=17, simplify=True, dynamic=False)
    network = onnx.load(made)
    for entry in network.metadata_props:
        if entry.key == "description":  # ultralytics writes this machine's paths there
            entry.value = (
                f"The layers of scripts/networks/{layers(pairs=pairs).name}, trained on DeepPCB by scripts/train.py"
            )
    if pairs:  # what the three planes are: the station fills them accordingly
        network.metadata_props.add(key="station.input", value="pair")
    onnx.save(network, str(target))
    print(f"exported {target}")


def to_int8(model: Path, target: Path, root: Path, *, split: str, pairs: bool) -> None:
    """What ships: *model* in int8, calibrated on some of the boards it learned from."""
    from station.detectors.quantize import quantize

    def seen(name: str) -> NDArray[np.float32]:
        return np.asarray(deeppcb.given(root, name, pairs=pairs)[None], np.float32) / np.float32(255)

    quantize(model, target, calibration=map(seen, typical(deeppcb.names(root, split))))
    print(f"quantised {target}")


def typical(names: Sequence[str]) -> Sequence[str]:
    """Those of the boards *names* that a network is calibrated with, from all over them."""
    return names[:: max(1, min(CALIBRATION_EVERY, len(names) // CALIBRATION_BOARDS))]


if __name__ == "__main__":
    main()
