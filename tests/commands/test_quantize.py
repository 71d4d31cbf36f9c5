"""``station model quantize``: kept where it sees what the original sees, refused where it does not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from station.assets import SAMPLES
from station.commands.model import import_model
from station.commands.quantize import quantize_model
from station.config import Settings
from station.detectors.store import ModelStore
from station.detectors.yolo import NetworkDetector
from station.errors import LabelsError, ModelError
from station.types import Defect, Image
from tests.daemon import picture
from tests.detectors.models import NAMES, save


def convolving(path: Path) -> Path:
    """
    An end-to-end network with a convolution: one "open" at a fixed place, as sure as the red channel's mean, and room
    for a second.
    """
    weights = np.zeros((1, 3, 1, 1), np.float32)
    weights[0, 0] = 1.0
    row: NDArray[np.float32] = np.asarray([[[1, 1, 21, 21, 0, 0], [1, 1, 21, 21, 0, 0]]], np.float32)
    where = np.zeros((1, 2, 6), np.float32)
    where[0, 0, 4] = 1.0
    nodes = [
        helper.make_node("Conv", ["images", "red"], ["plane"], name="conv"),
        helper.make_node("Relu", ["plane"], ["light"], name="relu"),
        helper.make_node("Conv", ["light", "one"], ["same"], name="head"),
        helper.make_node("ReduceMean", ["same"], ["mean"], name="mean", keepdims=0),
        helper.make_node("Mul", ["mean", "where"], ["scored"], name="mul"),
        helper.make_node("Add", ["scored", "row"], ["output0"], name="add"),
    ]
    constants = [
        numpy_helper.from_array(np.repeat(weights, 2, axis=0), "red"),
        numpy_helper.from_array(np.full((2, 2, 1, 1), 0.5, np.float32), "one"),
        numpy_helper.from_array(row, "row"),
        numpy_helper.from_array(where, "where"),
    ]
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])
    made = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 2, 6])
    graph = helper.make_graph(nodes, "test", [given], [made], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"task": "detect", "names": NAMES})
    onnx.save(model, str(path))
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.model_validate(
        {"station": {"data_dir": tmp_path / "data"}, "detector": {"threads": 1, "backend": "onnxruntime"}}
    )


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    folder = tmp_path / "boards"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for number in range(12):
        red = 230 if number < 6 else 0
        cv2.imwrite(str(folder / "images" / f"b{number:02d}.png"), picture(number, red=red))
        if red:
            (folder / "labels" / f"b{number:02d}.txt").write_text(f"0 {11 / 64} {11 / 64} {20 / 64} {20 / 64}\n")
    return folder


def run(settings: Settings, name: str, images: Path, *, max_loss: float | None = None) -> str:
    console = Console(record=True, width=200, file=io.StringIO())
    quantize_model(settings, name, images=images, as_name=None, max_loss=max_loss, console=console)
    return console.export_text()


def test_a_copy_that_sees_the_same_is_kept_with_its_figures_and_the_same_self_test(
    settings: Settings, tmp_path: Path, boards: Path
) -> None:
    store, file = ModelStore(settings.station.data_dir / "models"), convolving(tmp_path / "m.onnx")
    import_model(settings, file, name="m", images=boards, miss_cost=50, trusted=False, console=Console(quiet=True))
    said = run(settings, "m", boards)
    assert "mAP (IoU > 0.33) on 12 boards: 1.000 before, 1.000 after" in said
    card, original = store.card("m-int8"), store.card("m")
    assert (card.boards, card.thresholds) == (original.boards, original.thresholds)
    assert (card.facts["quantized_from"], card.facts["after"]) == ("m", 1.0)
    with pytest.raises(ModelError, match="already"):
        run(settings, "m", boards)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_template_is_not_asked_to_fit_the_boards_that_both_are_judged_by(
    settings: Settings, tmp_path: Path, boards: Path, labelled: bool
) -> None:
    recipe = settings.recipe.model_copy(update={"template": SAMPLES / "pass-template-44000062.jpg"})
    beside = settings.model_copy(update={"recipe": recipe})
    file = convolving(tmp_path / "m.onnx")
    import_model(beside, file, name="m", images=None, miss_cost=50, trusted=False, console=Console(quiet=True))
    assert "1.000 before, 1.000 after" in run(beside, "m", boards if labelled else boards / "images")


def test_without_labels_the_two_are_compared_with_each_other(settings: Settings, tmp_path: Path, boards: Path) -> None:
    file = convolving(tmp_path / "m.onnx")
    import_model(settings, file, name="m", images=None, miss_cost=50, trusted=False, console=Console(quiet=True))
    assert "agreement with the original on 12 boards: 1.000 before, 1.000 after" in run(
        settings, "m", boards / "images"
    )


def test_the_two_are_timed_on_a_picture_of_their_own_size(
    settings: Settings, tmp_path: Path, boards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an import times a model: one of 640 pixels would be cut into tiles for it."""
    seen, rounds, detect = list[tuple[int, ...]](), 7, NetworkDetector.detect_alone

    def spy(detector: NetworkDetector, image: Image) -> list[Defect]:
        seen.append(image.shape)
        return detect(detector, image)

    file = convolving(tmp_path / "m.onnx")
    import_model(settings, file, name="m", images=None, miss_cost=50, trusted=False, console=Console(quiet=True))
    monkeypatch.setattr("station.commands.quantize.ROUNDS", rounds)
    monkeypatch.setattr(NetworkDetector, "detect_alone", spy)
    run(settings, "m", boards)
    assert seen[-2 * rounds :] == [(64, 64, 3)] * 2 * rounds


def test_a_copy_that_loses_more_than_is_allowed_is_not_kept(
    settings: Settings, tmp_path: Path, boards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file = ModelStore(settings.station.data_dir / "models"), convolving(tmp_path / "m.onnx")
    import_model(settings, file, name="m", images=None, miss_cost=50, trusted=False, console=Console(quiet=True))

    def blind(_model: Path, out: Path, *, calibration: object) -> None:
        assert calibration
        save(out, np.zeros((1, 6, 84), np.float32))

    monkeypatch.setattr("station.commands.quantize.quantize", blind)
    with pytest.raises(ModelError, match="is not kept: it loses"):
        run(settings, "m", boards)
    assert store.names() == ["m"]


def less_sure(share: float) -> Callable[..., None]:
    """In the place of ``quantize``: a copy that finds the same in the same order, with this share of its confidence."""

    def copy(model: Path, out: Path, *, calibration: object) -> None:
        made = onnx.load(str(model))
        made.graph.node[-1].output[0] = "sure"
        made.graph.initializer.append(numpy_helper.from_array(np.asarray([1, 1, 1, 1, share, 1], np.float32), "share"))
        made.graph.node.append(helper.make_node("Mul", ["sure", "share"], ["output0"], name="less"))
        onnx.save(made, str(out))

    return copy


@pytest.mark.parametrize("labelled", [True, False])
def test_a_copy_that_passes_what_the_original_fails_is_not_kept_however_well_it_ranks(
    settings: Settings, tmp_path: Path, boards: Path, monkeypatch: pytest.MonkeyPatch, labelled: bool
) -> None:
    store, file = ModelStore(settings.station.data_dir / "models"), convolving(tmp_path / "m.onnx")
    import_model(settings, file, name="m", images=None, miss_cost=50, trusted=False, console=Console(quiet=True))
    monkeypatch.setattr("station.commands.quantize.quantize", less_sure(0.5))
    monkeypatch.setattr("station.commands.quantize.ROUNDS", 1)  # how fast it is does not matter here
    images = boards if labelled else boards / "images"
    with pytest.raises(ModelError, match=r"would pass what m fails: of 6 open 6 count at 0\.5 before, 0 after"):
        run(settings, "m", images)
    assert store.names() == ["m"]
    assert "1.000 before, 1.000 after" in run(settings, "m", images, max_loss=1.0)


def test_what_counts_is_as_the_recipe_says_and_first_as_the_models_card_does(
    settings: Settings, tmp_path: Path, boards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, file = ModelStore(settings.station.data_dir / "models"), convolving(tmp_path / "m.onnx")
    low = settings.model_copy(update={"recipe": settings.recipe.model_copy(update={"thresholds": {"open": 0.2}})})
    for name, images in (("plain", None), ("weighed", boards)):
        import_model(settings, file, name=name, images=images, miss_cost=50, trusted=False, console=Console(quiet=True))
    monkeypatch.setattr("station.commands.quantize.quantize", less_sure(0.3))
    monkeypatch.setattr("station.commands.quantize.ROUNDS", 1)  # how fast it is does not matter here
    run(low, "plain", boards)
    assert store.card("plain-int8").facts["largest_loss_of_a_label"] == 0
    at = store.card("weighed").thresholds["open"]
    with pytest.raises(ModelError, match=f"6 count at {at:g} before, 0 after"):
        run(low, "weighed", boards)


@pytest.mark.parametrize("name", ["nothing", "../x"])
def test_a_model_or_folder_that_is_not_there_is_a_clear_error(
    settings: Settings, tmp_path: Path, boards: Path, name: str
) -> None:
    with pytest.raises(ModelError):
        run(settings, name, boards)
    with pytest.raises(LabelsError, match="no picture"):
        run(settings, "pcb-demo", tmp_path / "empty")
