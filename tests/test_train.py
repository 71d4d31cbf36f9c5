"""What scripts/train.py does around ultralytics, which a stand-in plays: resuming, refusing, drawing, reporting."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import report
import train

from tests.detectors.models import save
from tests.detectors.outputs import rows

EPOCHS = 3
SIZE_PX = 640
NAMES = "{0: 'open', 1: 'short', 2: 'mousebite', 3: 'spur', 4: 'copper', 5: 'pin-hole'}"


class Ultralytics:
    """Writes what ultralytics writes, and is stopped where the test wants it to be."""

    def __init__(self) -> None:
        self.run = Path()
        self.asked: list[str] = []
        self.stop_after: int | None = None  # this epoch was kept
        self.stripped = True

    def train(self, *, resume: bool = False, project: str = "", **_options: object) -> None:
        if not resume:
            self.run = Path(project, "run")
        weights = self.run / "weights"
        weights.mkdir(parents=True, exist_ok=True)
        last = weights / "last.pt"
        first = json.loads(last.read_text())["epoch"] + 1 if resume else 0
        assert 0 <= first < EPOCHS, "training is finished, nothing to resume"
        self.asked.append("resume" if resume else "train")
        with (self.run / "results.csv").open("a") as results:
            if not results.tell():
                results.write("epoch,train/box_loss,metrics/mAP50(B)\n")
            for epoch in range(first, EPOCHS):
                results.write(f"{epoch + 1},0.5,0.9\n")
                kept = {"epoch": epoch, "train_args": {"epochs": EPOCHS}}
                for name in ("last.pt", "best.pt"):
                    (weights / name).write_text(json.dumps(kept))
                if epoch == self.stop_after:
                    raise KeyboardInterrupt
        if self.stripped:
            last.write_text(json.dumps({"epoch": -1, "train_args": {}}))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten boards to learn from and one to judge with; only that one has pictures."""
    root = tmp_path / "data"
    for folder in ("images", "labels", "templates"):
        (root / folder).mkdir(parents=True)
    (root / "train.txt").write_text("\n".join(f"{number:08}" for number in range(10)))
    (root / "val.txt").write_text("44000001\n")
    for folder in ("images", "templates"):
        cv2.imwrite(str(root / folder / "44000001.jpg"), np.eye(64, dtype=np.uint8) * 255)
    (root / "labels" / "44000001.txt").write_text("15 26 25 34 1\n")
    return root


@pytest.fixture
def ultralytics(monkeypatch: pytest.MonkeyPatch) -> Ultralytics:
    stand_in = Ultralytics()

    class Yolo:
        def __init__(self, _what: object) -> None: ...

        def load(self, _weights: str) -> None: ...

        def train(self, **options: Any) -> None:
            stand_in.train(**options)

    def module(name: str, **contents: object) -> None:
        made = ModuleType(name)
        vars(made).update(contents)
        monkeypatch.setitem(sys.modules, name, made)

    module("ultralytics", YOLO=Yolo)
    module("augment", BoardTrainer=object, PairTrainer=object)
    module("torch", load=lambda path, **_: json.loads(Path(path).read_text()))
    monkeypatch.setattr(train, "allow_missing_torchvision", lambda: None)
    monkeypatch.setattr(train, "prepare", lambda *_, **__: Path("deeppcb.yaml"))
    monkeypatch.setattr(train, "export", lambda _weights, target, **_: target.write_text("exported"))
    monkeypatch.setattr(
        train,
        "to_int8",
        lambda _model, target, *_, **__: save(target, rows((20, 30, 10, 8, 0.9, *[0.0] * 5)), names=NAMES),
    )
    return stand_in


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the report was asked for, which is not written."""
    asked: list[list[str]] = []
    monkeypatch.setattr(report, "main", asked.append)
    return asked


@pytest.fixture
def start(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def run(*options: str | Path) -> None:
        monkeypatch.setattr(sys, "argv", ["train.py", "--data", str(data), "--out", str(out), *map(str, options)])
        train.main()

    return run


def test_a_training_ends_with_a_report_on_what_ships(
    start: Callable[..., None], ultralytics: Ultralytics, reports: list[list[str]], out: Path, data: Path
) -> None:
    start()
    assert reports == [
        [
            f"--data={data}",
            f"--model={out / 'pcb-demo-int8.onnx'}",
            "--split=val",
            f"--out={out / 'report'}",
            "--note=",
            f"--results={out / 'run' / 'results.csv'}",
        ]
    ]
    start("--pair", "--split", "all", "--out", out.with_name("pair"))
    assert f"--model={out.with_name('pair') / 'pcb-pair-int8.onnx'}" in reports[-1]
    assert "--note=It has learned from these very boards: of others this tells nothing." in reports[-1]


def test_the_report_is_written_beside_the_model(
    start: Callable[..., None], ultralytics: Ultralytics, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the report is drawn with matplotlib")
    monkeypatch.chdir(out.parent)
    start("--split", "all")
    page = (out / "report" / "index.html").read_text()
    assert "Report: pcb-demo-int8" in page
    assert "It has learned from these very boards" in page
    for name in ("training.png", "confusion.png", "precision-recall.png", "thresholds.png"):
        assert (out / "report" / name).is_file()


def test_a_training_that_was_stopped_is_resumed(
    start: Callable[..., None], ultralytics: Ultralytics, reports: list[list[str]]
) -> None:
    ultralytics.stop_after = 0
    with pytest.raises(KeyboardInterrupt):
        start()
    ultralytics.stop_after = None
    start()
    assert (ultralytics.asked, len(reports)) == (["train", "resume"], 1)
    start()  # it is finished: only what comes after is made again
    assert (ultralytics.asked, len(reports)) == (["train", "resume"], 2)


@pytest.mark.parametrize("stripped", [True, False])
def test_one_that_was_stopped_after_its_last_epoch_is_exported(
    stripped: bool, start: Callable[..., None], ultralytics: Ultralytics, reports: list[list[str]], out: Path
) -> None:
    """Before ultralytics strips its checkpoints, or after: neither can be resumed."""
    ultralytics.stripped = stripped
    start()
    (out / "run" / "finished").unlink()
    (out / "pcb-demo.onnx").unlink()
    start()
    assert (ultralytics.asked, len(reports)) == (["train"], 2)
    assert (out / "pcb-demo.onnx").exists()


def test_one_that_was_stopped_in_its_first_epoch_begins_anew_with_any_options(
    start: Callable[..., None], ultralytics: Ultralytics, reports: list[list[str]], out: Path
) -> None:
    (out / "run").mkdir(parents=True)
    (out / "run" / "results.csv").write_text("epoch\n1\n")  # its weights were not kept
    (out / "options.json").write_text('{"epochs": 99}')
    start()
    assert ultralytics.asked == ["train"]
    assert (out / "run" / "results.csv").read_text().split()[1:] == ["1,0.5,0.9", "2,0.5,0.9", "3,0.5,0.9"]


@pytest.mark.parametrize("finished", [True, False])
def test_other_options_are_refused_where_something_was_trained_already(
    finished: bool, start: Callable[..., None], ultralytics: Ultralytics, reports: list[list[str]], out: Path
) -> None:
    ultralytics.stop_after = None if finished else 0
    try:
        start("--epochs", 3)
    except KeyboardInterrupt:
        assert not finished
    before = (out / "options.json").read_text()
    with pytest.raises(SystemExit, match=r"other options \(--pair was False, now True; --epochs was 3, now 4\): give"):
        start("--epochs", 4, "--pair")
    assert (ultralytics.asked, len(reports)) == (["train"], int(finished))
    assert (out / "options.json").read_text() == before
    ultralytics.stop_after = None
    start("--epochs", 3, "--workers", 0)  # which changes nothing of what comes out
    assert len(reports) == int(finished) + 1


def test_a_training_of_before_options_were_kept_goes_on(
    start: Callable[..., None], ultralytics: Ultralytics, reports: list[list[str]], out: Path, capsys: Any
) -> None:
    start()
    (out / "options.json").unlink()
    start()
    assert "is taken to have been begun with these very options" in capsys.readouterr().out
    assert (out / "options.json").exists()


def test_too_few_boards_are_refused_before_anything_is_trained(
    start: Callable[..., None], ultralytics: Ultralytics, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "train.txt").write_text("1 2 3 4 5 6 7")
    with pytest.raises(SystemExit) as stopped:
        start()
    assert stopped.value.code == 2
    assert "7 boards to learn from: at least 8 are needed" in capsys.readouterr().err
    assert not ultralytics.asked


@pytest.mark.parametrize(("boards", "taken"), [(839, 65), (1000, 77), (103, 35), (91, 31), (60, 30), (59, 59), (8, 8)])
def test_enough_boards_calibrate_however_few_there_are(boards: int, taken: int) -> None:
    names = [str(number) for number in range(boards)]
    chosen = train.typical(names)
    assert len(chosen) == taken
    if boards == 839:
        assert chosen == names[::13]  # as the networks that ship were quantised


def test_the_seed_draws_the_boards(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "templates").mkdir(parents=True)
    board = np.full((SIZE_PX, SIZE_PX), 255, np.uint8)
    for y in range(20, SIZE_PX, 60):
        cv2.line(board, (20, y), (SIZE_PX - 20, y), 0, 16)
    cv2.imwrite(str(root / "templates" / "1.jpg"), board)

    def drawn(folder: str, seed: int) -> list[str]:
        target = tmp_path / folder
        target.mkdir()
        train.lay_down_synthetic(root, ["1"], target, target, pairs=False, seed=seed)
        return [one.read_text() for one in sorted(target.glob("*.txt"))]

    assert drawn("a", 0) == drawn("b", 0)
    assert drawn("c", 1) != drawn("d", 2)
