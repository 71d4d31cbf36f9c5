"""The detector on onnxruntime: exact boxes from known outputs, and clear words for a model that cannot be used."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from station.detectors.decode import Layout, decode, layout_of
from station.detectors.onnx import OnnxDetector
from station.detectors.preprocess import Letterbox
from station.detectors.store import find_model
from station.errors import DetectorError, ModelError
from station.types import Box, Image
from tests.detectors.models import save, save_seeing


def detector(path: Path, *, iou: float = 0.45, sha256: str | None = None) -> OnnxDetector:
    return OnnxDetector(path, name="m", confidence=0.25, iou=iou, threads=1, sha256=sha256)


def grey(height: int = 64, width: int = 64) -> Image:
    return np.full((height, width, 3), 114, np.uint8)


def rows(*candidates: tuple[float, ...]) -> NDArray[np.float32]:
    """YOLOv8's way: 1 x (4 + C) x N."""
    return np.asarray(candidates, np.float32).T[None]


def columns(*candidates: tuple[float, ...]) -> NDArray[np.float32]:
    """YOLOv5's way, and the end-to-end one: 1 x N x (5 + C), 1 x N x 6."""
    return np.asarray(candidates, np.float32)[None]


# centre 20,30 size 10,8 -> corner 15,26; the second overlaps the first; the third is of the other class; the last
# too weak
V8 = rows((20, 30, 10, 8, 0.1, 0.9), (21, 30, 10, 8, 0.1, 0.8), (20, 30, 10, 8, 0.7, 0.1), (50, 50, 4, 4, 0.2, 0.1))
V5 = columns(
    (20, 30, 10, 8, 0.9, 0.1, 1.0),
    (21, 30, 10, 8, 0.8, 0.1, 1.0),
    (20, 30, 10, 8, 0.7, 1.0, 0.1),
    (50, 50, 4, 4, 0.2, 1.0, 0.1),
)
FINAL = columns((15, 26, 25, 34, 0.7, 0), (15, 26, 25, 34, 0.9, 1), (48, 48, 52, 52, 0.2, 0))


@pytest.mark.parametrize("output", [V8, V5, FINAL], ids=["v8", "v5", "end-to-end"])
@pytest.mark.parametrize("half", [False, True])
def test_every_layout_gives_the_same_defects(tmp_path: Path, output: NDArray[np.float32], half: bool) -> None:
    found = detector(save(tmp_path / "m.onnx", output, half=half)).detect(grey())
    assert [(one.label, round(one.confidence, 2), one.found_by) for one in found] == [
        ("short", 0.9, "m"),
        ("open", 0.7, "m"),
    ]
    for one in found:
        assert (one.box.x, one.box.y, one.box.width, one.box.height) == pytest.approx((15, 26, 10, 8), abs=0.05)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (64, 64, (15, 26, 10, 8)),
        (128, 128, (30, 52, 20, 16)),
        (32, 32, (7.5, 13, 5, 4)),
        (64, 128, (30, 52 - 32, 20, 16)),  # 32 x 64 in the middle of 64 x 64: 16 rows of pad above, at half scale
        (128, 64, (30 - 32, 52, 20, 16)),
    ],
)
def test_boxes_come_back_in_pixels_of_the_original(
    tmp_path: Path, height: int, width: int, expected: tuple[float, float, float, float]
) -> None:
    (found, _) = detector(save(tmp_path / "m.onnx", V8)).detect(grey(height, width))
    x, y, w, h = expected
    assert found.box.x == pytest.approx(max(x, 0), abs=0.01)
    assert found.box.y == pytest.approx(y, abs=0.01)
    assert found.box.width == pytest.approx(w if x >= 0 else w + x, abs=0.01), "clipped to the picture"
    assert found.box.height == pytest.approx(h, abs=0.01)


def test_blue_green_red_bytes_reach_the_network_as_red_green_blue_up_to_one(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 2] = 204  # red, in BGR
    image[..., 0] = 51  # blue
    (found,) = detector(save_seeing(tmp_path / "m.onnx")).detect(image)
    assert found.confidence == pytest.approx(0.8, abs=1e-4)
    assert found.box.x == pytest.approx(2.0, abs=1e-3)


def test_the_letterbox_pads_with_grey_and_leaves_nothing_of_the_last_picture() -> None:
    box = Letterbox(height=64, width=64, dtype=np.float32)
    box.fill(np.full((64, 128, 3), 255, np.uint8))
    box.fill(np.full((128, 64, 3), 255, np.uint8))
    assert box.tensor[0, 0, 32, 0] == pytest.approx(114 / 255)
    assert box.tensor[0, 0, 0, 32] == pytest.approx(1.0)


def test_a_very_long_picture_still_fits() -> None:
    box = Letterbox(height=64, width=64, dtype=np.float32)
    placement = box.fill(np.zeros((2, 5000, 3), np.uint8))
    assert placement.scale == pytest.approx(64 / 5000)


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_any_number_of_candidates_is_decoded(count: int) -> None:
    random = np.random.default_rng(1)
    output = np.zeros((1, 6, max(count, 1)), np.float32)
    output[0, :4] = random.uniform(1, 60, (4, max(count, 1)))
    output[0, 4, :count] = random.uniform(0.3, 1, count)
    boxes, scores, classes = decode(output, Layout.ROWS, confidence=0.25, iou=0.45)
    assert len(boxes) == len(scores) == len(classes) <= 300
    assert len(scores) >= min(count, 1)
    assert list(scores) == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("shape", "classes", "layout"),
    [
        ((1, 84, 8400), 80, Layout.ROWS),
        ((1, 25200, 85), 80, Layout.COLUMNS),
        ((1, 300, 6), 80, Layout.FINAL),
        ((1, 5, 8400), 1, Layout.ROWS),
        ((1, 25200, 6), 1, Layout.COLUMNS),
        ((1, 300, 6), 1, Layout.FINAL),
        ((1, 10, 8400), 6, Layout.ROWS),
        ((1, 10, 8400), 7, None),
        ((1, 1000), 1000, None),
    ],
)
def test_the_layout_follows_from_shape_and_class_names(
    shape: tuple[int, ...], classes: int, layout: Layout | None
) -> None:
    assert layout_of(shape, classes) is layout


def test_a_network_that_answers_no_number_never_passes_a_board(tmp_path: Path) -> None:
    broken = V8.copy()
    broken[0, 0, 3] = np.nan
    found = detector(save(tmp_path / "m.onnx", broken))
    with pytest.raises(DetectorError, match="NaN"):
        found.detect(grey())
    with pytest.raises(ModelError, match="plain grey picture"):
        found.warm_up()


def test_a_class_without_a_name_is_no_pass(tmp_path: Path) -> None:
    found = detector(save(tmp_path / "m.onnx", columns((1, 1, 9, 9, 0.9, 7))))
    with pytest.raises(DetectorError, match="class 7"):
        found.detect(grey())


@pytest.mark.parametrize("image", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)), np.zeros((0, 64, 3), np.uint8)])
def test_what_is_no_colour_picture_is_refused(tmp_path: Path, image: Image) -> None:
    with pytest.raises(DetectorError, match="not a colour picture"):
        detector(save(tmp_path / "m.onnx", V8)).detect(image)


def test_a_model_file_that_cannot_be_used_says_what_to_do(tmp_path: Path) -> None:
    good = save(tmp_path / "good.onnx", V8)
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("this is no network")
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(good.read_bytes()[:200])
    for path, sha256, words in (
        (tmp_path / "none.onnx", None, "cannot be read"),
        (tmp_path / "empty.onnx", None, "empty"),
        (tmp_path / "text.onnx", None, "export it again"),
        (cut, None, "export it again"),
        (good, "0" * 64, "damaged"),
        (save(tmp_path / "names.onnx", V8, names=None), None, "class names"),
        (save(tmp_path / "evil.onnx", V8, names="__import__('os').getcwd()"), None, "class names"),
        (save(tmp_path / "seg.onnx", V8, task="segment"), None, "segment"),
        (save(tmp_path / "count.onnx", V8, names="{0: 'a'}"), None, "1 class names"),
    ):
        with pytest.raises(ModelError) as caught:
            detector(path, sha256=sha256)
        assert words in str(caught.value), path.name
        assert str(path) in str(caught.value)


def test_the_right_checksum_is_accepted_and_told(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", V8)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert detector(path, sha256=expected).model.sha256 == expected


@pytest.mark.parametrize(("wanted", "words"), [("best.pt", "yolo export"), ("nothing", "neither pcb-demo nor")])
def test_a_model_that_is_not_there_says_what_would_be_accepted(wanted: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        find_model(wanted)


def test_overlapping_boxes_of_one_class_are_one_defect(tmp_path: Path) -> None:
    found = detector(save(tmp_path / "m.onnx", V8), iou=0.95).detect(grey())
    assert len(found) == 3, "with a limit that high the second box stays"
    assert isinstance(found[0].box, Box)
