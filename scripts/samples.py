"""
Picks the bundled sample boards from DeepPCB's val part: six defective boards, three templates, one file cut off.

    python scripts/samples.py --data DIR/deeppcb

The three templates are taken from those that the bundled model passes, since a sample shows how the station answers;
how often it is wrong on all of them is a figure of the model's card.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import deeppcb
from judge import open_detector

from station.assets import ASSETS, SAMPLES
from station.config import Settings
from station.decide import decide
from station.sections import DetectorSection
from station.types import Recipe, Verdict

CUT_OFF_AT = 0.4  # of the file's bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    root: Path = parser.parse_args().data
    detector = open_detector(Settings(detector=DetectorSection(model="pcb-demo")), confidence=0.25)
    recipe = Recipe("default", 0.5)

    def verdict(path: Path) -> Verdict:
        return decide(detector.detect(deeppcb.picture(path), None).listed, recipe).verdict

    shutil.rmtree(SAMPLES, ignore_errors=True)
    SAMPLES.mkdir(parents=True)
    names = deeppcb.names(root, "val")
    failing = [name for name in names if verdict(root / "images" / f"{name}.jpg") is Verdict.FAIL]
    passing = [name for name in names if verdict(root / "templates" / f"{name}.jpg") is Verdict.PASS]
    for kind, name in zip(deeppcb.CLASSES, _one_of_each_class(root, failing), strict=True):
        shutil.copyfile(root / "images" / f"{name}.jpg", SAMPLES / f"fail-{kind}-{name}.jpg")
    for name in passing[:: len(passing) // 3][:3]:
        shutil.copyfile(root / "templates" / f"{name}.jpg", SAMPLES / f"pass-template-{name}.jpg")
    whole = (root / "images" / f"{failing[-1]}.jpg").read_bytes()
    (SAMPLES / f"unknown-cut-off-{failing[-1]}.jpg").write_bytes(whole[: int(len(whole) * CUT_OFF_AT)])
    shutil.copyfile(root / "LICENSE", ASSETS / "LICENSE-samples")
    print(*sorted(one.name for one in SAMPLES.iterdir()), sep="\n")


def _one_of_each_class(root: Path, names: list[str]) -> list[str]:
    """For each class a board, from different places of the list, that has a defect of it."""
    chosen: list[str] = []
    for number, _ in enumerate(deeppcb.CLASSES):
        start = number * len(names) // len(deeppcb.CLASSES)
        for name in names[start:] + names[:start]:
            found = deeppcb.truths(root / "labels" / f"{name}.txt")
            if name not in chosen and any(one.class_id == number for one in found):
                chosen.append(name)
                break
    return chosen


if __name__ == "__main__":
    main()
