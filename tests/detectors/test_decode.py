"""Network outputs to detections: which layout, which candidates stay, and what is no answer at all."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from station.detectors.decode import MAX_DETECTIONS, Found, Layout, decode, layout_of
from station.errors import DetectorError, ModelError
from tests.detectors.outputs import DETR, DETR_FINAL, FINAL, V5, V8, columns, rows

Output = NDArray[np.float32]
LAYOUTS = pytest.mark.parametrize(
    ("output", "layout"), [(V8, Layout.ROWS), (V5, Layout.COLUMNS), (FINAL, Layout.FINAL)], ids=["v8", "v5", "final"]
)


def decoded(
    output: Output, layout: Layout = Layout.ROWS, *, confidence: float = 0.25, iou: float = 0.45
) -> list[Found]:
    return decode(output, layout, confidence=confidence, iou=iou, input_size=(640, 640))


@LAYOUTS
def test_every_layout_says_the_same(output: Output, layout: Layout) -> None:
    best, second = decoded(output, layout)
    assert [best.class_id, second.class_id] == [1, 0], "another class is not suppressed"
    assert [best.score, second.score] == pytest.approx([0.9, 0.7])
    assert (best.x1, best.y1, best.x2, best.y2) == (15, 26, 25, 34)


@pytest.mark.parametrize(
    ("shape", "classes", "layout"),
    [
        ((1, 84, 8400), 80, Layout.ROWS),
        ((1, 25200, 85), 80, Layout.COLUMNS),
        ((1, 300, 6), 80, Layout.FINAL),
        ((1, 5, 8400), 1, Layout.ROWS),
        ((1, 25200, 6), 1, Layout.COLUMNS),
        ((1, 25500, 6), 1, Layout.COLUMNS),  # with the fourth grid of the P6 models
        ((1, 300, 6), 1, Layout.FINAL),
        ((1, 2000, 6), 1, Layout.FINAL),
        ((1, 6, 8400), 2, Layout.ROWS),
        ((1, 10, 8400), 6, Layout.ROWS),
        ((1, 300, 84), 80, Layout.DETR),
        ((1, 300, 5), 1, Layout.DETR),
    ],
)
def test_the_layout_follows_from_shape_and_class_names(shape: tuple[int, ...], classes: int, layout: Layout) -> None:
    assert layout_of(shape, classes, input_size=(640, 640)) is layout


def test_an_rt_detr_with_two_classes_is_told_from_an_end_to_end_network_by_its_file() -> None:
    assert layout_of((1, 300, 6), 2, input_size=(640, 640)) is Layout.FINAL
    assert layout_of((1, 300, 6), 2, input_size=(640, 640), detr=True) is Layout.DETR
    assert layout_of((1, 300, 6), 2, input_size=(640, 640), detr=True, whole=True) is Layout.DETR_FINAL
    assert layout_of((1, 300, 6), 80, input_size=(640, 640), detr=True) is Layout.DETR_FINAL
    with pytest.raises(ModelError, match="RT-DETR"):
        layout_of((1, 300, 8), 3, input_size=(640, 640), detr=True)


def test_one_whose_file_does_not_say_so_is_no_answer_rather_than_a_pass() -> None:
    for output in (DETR, DETR_FINAL):
        with pytest.raises(DetectorError, match="RT-DETR whose metadata is lost"):
            decoded(output, Layout.FINAL)


def test_an_rt_detr_that_answers_in_pixels_is_no_answer() -> None:
    with pytest.raises(DetectorError, match="in pixels"):
        decoded(columns((20, 30, 10, 8, 0.1, 0.9)), Layout.DETR)


def test_an_rt_detr_has_done_its_own_suppression() -> None:
    twice = columns((0.5, 0.5, 0.1, 0.1, 0.1, 0.8), (0.5, 0.5, 0.1, 0.1, 0.1, 0.9))
    assert [one.score for one in decoded(twice, Layout.DETR)] == pytest.approx([0.9, 0.8])
    (found, _) = decode(twice, Layout.DETR, confidence=0.25, iou=0.45, input_size=(100, 200))
    assert (found.x1, found.y1, found.x2, found.y2) == pytest.approx((90, 45, 110, 55))


def test_one_class_in_six_columns_is_told_by_the_number_of_grid_cells() -> None:
    # 96 x 96: 12 x 12 + 6 x 6 + 3 x 3 cells of three anchors are 567 rows, fewer than some end-to-end heads have.
    assert layout_of((1, 567, 6), 1, input_size=(96, 96)) is Layout.COLUMNS
    assert layout_of((1, 567, 6), 1, input_size=(640, 640)) is Layout.FINAL


@pytest.mark.parametrize(
    ("shape", "classes"),
    [
        ((1, 10, 8400), 7),  # another number of classes than of names
        ((1, 116, 8400), 80),  # 32 mask coefficients: a segmentation model
        ((1, 8400, 84), 80),  # YOLOv8's, turned round
        ((1, 1000), 1000),  # a classifier
        ((2, 84, 8400), 80),
        ((1, 84, 85), 80),  # fits two
    ],
)
def test_an_output_that_fits_no_layout_is_refused_with_what_would_fit(shape: tuple[int, ...], classes: int) -> None:
    with pytest.raises(ModelError, match=f"1 x {4 + classes} x N .* 1 x N x {5 + classes} .* 1 x N x 6"):
        layout_of(shape, classes, input_size=(640, 640))


@LAYOUTS
@pytest.mark.parametrize("confidence", [0.7, 0.9])
def test_a_score_that_equals_the_limit_is_found(output: Output, layout: Layout, confidence: float) -> None:
    limit = float(np.float32(confidence))
    assert min(one.score for one in decoded(output, layout, confidence=limit)) == limit


def test_rows_that_only_fill_up_are_no_detections_even_at_limit_zero() -> None:
    filled = np.zeros((1, 300, 6), np.float32)
    filled[0, 0] = (1, 1, 9, 9, 0.001, 0)
    assert len(decoded(filled, Layout.FINAL, confidence=0.0)) == 1
    assert decoded(np.zeros((1, 0, 6), np.float32), Layout.FINAL) == []
    assert decoded(np.zeros((1, 6, 8400), np.float32), confidence=0.0) == []


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("place", ["box", "score"])
@pytest.mark.parametrize("values", [(np.nan, 0.0), (np.inf, -np.inf), (-np.inf, 0.0)])
def test_what_is_no_number_is_no_answer(layout: Layout, place: str, values: tuple[float, float]) -> None:
    output = np.zeros((1, 100, 7 if layout is Layout.COLUMNS else 6), np.float32)
    output[0, 10:12, 0 if place == "box" else 4] = values
    with pytest.raises(DetectorError, match="NaN"):
        decoded(output.transpose(0, 2, 1) if layout is Layout.ROWS else output, layout)


@pytest.mark.parametrize("logit", [-4.0, 3.0])
def test_logits_are_refused_since_a_network_that_finds_nothing_would_pass_every_board(logit: float) -> None:
    with pytest.raises(DetectorError, match="not from 0 to 1"):
        decoded(rows((20, 30, 10, 8, logit, logit)))


def test_a_score_that_rounding_put_above_one_is_one() -> None:
    (found,) = decoded(rows((20, 30, 10, 8, 1.0005, 0)))
    assert found.score == 1.0


def test_suppression_is_by_more_than_the_limit_and_within_a_class() -> None:
    # 10 x 10 boxes, shifted by 5: IoU is 1/3.
    pair = rows((10, 10, 10, 10, 0.9, 0), (15, 10, 10, 10, 0.8, 0))
    assert len(decoded(pair, iou=0.34)) == 2
    assert len(decoded(pair, iou=0.33)) == 1
    assert len(decoded(rows((10, 10, 10, 10, 0.9, 0), (15, 10, 10, 10, 0, 0.8)), iou=0.33)) == 2


@pytest.mark.parametrize(
    ("output", "layout"),
    [
        (rows((10, 10, 10, 10, 0.6, 0.5)), Layout.ROWS),
        (columns((10, 10, 10, 10, 1, 0.6, 0.5)), Layout.COLUMNS),
        (np.array([[[0.1, 0.1, 0.1, 0.1, 0.6, 0.5]]], np.float32), Layout.DETR),
    ],
    ids=["v8", "v5", "detr"],
)
def test_a_box_is_found_in_every_class_that_it_reaches_since_each_has_its_own_threshold(
    output: Output, layout: Layout
) -> None:
    assert [(one.class_id, round(one.score, 3)) for one in decoded(output, layout)] == [(0, 0.6), (1, 0.5)]


def test_what_is_suppressed_suppresses_nothing() -> None:
    # A chain: the middle one goes for the first's sake, and so the third, which only the middle one overlaps, stays.
    chain = rows((10, 10, 10, 10, 0.9, 0), (14, 10, 10, 10, 0.8, 0), (18, 10, 10, 10, 0.7, 0))
    assert [round(one.x1) for one in decoded(chain, iou=0.3)] == [5, 13]


@pytest.mark.parametrize("seed", range(5))
def test_suppression_agrees_with_the_plain_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    many = 290  # several blocks, and fewer than are kept at most
    output = np.zeros((1, 6, many), np.float32)
    output[0, :2] = random.uniform(0, 200, (2, many))
    output[0, 2:4] = random.uniform(10, 60, (2, many))
    output[0, 4 + random.integers(0, 2, many), np.arange(many)] = random.uniform(0.3, 1, many)
    expected: list[Found] = []
    for one in sorted(decoded(output, iou=1.0), key=lambda found: -found.score):
        if all(other.class_id != one.class_id or overlap(one, other) <= 0.45 for other in expected):
            expected.append(one)
    assert decoded(output) == expected
    assert len(expected) < many, "something was suppressed"


def overlap(one: Found, other: Found) -> float:
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    both = max(width, 0) * max(height, 0)
    areas = [(box.x2 - box.x1) * (box.y2 - box.y1) for box in (one, other)]
    return both / (sum(areas) - both)


def crowd(layout: Layout, scores: Output) -> Output:
    """A detection for each of *scores* (n x 2, by class), none of which touches another."""
    size = max(len(scores), 1)
    table = np.zeros((size, 7 if layout is Layout.COLUMNS else 6), np.float32)
    table[:, :2] = np.arange(size)[:, None] * 20
    table[:, 2:4] = 10 if layout is not Layout.FINAL else table[:, :2] + 10
    if layout in {Layout.DETR, Layout.DETR_FINAL}:
        table[:, :4] /= size * 20
    if layout is Layout.COLUMNS:
        table[:, 4] = 1
    if layout in {Layout.FINAL, Layout.DETR_FINAL}:
        table[: len(scores), 4], table[: len(scores), 5] = scores.max(axis=1), scores.argmax(axis=1)
    else:
        table[: len(scores), -2:] = scores
    return table.T[None] if layout is Layout.ROWS else table[None]


def rising(count: int) -> Output:
    """Scores from 0.3 to 1 of the first of two classes."""
    return np.stack([np.linspace(0.3, 1, count), np.zeros(count)], axis=1).astype(np.float32)


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_any_number_of_candidates_is_decoded_and_the_best_300_stay(layout: Layout, count: int) -> None:
    scores = rising(count)
    found = decode(crowd(layout, scores), layout, confidence=0.25, iou=0.45, input_size=(640, 640), counts=[0.99, 0.99])
    assert len(found) == min(count, MAX_DETECTIONS)
    assert [one.score for one in found] == pytest.approx(sorted(scores[:, 0].tolist(), reverse=True)[:MAX_DETECTIONS])


@pytest.mark.parametrize("layout", Layout)
def test_what_counts_is_told_before_any_crowd_that_does_not(layout: Layout) -> None:
    """Four hundred vias, whose threshold nothing reaches, and a short that is less sure."""
    scores = np.array([(0.9, 0.0)] * 400 + [(0.0, 0.8)], np.float32)
    found = decode(
        crowd(layout, scores),
        layout,
        confidence=0.25,
        iou=0.45,
        input_size=(640, 640),
        counts=[1.0, 0.5],
        most_rows=999,
    )
    assert [one.class_id for one in found] == [0] * 299 + [1]


@pytest.mark.parametrize("layout", Layout)
@pytest.mark.parametrize("count", [300, 301, 400])
def test_a_picture_with_more_that_counts_than_can_be_told_is_not_judged(layout: Layout, count: int) -> None:
    """The recipe may suppress the first three hundred."""
    output = crowd(layout, np.array([(0.9, 0.0)] * count, np.float32))

    def found() -> list[Found]:
        return decode(output, layout, confidence=0.25, iou=0.45, input_size=(640, 640), most_rows=999)

    if count == MAX_DETECTIONS:
        assert len(found()) == count
    else:
        with pytest.raises(DetectorError, match="more than 300 detections"):
            found()


@pytest.mark.parametrize("layout", [one for one in Layout if one is not Layout.COLUMNS])
@pytest.mark.parametrize(("weakest", "full"), [(0.5, True), (0.4, False)])
def test_a_network_whose_rows_are_all_taken_may_have_left_out_what_counts(
    layout: Layout, weakest: float, full: bool
) -> None:
    """None of its rows counts, but the first class is not the one with the lowest threshold."""
    output = crowd(layout, np.array([(0.9, 0.0)] * 49 + [(weakest, 0.0)], np.float32))

    def found() -> list[Found]:
        return decode(output, layout, confidence=0.25, iou=0.45, input_size=(640, 640), counts=[1.0, 0.5], most_rows=50)

    if full:
        with pytest.raises(DetectorError, match="gives 50 detections at most"):
            found()
    else:
        assert len(found()) == 50


@pytest.mark.parametrize("strides", [(8, 16), (4, 8), (4, 8, 16, 32), (8, 16, 32, 64, 128), (4, 8, 16, 32, 64, 128)])
def test_one_class_yolov5_with_fewer_and_with_more_grids_are_known(strides: tuple[int, ...]) -> None:
    number = 3 * sum((640 // stride) ** 2 for stride in strides)
    assert layout_of((1, number, 6), 1, input_size=(640, 640)) is Layout.COLUMNS


@pytest.mark.parametrize("size", [(640, 640), (512, 640), (480, 640), (1024, 1024), (320, 320), (416, 416)])
def test_no_usual_end_to_end_network_of_one_class_is_taken_for_a_yolov5(size: tuple[int, int]) -> None:
    assert all(layout_of((1, many, 6), 1, input_size=size) is Layout.FINAL for many in (50, 100, 300, 1000))


@pytest.mark.parametrize("box", [(30, 20, 20, 40), (20, 40, 30, 20), (20, 20, 20, 40), (20, 20, 40, 20)])
def test_corners_that_make_no_box_are_no_answer(box: tuple[float, ...]) -> None:
    """Centre and size that are read as corners are dropped as boxes, and the board would pass."""
    with pytest.raises(DetectorError, match="no width or no height"):
        decoded(columns((*box, 0.9, 1), (15, 26, 25, 34, 0.8, 1)), Layout.FINAL)


@pytest.mark.parametrize(
    ("output", "layout"),
    [(rows((20, 30, 0, 8, 0.9, 0)), Layout.ROWS), (columns((20, 30, 10, 0, 1, 0.9, 0)), Layout.COLUMNS)],
    ids=["v8", "v5"],
)
def test_a_box_without_a_width_is_no_answer_only_where_it_counts(output: Output, layout: Layout) -> None:
    with pytest.raises(DetectorError, match="no width or no height"):
        decoded(output, layout)
    below = decode(output, layout, confidence=0.25, iou=0.45, input_size=(640, 640), counts=[0.95, 0.25])
    assert [round(one.score, 1) for one in below] == [0.9]


def test_a_tiny_box_is_one() -> None:
    (found,) = decoded(rows((20, 30, 0.01, 0.01, 0.9, 0)))
    assert found.x2 > found.x1


@pytest.mark.parametrize(
    ("output", "layout"),
    [(rows((0.5, 0.5, 0.1, 0.1, 0, 0.97)), Layout.ROWS), (columns((0.5, 0.5, 0.1, 0.1, 1, 0, 0.97)), Layout.COLUMNS)],
    ids=["v8", "v5"],
)
def test_boxes_that_are_relative_to_the_input_are_no_answer_of_a_network_that_tells_pixels(
    output: Output, layout: Layout
) -> None:
    with pytest.raises(DetectorError, match="not in pixels"):
        decoded(output, layout)


def test_a_yolov5_score_is_objectness_times_class_score() -> None:
    (found,) = decoded(columns((20, 30, 10, 8, 0.5, 0.6, 0.1)), Layout.COLUMNS)
    assert found.score == pytest.approx(0.3)
    assert decoded(columns((20, 30, 10, 8, 0.5, 0.4, 0.1)), Layout.COLUMNS) == []
