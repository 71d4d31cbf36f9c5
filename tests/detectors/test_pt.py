"""A .pt is converted by a child, and believed only where the result agrees with the original."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from station.assets import SAMPLES
from station.config import Settings
from station.detectors.onnx import OnnxNetwork
from station.detectors.pt import Agreement, Told, agreement, convert
from station.errors import ModelError
from station.labelled import load
from station.model_choice import onnx_of
from station.types import Box, Defect
from tests.detectors.models import save

BOX = Box(10, 10, 100, 50)


def child(folder: Path, body: str) -> tuple[str, ...]:
    """Stands for the child's interpreter: it is given what that is given, and does *body* instead."""
    script = folder / "child.py"
    head = "import json, os, sys\npt, folder, pictures = sys.argv[3], sys.argv[4], sys.argv[5:]\n"
    head += "def say(**line): print(json.dumps(line), flush=True)\n"
    script.write_text(head + textwrap.dedent(body))
    return (sys.executable, str(script))


def run(tmp_path: Path, body: str, *, pictures: Sequence[Path] = (), stuck_s: float = 60.0) -> tuple[object, list[str]]:
    pt, folder, said = tmp_path / "best.pt", tmp_path / "work", list[str]()
    pt.write_bytes(b"weights")
    folder.mkdir()
    made = convert(
        pt, folder, pictures=pictures, on_progress=said.append, python=child(tmp_path, body), stuck_s=stuck_s
    )
    return made, said


GOOD = """
    say(step="loading")
    say(step="exporting")
    open(folder + "/model.onnx", "wb").write(b"network")
    open(folder + "/0.png", "wb").write(b"picture")
    row = {"label": "open", "confidence": 0.9, "box": [10, 10, 110, 60]}
    open(folder + "/0.json", "w").write(json.dumps([row]))
    say(done=True)
"""


def test_what_the_child_makes_and_tells_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    made, said = run(tmp_path, GOOD)
    assert said == ["loading", "exporting"]
    assert (folder / "model.onnx").read_bytes() == b"network"
    assert made.told == (Told(folder / "0.png", (Defect("open", 0.9, BOX, "best"),)),)  # type: ignore[attr-defined]  # it is a Converted


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('say(error="no module", missing=True)', r"bin/pip install 'onnx.* 'ultralytics"),
        ('say(error="task segment")', "cannot be converted: task segment"),
        ("say(done=True)", "left no file"),
        ('say(step="loading"); sys.exit(9)', "ended with 9 while loading"),
        ('sys.stderr.write("Killed\\n"); os.kill(os.getpid(), 9)', "ended with -9 while starting: Killed"),
        ('print("no json"); print("[]"); say(error="x")', "cannot be converted: x"),
    ],
)
def test_whatever_becomes_of_the_child_is_said_in_one_line(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        run(tmp_path, body)


def test_what_the_child_wrote_is_not_believed_blindly(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not understood"):
        run(tmp_path, GOOD.replace("json.dumps([row])", '"[{}]"'))


def test_a_child_that_stands_still_is_killed(tmp_path: Path) -> None:
    pipe = "say(step='loading'); open('pid', 'w').write(str(os.getpid())); os.read(os.pipe()[0], 1)"
    with pytest.raises(ModelError, match=r"stands still .*loading"):
        run(tmp_path, pipe, stuck_s=5.0)
    pid = int((tmp_path / "work" / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_the_child_gets_no_secret_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hush")
    monkeypatch.setenv("STATION_MQTT__USERNAME", "hush")
    with pytest.raises(ModelError) as caught:
        run(tmp_path, 'say(error=json.dumps(sorted(os.environ)) + str("hush" in str(os.environ)))')
    assert "False" in str(caught.value)


def test_no_python_and_no_file_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"x")
    (tmp_path / "work").mkdir()
    with pytest.raises(ModelError, match="cannot be started"):
        convert(
            tmp_path / "a.pt", tmp_path / "work", pictures=(), on_progress=print, python=(str(tmp_path / "nothing"),)
        )
    with pytest.raises(ModelError, match="no such file"):
        convert(tmp_path / "b.pt", tmp_path, pictures=(), on_progress=print)


def told(*defects: Defect) -> list[Told]:
    return [Told(Path("0.png"), defects)]


def defect(confidence: float, *, label: str = "open", x: float = 10) -> Defect:
    return Defect(label, confidence, Box(x, 10, 100, 50), "m")


def test_two_that_agree_are_believed() -> None:
    agreed = agreement(told(defect(0.9), defect(0.05, x=300)), lambda _: [defect(0.895, x=11)])
    assert agreed.compared == 1  # what is weak is not asked for where something is sure
    assert agreed.largest_score_difference == pytest.approx(0.005)
    assert agreed.smallest_iou == pytest.approx(99 / 101, abs=1e-4)


@pytest.mark.parametrize(
    "ours",
    [[], [defect(0.8)], [defect(0.9, label="short")], [defect(0.9, x=40)], [defect(0.9), defect(0.5, x=300)]],
    ids=["nothing", "another score", "another label", "another place", "one more"],
)
def test_two_that_differ_are_not_believed(ours: list[Defect]) -> None:
    with pytest.raises(ModelError, match="does not agree"):
        agreement(told(defect(0.9)), lambda _: ours)


def test_of_weak_defects_nine_in_ten_must_agree() -> None:
    weak = [defect(0.05, x=200 * number) for number in range(20)]
    assert agreement(told(*weak), lambda _: weak[:18]).compared == 20
    with pytest.raises(ModelError, match="does not agree"):
        agreement(told(*weak), lambda _: weak[:17])


def test_without_anything_to_compare_nothing_is_believed() -> None:
    with pytest.raises(ModelError, match="--images DIR"):
        agreement(told(), lambda _: [])


ULTRALYTICS = """
import shutil
from types import SimpleNamespace
import numpy as np
from ultralytics.utils import {place}

class YOLO:
    # Stands for the real one, whose predict tells each box under its best label only.
    task, overrides = "detect", {{"imgsz": 64}}
    def __init__(self, path): pass
    def export(self, **_): return shutil.copy(__file__.replace("__init__.py", "same.onnx"), "made.onnx")
    def predict(self, frame, *, conf, iou, **_):
        answer = np.load(__file__.replace("__init__.py", "answer.npy"))
        rows = {place}.non_max_suppression(answer, conf, iou, None, False)
        boxes = SimpleNamespace(xyxy=rows[:, :4], conf=rows[:, 4], cls=rows[:, 5])
        return [SimpleNamespace(names={{0: "open", 1: "short"}}, boxes=boxes)]
"""
SUPPRESSION = """
import numpy as np

def non_max_suppression(prediction, conf_thres, iou_thres, classes=None, agnostic=False, multi_label=False):
    rows = []
    for x, y, width, height, *scores in prediction[0].T:
        for kind in range(len(scores)) if multi_label else [int(np.argmax(scores))]:
            if scores[kind] > conf_thres:
                box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
                rows.append((*box, scores[kind], kind))
    return np.array(rows)
"""


def converted(pt: Path, *, pictures: Sequence[Path]) -> Agreement:
    """What becomes of *pt* on its whole way, with the child that is ours."""
    folder = pt.parent / "work"
    folder.mkdir()
    settings = Settings.model_validate(
        {"station": {"data_dir": pt.parent / "data"}, "detector": {"backend": "onnxruntime", "threads": 1}}
    )
    return onnx_of(pt, folder, settings, pictures=pictures, on_progress=print)[1]


@pytest.mark.parametrize("place", ["nms", "ops"])
def test_a_box_that_may_have_two_labels_is_compared_under_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The station lists it under both: an original that were asked for the best one only would never agree."""
    package = tmp_path / "site" / "ultralytics"
    (package / "utils").mkdir(parents=True)
    answer = np.zeros((1, 6, 84), np.float32)
    answer[0, :, 0] = [30, 30, 20, 20, 0.9, 0.4]
    np.save(package / "answer.npy", answer)
    save(package / "same.onnx", answer)
    (package / "__init__.py").write_text(ULTRALYTICS.format(place=place))
    (package / "utils" / "__init__.py").write_text("")
    (package / "utils" / f"{place}.py").write_text(SUPPRESSION)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    (tmp_path / "best.pt").write_bytes(b"weights")
    agreed = converted(tmp_path / "best.pt", pictures=sorted(SAMPLES.glob("fail-*"))[:1])
    assert (agreed.compared, agreed.smallest_iou) == (2, 1.0)


needs_ultralytics = pytest.mark.skipif(
    importlib.util.find_spec("ultralytics") is None, reason="ultralytics is not installed"
)


@needs_ultralytics
def test_ultralytics_converts_a_network_of_its_own(tmp_path: Path) -> None:
    from ultralytics import YOLO

    YOLO("yolo11n.yaml").save(tmp_path / "fresh.pt")
    (tmp_path / "work").mkdir()
    made = convert(
        tmp_path / "fresh.pt", tmp_path / "work", pictures=sorted(SAMPLES.glob("fail-*"))[:2], on_progress=print
    )
    assert len(OnnxNetwork(made.onnx).labels) == 80
    assert len(made.told) == 2


@needs_ultralytics
@pytest.mark.parametrize("kind", ["yolov8n", "yolo11n"])
def test_a_network_that_is_in_two_minds_agrees_with_what_ultralytics_makes_of_it(tmp_path: Path, kind: str) -> None:
    import torch
    from ultralytics import YOLO
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    pictures = sorted(SAMPLES.glob("fail-*"))[:2]
    model = YOLO(f"{kind}.yaml")
    network = model.model = DetectionModel(f"{kind}.yaml", nc=2, verbose=False)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # one look at the pictures, or a fresh network answers the same everywhere
    with torch.no_grad():
        seen = np.stack([load(one) for one in pictures]).transpose(0, 3, 1, 2) / 255
        network(torch.from_numpy(seen).float())
        for name, values in network.named_parameters():
            if "cv3" in name and name.endswith(".2.weight"):
                values[1] = values[0]
            if "cv3" in name and name.endswith(".2.bias"):  # the second label is always a little behind the first
                values.copy_(torch.tensor([-4.0, -4.5]))
    model.save(tmp_path / "fresh.pt")
    assert converted(tmp_path / "fresh.pt", pictures=pictures).compared > 10


def test_the_child_is_a_program_that_needs_nothing_of_ours() -> None:
    source = (Path(__file__).parents[2] / "station" / "detectors" / "pt_child.py").read_text()
    assert "from station" not in source
    assert "import station" not in source
