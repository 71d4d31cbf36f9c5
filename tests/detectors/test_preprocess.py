"""The letterbox: where a picture lies in the network's input, what its pixels become there, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from station.detectors.network import Input
from station.detectors.preprocess import Letterbox, Placement
from station.types import Box, Image

Kind = type[np.float32 | np.float16 | np.uint8]
WAYS = pytest.mark.parametrize(
    ("kind", "blocks"),
    [(np.float32, False), (np.float16, False), (np.uint8, False), (np.uint8, True)],
    ids=["float", "half", "bytes", "blocks"],
)


def noise(height: int, width: int) -> Image:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3)).astype(np.uint8)


def given(image: Image, kind: Kind) -> NDArray[Any]:
    """What a network of *kind* is given of an unscaled *image*: red first, 255 is 1; or bytes as they are."""
    planes = image[..., ::-1].transpose(2, 0, 1)
    return planes if kind is np.uint8 else (planes.astype(np.float32) / 255).astype(kind)


def planes_of(box: Letterbox) -> NDArray[Any]:
    """Its tensor as B x 3 x H x W, however it lies."""
    if box.tensor.shape[1] == 3:
        return box.tensor
    batch, down, across, _ = box.tensor.shape
    pixels = box.tensor.reshape(batch, down, across, 2, 2, 4)[..., :3]
    return pixels.transpose(0, 5, 1, 3, 2, 4).reshape(batch, 3, 2 * down, 2 * across)


@WAYS
def test_a_picture_of_the_networks_size_arrives_as_it_is(kind: Kind, blocks: bool) -> None:
    box, image = Letterbox(Input(1, 64, 96, kind, blocks)), noise(64, 96)
    box.fill(image)
    assert box.tensor.dtype == kind
    assert box.tensor.flags.c_contiguous
    assert box.tensor.shape == ((1, 32, 48, 16) if blocks else (1, 3, 64, 96))
    assert np.array_equal(planes_of(box)[0], given(image, kind))


@pytest.mark.parametrize("height", [127, 128, 129, 300])
def test_every_row_of_a_high_picture_arrives(height: int) -> None:
    box, image = Letterbox(Input(1, 320, 32, np.float32)), noise(height, 32)
    top = box.fill(image).top_px
    expected = image[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255
    assert np.array_equal(box.tensor[0, :, top : top + height], expected)


@WAYS
def test_a_picture_that_only_needs_the_pad_is_not_scaled(kind: Kind, blocks: bool) -> None:
    box, image = Letterbox(Input(1, 64, 64, kind, blocks)), noise(40, 64)
    placement = box.fill(image)
    assert (placement.top_px, placement.left_px, placement.height_px) == (12, 0, 40)
    assert np.array_equal(planes_of(box)[0, :, 12:52], given(image, kind))
    grey = 114 if kind is np.uint8 else 114 / 255
    assert planes_of(box)[0, :, :12] == pytest.approx(grey, abs=1e-3)
    assert planes_of(box)[0, :, 52:] == pytest.approx(grey, abs=1e-3)


@WAYS
@pytest.mark.parametrize("size", [(64, 64), (40, 64), (64, 30), (128, 100)])
def test_planes_lie_where_a_picture_of_them_would(kind: Kind, blocks: bool, size: tuple[int, int]) -> None:
    pictures, planes = (Letterbox(Input(1, 64, 64, kind, blocks), batch=2) for _ in range(2))
    image = noise(*size)
    assert planes.fill_planes([image[..., at] for at in (2, 1, 0)], at=1) == pictures.fill(image, at=1)
    assert np.array_equal(planes_of(planes), planes_of(pictures))


@pytest.mark.parametrize("size", [(64, 64), (40, 64), (64, 1), (1, 64), (128, 100), (5000, 2), (2, 5000), (1, 1)])
@pytest.mark.parametrize("network", [(64, 64), (320, 32), (130, 62)])
def test_blocks_and_planes_of_a_picture_are_the_same_numbers(network: tuple[int, int], size: tuple[int, int]) -> None:
    """Also where a picture begins in the middle of a block, or of a strip of them."""
    blocks, planes = (Letterbox(Input(1, *network, np.uint8, way), batch=2) for way in (True, False))
    for image in (noise(*size), noise(*network), noise(*size)):
        assert blocks.fill(image, at=1) == planes.fill(image, at=1)
        assert np.array_equal(planes_of(blocks), planes.tensor)


@pytest.mark.parametrize("sizes", [((64, 128), (128, 64)), ((128, 64), (64, 64)), ((10, 64), (64, 20), (10, 64))])
def test_nothing_of_the_last_picture_is_left(sizes: tuple[tuple[int, int], ...]) -> None:
    used = Letterbox(Input(1, 64, 64, np.float32))
    for size in sizes:
        used.fill(noise(*size))
    fresh = Letterbox(Input(1, 64, 64, np.float32))
    fresh.fill(noise(*sizes[-1]))
    assert np.array_equal(used.tensor, fresh.tensor)


@pytest.mark.parametrize("size", [(64, 64), (40, 64), (128, 100)])
def test_a_second_picture_of_the_same_size_replaces_the_first_in_the_same_memory(size: tuple[int, int]) -> None:
    box = Letterbox(Input(1, 64, 64, np.float32))
    tensor, address = box.tensor, box.tensor.ctypes.data
    box.fill(np.zeros((*size, 3), np.uint8))
    placement = box.fill(np.full((*size, 3), 255, np.uint8))
    inside = tensor[0, :, placement.top_px : placement.top_px + placement.height_px, placement.left_px + 1]
    assert (inside == 1).all()
    assert box.tensor is tensor
    assert tensor.ctypes.data == address


def test_a_view_that_is_not_contiguous_is_read_as_it_looks() -> None:
    box, copy = (Letterbox(Input(1, 64, 64, np.float32)) for _ in range(2))
    view = noise(200, 200)[150:22:-2, 10:74]
    box.fill(view)
    copy.fill(np.ascontiguousarray(view))
    assert np.array_equal(box.tensor, copy.tensor)


@pytest.mark.parametrize(("height", "width"), [(2, 5000), (5000, 2), (1, 1), (1, 40000)])
def test_any_shape_of_picture_fits(height: int, width: int) -> None:
    placement = Letterbox(Input(1, 64, 64, np.float32)).fill(noise(height, width))
    assert 1 <= placement.height_px <= 64
    assert 1 <= placement.width_px <= 64
    assert 64 in (placement.height_px, placement.width_px)


# What ultralytics' own letterbox gives, by its rule: the sides are rounded, and then half of the rest less 0.1.
@pytest.mark.parametrize(
    ("picture", "network", "expected"),
    [
        ((640, 640), (640, 640), (0, 0, 640, 640)),
        ((1080, 1920), (640, 640), (140, 0, 360, 640)),
        ((999, 1777), (640, 640), (140, 0, 360, 640)),
        ((333, 500), (640, 640), (107, 0, 426, 640)),
        ((1777, 999), (640, 640), (0, 140, 640, 360)),
        ((481, 640), (640, 640), (79, 0, 481, 640)),
        ((300, 200), (320, 640), (0, 213, 320, 213)),
    ],
)
def test_a_picture_lies_where_the_networks_training_put_it(
    picture: tuple[int, int], network: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    placed = Letterbox(Input(1, network[0], network[1], np.float32)).fill(noise(*picture))
    assert (placed.top_px, placed.left_px, placed.height_px, placed.width_px) == expected


@pytest.mark.parametrize("size", [(64, 64), (333, 500), (500, 333), (37, 91), (2, 300)])
def test_the_corners_of_the_picture_come_back_exactly(size: tuple[int, int]) -> None:
    placed = Letterbox(Input(1, 64, 64, np.float32)).fill(noise(*size))
    right, bottom = placed.left_px + placed.width_px, placed.top_px + placed.height_px
    box = placed.box(placed.left_px, placed.top_px, right, bottom)
    assert box is not None
    assert (box.x, box.y, box.width, box.height) == pytest.approx((0, 0, size[1], size[0]))


def test_boxes_are_clipped_to_the_picture_and_gone_when_nothing_is_left() -> None:
    placed = Placement(100, 50, width_px=64, height_px=32, left_px=0, top_px=16)
    assert placed.box(-5, 10, 32, 32) == Box(0, 0, 50, 25)
    assert placed.box(32, 32, 99, 99) == Box(50, 25, 50, 25)
    assert placed.box(10, 2, 20, 15) is None, "in the pad above"
    assert placed.box(20, 20, 20, 30) is None, "of no width"
