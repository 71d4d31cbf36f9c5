"""Drawn boards for the tests of what compares a board with its template: no two layouts are alike."""

from __future__ import annotations

import cv2
import numpy as np

from station.types import Grey, Image

COPPER, GAP = 40, 210


def layout(seed: int, *, width: int = 640, height: int = 640) -> Grey:
    """A defect-free board: dark traces and pads, some with a hole, on a bright ground."""
    random = np.random.default_rng(seed)
    board = np.full((height, width), GAP, np.uint8)
    for _ in range(max(12, width * height // 14_000)):
        x, y = int(random.integers(width)), int(random.integers(height))
        length, thickness = int(random.integers(40, 220)), int(random.integers(8, 16))
        end = (x + length, y) if random.random() < 0.5 else (x, y + length)
        cv2.line(board, (x, y), end, COPPER, thickness)
        cv2.circle(board, end, int(random.integers(12, 22)), COPPER, cv2.FILLED)
        if random.random() < 0.4:
            cv2.circle(board, end, 6, GAP, cv2.FILLED)
    return board


def photo(board: Grey, *, noise: float = 0.0, gain: float = 1.0, offset: float = 0.0, seed: int = 0) -> Image:
    """*board* as a camera gives it: H x W x 3 BGR, a little blurred, with noise (standard deviation in grey levels)."""
    seen = cv2.GaussianBlur(board, (3, 3), 0).astype(np.float32) * gain + offset
    seen += np.random.default_rng(seed).normal(0.0, 1.0, board.shape).astype(np.float32) * noise
    grey = np.clip(np.rint(seen), 0, 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), np.uint8)


def warped(board: Grey, matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Grey:
    """*board* under an affine map (2 x 3), its outermost pixels repeated."""
    size = (board.shape[1], board.shape[0])
    return np.asarray(cv2.warpAffine(board, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def shifted(board: Grey, right_px: float, down_px: float) -> Grey:
    return warped(board, np.array([[1.0, 0.0, right_px], [0.0, 1.0, down_px]]))


def turned(board: Grey, degrees: float, *, scale: float = 1.0) -> Grey:
    """Counter-clockwise about the middle."""
    middle = (board.shape[1] / 2, board.shape[0] / 2)
    return warped(board, np.asarray(cv2.getRotationMatrix2D(middle, degrees, scale), np.float64))
