"""The detector on any network: exact boxes from known outputs, and clear words for a model that cannot be used."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from station.detectors.backends import Runtime, has_openvino, open_network
from station.detectors.network import Floats, Network, Tensor
from station.detectors.yolo import NetworkDetector, Tiling
from station.errors import DetectorError, ModelError
from station.types import Box, Grey, Image
from tests.detectors.models import save, save_seeing
from tests.detectors.outputs import DETR, DETR_FINAL, FINAL, V5, V8, columns, rows


class Open(Protocol):
    def __call__(
        self, path: Path, *, iou: float = 0.45, sha256: str | None = None, tiling: Tiling | None = None
    ) -> NetworkDetector: ...


NEEDS_OPENVINO = pytest.mark.skipif(not has_openvino(), reason="openvino is not installed")


@pytest.fixture(params=["onnxruntime", pytest.param("openvino", marks=NEEDS_OPENVINO)])
def detector(request: pytest.FixtureRequest) -> Open:
    """Opens a model with each backend in turn."""

    def opened(
        path: Path, *, iou: float = 0.45, sha256: str | None = None, tiling: Tiling | None = None
    ) -> NetworkDetector:
        network = open_network(path, backend=request.param, threads=1, sha256=sha256)
        return NetworkDetector(network, name="m", confidence=0.25, iou=iou, tiling=tiling)

    return opened


def grey(height: int = 64, width: int = 64) -> Image:
    return np.full((height, width, 3), 114, np.uint8)


@pytest.mark.parametrize(
    ("output", "metadata"),
    [
        (V8, {}),
        (V5, {}),
        (FINAL, {}),
        (DETR, {"head": "RTDETRDecoder"}),
        (DETR, {"description": "Ultralytics rtdetr-l"}),
        (DETR_FINAL, {"head": "RTDETRDecoder"}),
    ],
    ids=["v8", "v5", "end-to-end", "rt-detr", "old-rt-detr", "new-rt-detr"],
)
@pytest.mark.parametrize("half", [False, True])
def test_every_layout_gives_the_same_defects(
    detector: Open, tmp_path: Path, output: NDArray[np.float32], metadata: dict[str, str], half: bool
) -> None:
    found = detector(save(tmp_path / "m.onnx", output, half=half, metadata=metadata)).detect(grey())
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
        (128, 64, (0, 52, 18, 16)),  # begins 2 pixels left of the picture: clipped
    ],
)
def test_boxes_come_back_in_pixels_of_the_original(
    detector: Open, tmp_path: Path, height: int, width: int, expected: tuple[float, float, float, float]
) -> None:
    (found, _) = detector(save(tmp_path / "m.onnx", V8)).detect(grey(height, width))
    assert (found.box.x, found.box.y, found.box.width, found.box.height) == pytest.approx(expected, abs=0.01)


WEAK = (30, 30, 10, 8, 0, 0)  # what a network has nothing for


def test_what_lies_in_the_pad_is_no_defect(detector: Open, tmp_path: Path) -> None:
    above = detector(save(tmp_path / "m.onnx", rows((30, 6, 10, 8, 0.9, 0), (30, 30, 10, 8, 0.8, 0), WEAK)))
    assert [round(one.confidence, 1) for one in above.detect(grey(64, 128))] == [0.8]


def test_a_picture_with_all_of_its_defects_beside_it_is_not_judged(detector: Open, tmp_path: Path) -> None:
    above = detector(save(tmp_path / "m.onnx", rows((30, 6, 10, 8, 0.9, 0), (30, 30, 10, 8, 0.2, 0), WEAK)))
    with pytest.raises(DetectorError, match="lies beside the picture"):
        above.detect(grey(64, 128))


@pytest.mark.parametrize("told_output", [None, ["batch", 50, 6]], ids=["fixed", "open-batch"])
def test_a_network_that_is_full_of_what_does_not_count_judges_nothing_since_it_may_have_left_out_what_does(
    tmp_path: Path, told_output: list[int | str] | None
) -> None:
    vias = columns(*[(5 + number, 5, 15 + number, 15, 0.9, 0) for number in range(50)])
    network = open_network(save(tmp_path / "m.onnx", vias, told_output=told_output), backend="onnxruntime", threads=1)

    def detector(counts_from: dict[str, float]) -> NetworkDetector:
        return NetworkDetector(network, name="m", confidence=0.25, iou=0.45, counts_from=counts_from.__getitem__)

    with pytest.raises(DetectorError, match="gives 50 detections at most"):
        detector({"open": 1.0, "short": 0.5}).detect(grey())
    assert len(detector({"open": 1.0, "short": 0.95}).detect(grey())) == 50


def test_blue_green_red_bytes_reach_the_network_as_red_green_blue_up_to_one(detector: Open, tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 2] = 204  # red, in BGR
    image[..., 0] = 51  # blue
    (found,) = detector(save_seeing(tmp_path / "m.onnx")).detect(image)
    assert found.confidence == pytest.approx(0.8, abs=1e-4)
    assert found.box.x == pytest.approx(2.0, abs=1e-3)


def test_each_picture_is_judged_by_its_own_pixels(detector: Open, tmp_path: Path) -> None:
    seeing = detector(save_seeing(tmp_path / "m.onnx"))
    for red in (255, 0, 128):
        image = np.zeros((64, 64, 3), np.uint8)
        image[..., 2] = red
        assert [one.confidence for one in seeing.detect(image)] == ([pytest.approx(red / 255, abs=1e-3)] if red else [])


def test_a_model_with_open_shapes_is_used_at_the_size_it_was_exported_for(detector: Open, tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        V8,
        batch="batch",
        told_size=("height", "width"),
        told_output=["batch", "rows", "columns"],
        metadata={"imgsz": "[32, 64]"},
    )
    opened = detector(path)
    assert opened.input_size == (32, 64)
    assert opened.detect(grey(32, 64))[0].box == Box(15, 26, 10, 6), "clipped to the 32 rows of the picture"


def test_a_model_of_any_size_that_does_not_say_which_is_refused(detector: Open, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", V8, told_size=("height", "width"))
    with pytest.raises(ModelError, match="any size"):
        detector(path)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("[0, 640]", "640 x 0 pixels, and 32 to 8192 a side"),
        ("[-640, 640]", "640 x -640 pixels"),
        ("[1000000, 1000000]", "1000000 x 1000000 pixels"),
        ("[31, 640]", "640 x 31 pixels"),
        ("[1e999, 640]", "any size"),
        ("[" * 5000, "any size"),
        ("640", "any size"),
    ],
)
def test_a_size_that_no_picture_is_brought_to_is_refused(detector: Open, tmp_path: Path, told: str, words: str) -> None:
    path = save(tmp_path / "m.onnx", V8, told_size=("height", "width"), metadata={"imgsz": told})
    assert words in refused(detector, path)


def test_a_network_of_a_fixed_size_that_is_too_small_is_refused(detector: Open, tmp_path: Path) -> None:
    assert "takes pictures of 16 x 16 pixels" in refused(detector, save(tmp_path / "m.onnx", V8, size=(16, 16)))


def test_an_open_output_that_fits_no_layout_is_refused_at_load(detector: Open, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", V8, names="{0: 'only'}", told_output=["batch", "rows", "columns"])
    with pytest.raises(ModelError, match=r"1 x 6 x 4, but with 1 class names"):
        detector(path)


@pytest.mark.parametrize("output", [rows((20, 30, 10, 8, np.nan, 0.1)), rows((20, 30, 10, 8, -3.0, 2.0))])
def test_a_network_that_answers_no_scores_never_passes_a_board(
    detector: Open, tmp_path: Path, output: NDArray[np.float32]
) -> None:
    found = detector(save(tmp_path / "m.onnx", output))
    with pytest.raises(DetectorError, match="not from 0 to 1"):
        found.detect(grey())
    with pytest.raises(ModelError, match="plain grey picture"):
        found.warm_up()


def test_a_class_without_a_name_is_no_pass(detector: Open, tmp_path: Path) -> None:
    found = detector(save(tmp_path / "m.onnx", columns((1, 1, 9, 9, 0.9, 7), (0, 0, 0, 0, 0, 0))))
    with pytest.raises(DetectorError, match="class 7"):
        found.detect(grey())


@pytest.mark.parametrize("image", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)), np.zeros((0, 64, 3), np.uint8)])
def test_what_is_no_colour_picture_is_refused(detector: Open, tmp_path: Path, image: Image) -> None:
    with pytest.raises(DetectorError, match="not a colour picture"):
        detector(save(tmp_path / "m.onnx", V8)).detect(image)


def refused(detector: Open, path: Path, *, sha256: str | None = None) -> str:
    """What is said of a model that cannot be used; it names the file."""
    with pytest.raises(ModelError) as caught:
        detector(path, sha256=sha256)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), (b"", "empty"), (b"this is no network", "export it again"), (bytes(999), "export it")],
)
def test_a_file_that_is_no_network_says_what_to_do(
    detector: Open, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    assert words in refused(detector, path)


def test_a_file_that_was_cut_off_or_changed_says_what_to_do(detector: Open, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", V8)
    assert "is damaged" in refused(detector, path, sha256="0" * 64)
    path.write_bytes(path.read_bytes()[:200])
    assert "export it again" in refused(detector, path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"names": None}, "no class names"),
        ({"names": "{}"}, "no class names"),
        ({"names": "{1: 'a', 2: 'b'}"}, "no class names"),
        ({"names": "__import__('os').getcwd()"}, "no class names"),
        ({"names": "(" * 5000}, "no class names"),
        ({"names": "{0: 'a'}"}, "with 1 class names"),
        ({"names": "{0: 'a', 1: ' '}"}, "the name of class 1 is empty"),
        ({"names": "{0: 'a', 1: 'a'}"}, "classes 0 and 1 have one name, a: give each"),
        ({"names": r"{0: 'a', 1: '\ud800'}"}, r"the name of class 1, '\ud800', has signs that cannot be printed"),
        ({"names": r"{0: 'a', 1: 'b\x1b[31m'}"}, r"'b\x1b[31m', has signs that cannot be printed"),
        ({"task": "segment"}, "task segment"),
        ({"task": "pose"}, "task pose"),
        ({"task": "obb"}, "task obb"),
        ({"task": "classify"}, "task classify"),
        ({"metadata": {"head": "RTDETRDecoder"}}, "1 x 300 x 6 (RT-DETR)"),
        ({"metadata": {"station.input": "stereo"}}, "takes stereo"),
        ({"inputs": 2}, "not one colour picture"),
        ({"channels": 1}, "not one colour picture"),
        ({"batch": 4}, "batch=1"),
    ],
)
def test_a_network_that_is_no_detector_of_ours_says_why(
    detector: Open, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    assert words in refused(detector, save(tmp_path / "m.onnx", V8, **changes))


def test_weights_in_a_second_file_are_refused_since_the_checksum_would_not_cover_them(
    detector: Open, tmp_path: Path
) -> None:
    path = save(tmp_path / "m.onnx", V8)
    model = onnx.load(str(path))
    onnx.save(model, str(path), save_as_external_data=True, location="m.data", size_threshold=0)
    assert "second file" in refused(detector, path)


def test_the_right_checksum_is_accepted_and_told(detector: Open, tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", V8)
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert detector(path, sha256=expected).model.sha256 == expected


def test_class_names_may_be_a_list(detector: Open, tmp_path: Path) -> None:
    assert detector(save(tmp_path / "m.onnx", V8, names="['x', 'y']")).labels == ("x", "y")


def test_overlapping_boxes_of_one_class_are_one_defect(detector: Open, tmp_path: Path) -> None:
    found = detector(save(tmp_path / "m.onnx", V8), iou=0.95).detect(grey())
    assert len(found) == 3, "with a limit that high the second box stays"


def test_an_rt_detr_sees_a_picture_stretched_as_in_its_training(detector: Open, tmp_path: Path) -> None:
    stretching = detector(save(tmp_path / "m.onnx", DETR, metadata={"head": "RTDETRDecoder"}))
    (found, _) = stretching.detect(grey(32, 128))
    assert (found.box.x, found.box.y, found.box.width, found.box.height) == pytest.approx((30, 13, 20, 4), abs=0.01)


class Still:
    """A reference whose template lies where the board does."""

    def __init__(self, template: Grey) -> None:
        self.template = template
        self.asked = 0

    def register_grey(self, board: Grey) -> Still:
        self.asked += 1
        return self


def paired(path: Path, *, reference: Still | None = None, tiling: Tiling | None = None) -> NetworkDetector:
    network = open_network(save_seeing(path, metadata={"station.input": "pair"}), backend="onnxruntime", threads=1)
    return NetworkDetector(network, name="m", confidence=0.25, iou=0.45, reference=reference, tiling=tiling)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (128, 128)])
def test_a_network_that_compares_sees_board_template_and_difference(tmp_path: Path, height: int, width: int) -> None:
    still = Still(np.full((height, width), 51, np.uint8))
    compares = paired(tmp_path / "m.onnx", reference=still)
    compares.warm_up()
    (found,) = compares.detect(np.full((height, width, 3), 204, np.uint8))
    assert still.asked == 1
    assert "beside the template" in compares.description
    # The first plane, the board, is its score, and the third one, the difference, says where the box begins: 10 * 0.6.
    assert found.confidence == pytest.approx(0.8, abs=1e-4)
    assert found.box.x == pytest.approx(6.0 * width / 64, abs=0.1)


def test_a_network_that_compares_nothing_judges_no_board_that_does_not_fit_the_template_all_the_same(
    tmp_path: Path,
) -> None:
    """Another product, or a mirrored board, has no defect that a network would know."""
    still = Still(np.zeros((64, 64), np.uint8))
    network = open_network(save_seeing(tmp_path / "m.onnx"), backend="onnxruntime", threads=1)
    plain = NetworkDetector(network, name="m", confidence=0.25, iou=0.45, reference=still)
    plain.detect(grey())
    assert still.asked == 1
    plain.detect_alone(grey())
    assert still.asked == 1, "a board that it is tested with may be of any product"


def test_a_network_that_compares_judges_nothing_without_a_template(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"set \[recipe\] template"):
        paired(tmp_path / "m.onnx").detect(grey())


def test_a_template_of_another_size_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"the template is \(32, 64\), the picture \(64, 64\)"):
        paired(tmp_path / "m.onnx", reference=Still(np.zeros((32, 64), np.uint8))).detect(grey())


class Counting:
    """A network that notes how many pictures it is given at a time."""

    def __init__(self, network: Network) -> None:
        self.path, self.sha256, self.labels = network.path, network.sha256, network.labels
        self.input, self.output_shape, self.metadata = network.input, network.output_shape, network.metadata
        self.computed_by = network.computed_by
        self._network = network
        self.batches: list[int] = []

    def halve(self) -> None:
        self._network.halve()

    def run(self, tensor: Tensor, *, half: bool = False) -> Floats:
        self.batches.append(len(tensor))
        return self._network.run(tensor, half=half)


def counting(path: Path, tiling: Tiling | None) -> tuple[NetworkDetector, list[int]]:
    network = Counting(open_network(path, backend="onnxruntime", threads=1))
    detector = NetworkDetector(network, name="m", confidence=0.25, iou=0.45, tiling=tiling)
    network.batches.clear()
    return detector, network.batches


def test_a_big_picture_is_cut_and_each_tile_is_judged_by_its_own_pixels(detector: Open, tmp_path: Path) -> None:
    tiled = detector(save_seeing(tmp_path / "m.onnx"), tiling=Tiling())
    image = np.zeros((64, 160, 3), np.uint8)
    image[:, 96:, 2] = 255  # the last of four tiles, from 0, 32, 64 and 96 on, sees red only, the one before it half
    assert [round(one.confidence, 2) for one in tiled.detect(image)] == [1.0, 0.5]
    assert [one.box for one in tiled.detect(image)] == [Box(96, 0, 20, 20), Box(64, 0, 20, 20)]


@pytest.mark.parametrize(("batch", "expected"), [(1, [1] * 9), ("batch", [4, 4, 1])])
def test_tiles_are_judged_in_batches_of_no_more_than_four(
    tmp_path: Path, batch: int | str, expected: list[int]
) -> None:
    tiled, batches = counting(save_seeing(tmp_path / "m.onnx", batch=batch, end_to_end=False), Tiling())
    image = np.random.default_rng(1).integers(100, 256, (128, 128, 3)).astype(np.uint8)
    found = tiled.detect(image)
    assert batches == expected
    single, _ = counting(save_seeing(tmp_path / "one.onnx", end_to_end=False), Tiling())
    assert found == single.detect(image)
    assert found


class Unrolled(Counting):
    """An export with NMS that takes any number of pictures: of its loop over them it kept one turn."""

    def run(self, tensor: Tensor, *, half: bool = False) -> Floats:
        answer = super().run(tensor, half=half)
        answer[1:] = 0
        return answer


def test_an_rt_detr_that_keeps_fewer_rows_is_full_by_these_also_where_its_file_leaves_their_number_open(
    tmp_path: Path,
) -> None:
    """As an export with max_det=20 and dynamic=True does."""
    vias = columns(*[(0.1 + number / 100, 0.5, 0.05, 0.05, 0.9, 0) for number in range(20)])
    path = save(tmp_path / "m.onnx", vias, metadata={"head": "RTDETRDecoder"})
    network = Counting(open_network(path, backend="onnxruntime", threads=1))
    network.output_shape = (None, None, 6)
    with pytest.raises(DetectorError, match="gives 20 detections at most"):
        NetworkDetector(network, name="m", confidence=0.25, iou=0.45).detect(grey())


def test_an_export_with_nms_which_answers_to_one_picture_alone_is_given_no_more(tmp_path: Path) -> None:
    network = Unrolled(open_network(save_seeing(tmp_path / "m.onnx", batch="batch"), backend="onnxruntime", threads=1))
    tiled = NetworkDetector(network, name="m", confidence=0.25, iou=0.45, tiling=Tiling())
    image = np.zeros((64, 160, 3), np.uint8)
    image[:, 96:, 2] = 255  # in the last of four tiles
    assert [round(one.confidence, 2) for one in tiled.detect(image)] == [1.0, 0.5]


@pytest.mark.parametrize("tiling", [None, Tiling(size_px=128)])
def test_a_picture_is_not_cut_where_that_is_off_or_it_is_no_larger_than_a_tile(
    tmp_path: Path, tiling: Tiling | None
) -> None:
    whole, batches = counting(save_seeing(tmp_path / "m.onnx"), tiling)
    (found,) = whole.detect(np.full((128, 128, 3), 255, np.uint8))
    assert batches == [1]
    assert found.box == Box(20, 0, 20, 40)


def test_a_picture_hardly_larger_than_the_network_is_scaled_to_fit(tmp_path: Path) -> None:
    whole, batches = counting(save_seeing(tmp_path / "m.onnx"), Tiling())
    whole.detect(np.full((70, 70, 3), 255, np.uint8))
    assert batches == [1]


def test_tiles_of_a_network_that_compares_are_cut_from_all_planes(tmp_path: Path) -> None:
    still = Still(np.full((64, 160), 255, np.uint8))
    compares = paired(tmp_path / "m.onnx", reference=still, tiling=Tiling())
    image = np.full((64, 160, 3), 255, np.uint8)
    image[:, :64] = 0
    # x1 is ten times the difference: only the tiles with black have one, and only those with white are sure enough.
    found = {round(one.box.x): round(one.confidence, 2) for one in compares.detect(image)}
    assert found[96] == 1.0
    assert found[32 + 5] == 0.5
    assert still.asked == 1


def test_an_overlap_that_the_tiles_cannot_have_is_refused(detector: Open, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="64 x 64 pixels can overlap by 32 to 32 pixels, not by 40"):
        detector(save(tmp_path / "m.onnx", V8), tiling=Tiling(overlap_px=40))


def test_pictures_of_changing_sizes_are_each_cut_anew(tmp_path: Path) -> None:
    tiled, batches = counting(save_seeing(tmp_path / "m.onnx"), Tiling())
    for size, tiles in (((64, 128), 3), ((128, 64), 3), ((64, 64), 1), ((64, 128), 3)):
        batches.clear()
        found = tiled.detect(np.full((*size, 3), 255, np.uint8))
        assert len(batches) == tiles
        assert max(one.box.y + one.box.height for one in found) <= size[0]


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=NEEDS_OPENVINO)])
def test_two_pictures_at_a_time_are_told_as_if_each_were_alone(tmp_path: Path, backend: Runtime) -> None:
    network = open_network(save_seeing(tmp_path / "m.onnx"), backend=backend, threads=2)
    whole = NetworkDetector(network, name="m", confidence=0.0, iou=0.45, tiling=Tiling())
    half = whole.half()
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (64, 160), (128, 96)]
    pictures = [
        np.full((*sizes[number % 3], 3), rng.integers(0, 256, 3), np.uint8) + rng.integers(0, 9, 1, np.uint8)
        for number in range(60)
    ]
    alone = [whole.detect(one) for one in pictures]
    assert len({found[0].confidence for found in alone}) > 20, "answers that differ: else nobody sees them mixed up"
    with ThreadPoolExecutor(2) as threads:
        for _ in range(5):
            together = list(threads.map(half.detect, pictures))
            assert [[one.box for one in found] for found in together] == [[one.box for one in found] for found in alone]
            assert [one.confidence for found in together for one in found] == pytest.approx(
                [one.confidence for found in alone for one in found], abs=1e-4
            )
    assert len(whole._desks) <= 2, "memory for no more than two at a time"
