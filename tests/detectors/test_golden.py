"""The golden board: what differs from the template is found, and edges, light and noise are no difference."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from station.detectors.golden import BRIGHTER, DARKER, GoldenDetector, follow
from station.detectors.reference import Reference
from station.errors import DetectorError
from station.types import Box, Defect, Detector, Grey, Image
from tests.detectors.layouts import COPPER, GAP, layout, photo, shifted, turned, warped

SURE = 0.5


def golden(template: Grey, *, confidence: float = SURE) -> GoldenDetector:
    return GoldenDetector(Reference(template, name="product-7", sha256="5" * 64), confidence=confidence)


def spotted(board: Grey, *spots: tuple[int, int, int, int]) -> Grey:
    """*board* with discs: x, y, radius and level."""
    board = board.copy()
    for x, y, radius, level in spots:
        cv2.circle(board, (x, y), radius, level, cv2.FILLED)
    return board


def places(template: Grey, *, level: int, room_px: int, around: int = 60) -> list[tuple[int, int]]:
    """Middles of places in *template* with nothing but *level* within *room_px*, away from the picture's edge."""
    free = cv2.erode((template == level).astype(np.uint8), np.ones((2 * room_px + 1, 2 * room_px + 1), np.uint8))
    free[:around] = free[-around:] = free[:, :around] = free[:, -around:] = 0
    return [(7 * int(x), 7 * int(y)) for y, x in np.argwhere(free[::7, ::7])]


def meets(box: Box, x: float, y: float) -> bool:
    return box.x <= x <= box.x + box.width and box.y <= y <= box.y + box.height


def lone(found: list[Defect]) -> Defect:
    (one,) = found
    return one


def test_it_is_a_detector_and_names_the_file_that_it_compares_with() -> None:
    detector: Detector = golden(layout(1))
    assert (detector.model.name, detector.model.sha256) == ("golden", "5" * 64)
    assert golden(layout(1)).description == "golden board product-7 (640x640; sha256 555555555555)"


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("gain", "offset", "noise"),
    [(1.0, 0.0, 0.0), (1.0, 0.0, 10.0), (0.6, 10.0, 4.0), (1.2, -20.0, 4.0), (0.8, 60.0, 6.0)],
)
def test_a_good_board_has_no_difference_in_any_light(seed: int, gain: float, offset: float, noise: float) -> None:
    template = layout(seed)
    board = photo(shifted(template, 1.5, -2), gain=gain, offset=offset, noise=noise)
    assert golden(template, confidence=0.2).detect(board) == []


def test_it_is_blind_to_colour_as_its_page_says() -> None:
    template = layout(1)
    red, green = photo(template), photo(template)
    red[200:300, 200:300] = (0, 0, 200)
    green[200:300, 200:300] = (0, round(200 * 0.299 / 0.587), 0)
    grey = np.asarray(cv2.cvtColor(green, cv2.COLOR_BGR2GRAY), np.uint8)
    assert golden(grey, confidence=0.0).detect(red) == []
    page = Path(__file__).parents[2] / "docs" / "golden-board.md"
    assert "blind to colour" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("degrees", [0.2, -0.4, 2.0])
def test_a_good_board_that_lies_askew_has_no_difference(degrees: float) -> None:
    template = layout(4)
    assert golden(template).detect(photo(turned(template, degrees), noise=3)) == []


def test_a_good_board_that_is_bent_has_no_difference() -> None:
    template = layout(5)
    y, x = np.mgrid[0:640, 0:640].astype(np.float32)
    bent = cv2.remap(template, x + 3 * np.sin(y / 90), y + 3 * np.sin(x / 70), cv2.INTER_LINEAR, borderMode=1)
    assert golden(template).detect(photo(np.asarray(bent, np.uint8), noise=3)) == []


@pytest.mark.parametrize("change", [cv2.erode, cv2.dilate])
def test_edges_that_stand_a_pixel_further_out_are_no_difference(change: object) -> None:
    assert callable(change)
    template = layout(6)
    assert golden(template).detect(photo(change(template, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))))) == []


@pytest.mark.parametrize(("level", "on", "label"), [(COPPER, GAP, DARKER), (GAP, COPPER, BRIGHTER)])
@pytest.mark.parametrize("noise", [0.0, 6.0])
def test_a_difference_is_found_once_where_it_is(level: int, on: int, label: str, noise: float) -> None:
    template = layout(7)
    radius = 4
    x, y = places(template, level=on, room_px=5)[5]
    board = shifted(spotted(template, (x, y, radius, level)), 2, -1)
    one = lone(golden(template).detect(photo(board, noise=noise)))
    assert one.label == label
    assert one.found_by == "golden"
    middle = (one.box.x + one.box.width / 2, one.box.y + one.box.height / 2)
    assert middle == pytest.approx((x + 2 + 0.5, y - 1 + 0.5), abs=1.5)
    assert one.box.width == pytest.approx(2 * radius + 1 + 18, abs=3)
    assert SURE < one.confidence < 1


def test_the_larger_a_difference_the_surer_it_is() -> None:
    template = layout(8)
    x, y = places(template, level=GAP, room_px=16)[0]
    detector = golden(template, confidence=0.0)
    sure = [lone(detector.detect(photo(spotted(template, (x, y, radius, COPPER))))).confidence for radius in (2, 4, 8)]
    assert sure == sorted(sure)
    assert sure[0] < sure[1] < sure[2] < 1


@pytest.mark.parametrize("wider_px", [1, 2, 3, 4])
def test_a_spur_on_a_trace_that_is_too_wide_all_along_is_as_sure_as_one_alone(wider_px: int) -> None:
    """A long thread joins it: in the mean the two are thin."""
    template = np.full((640, 640), GAP, np.uint8)
    for top in range(60, 600, 100):
        cv2.rectangle(template, (60, top), (580, top + 12), COPPER, cv2.FILLED)
    board = template.copy()
    cv2.rectangle(board, (60, 373), (580, 372 + wider_px), COPPER, cv2.FILLED)
    cv2.rectangle(board, (300, 373), (311, 384), COPPER, cv2.FILLED)
    found = golden(template, confidence=0.7).detect(photo(board, noise=2.0))
    assert meets(lone(found).box, 305, 380)


def test_what_is_below_the_confidence_is_not_listed_and_the_surest_comes_first() -> None:
    template = layout(9)
    spots = places(template, level=GAP, room_px=16)
    (small_x, small_y), (large_x, large_y) = spots[0], spots[-1]
    board = photo(spotted(template, (small_x, small_y, 3, COPPER), (large_x, large_y, 9, COPPER)))
    all_of_them = golden(template, confidence=0.0).detect(board)
    assert [meets(one.box, large_x, large_y) for one in all_of_them] == [True, False]
    between = (all_of_them[0].confidence + all_of_them[1].confidence) / 2
    assert golden(template, confidence=between).detect(board) == all_of_them[:1]


@pytest.mark.parametrize(("x", "y"), [(0, 300), (639, 300), (300, 0), (300, 639)])
def test_a_difference_at_the_edge_of_the_picture_is_found_and_its_box_lies_inside(x: int, y: int) -> None:
    template = np.full((640, 640), GAP, np.uint8)
    template[100:540, 100:540] = layout(10)[100:540, 100:540]
    one = lone(golden(template).detect(photo(spotted(template, (x, y, 6, COPPER)))))
    assert meets(one.box, x, y)
    assert min(one.box.x, one.box.y) >= 0
    assert one.box.x + one.box.width <= 640
    assert one.box.y + one.box.height <= 640


@pytest.mark.parametrize(("width", "height"), [(801, 603), (333, 210), (161, 90)])
def test_pictures_of_any_size_are_judged(width: int, height: int) -> None:
    template = layout(11, width=width, height=height)
    x, y = places(template, level=GAP, room_px=6, around=20)[0]
    assert golden(template).detect(photo(template, noise=3)) == []
    one = lone(golden(template).detect(photo(spotted(template, (x, y, 5, COPPER)), noise=3)))
    assert meets(one.box, x, y)


def test_many_differences_are_all_found() -> None:
    template = layout(12)
    spots: list[tuple[int, int]] = []
    for x, y in places(template, level=GAP, room_px=6):
        if all(abs(x - other_x) + abs(y - other_y) > 60 for other_x, other_y in spots):
            spots.append((x, y))
    assert len(spots) > 10
    found = golden(template).detect(photo(spotted(template, *((x, y, 5, COPPER) for x, y in spots)), noise=3))
    assert len(found) == len(spots)
    assert all(any(meets(one.box, x, y) for one in found) for x, y in spots)


def test_what_is_no_board_of_this_product_is_never_judged() -> None:
    template = layout(13)
    for board in (layout(98), template[:, ::-1].copy(), np.rot90(template).copy()):
        with pytest.raises(DetectorError, match="does not fit its template"):
            golden(template).detect(photo(board))


@pytest.mark.parametrize("image", [np.zeros((0, 0, 3), np.uint8), np.zeros((640, 640), np.uint8)])
def test_what_is_no_picture_is_refused(image: Image) -> None:
    with pytest.raises(DetectorError, match="not a colour picture of bytes"):
        golden(layout(1)).detect(image)


def test_each_part_of_the_template_follows_the_board_for_itself() -> None:
    template = layout(14)
    stretched = warped(template, np.array([[1.012, 0.0, -3.84], [0.0, 0.99, 3.2]]))
    plain = float(cv2.absdiff(stretched, template)[16:-16, 16:-16].mean())
    followed = float(cv2.absdiff(stretched, follow(stretched, template))[16:-16, 16:-16].mean())
    assert followed < plain / 3
