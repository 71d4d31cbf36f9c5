"""
Draws defects onto defect-free boards: as many as wanted, on layouts that nobody has photographed.

Copper that is added is an island (copper), a bump on one conductor (spur) or a bridge between two (short); the same
strokes in the gap's colour are a pin-hole, a mousebite and an open. What a stroke became is not believed but looked up:
how many conductors it touches decides its class. Over 1,038 labelled defects that rule agrees with the people who
labelled DeepPCB in 97 of 100. A stroke of gap that touches one gap only and still cuts a piece of copper off is an
open: so they labelled 40 of 47.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cv2
import deeppcb
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]  # height x width; 255: copper (or, seen from the other side, gap)

TRIES = 40  # to find a place for one defect
MARGIN_PX = 10  # that the labels of the dataset leave around a defect, at the median
NEAR_PX = 16  # around a stroke: where conductors are counted
FAR_PX = 110  # the longest bridge
CHORD_PX = (14, 90)  # what cuts a corner off
ROUND_FROM_PX, ROUND_SHARE = 5, 0.8  # radius; of the circle around it
PIECE_PX = 20  # area of the smallest piece that counts as cut off
ADDED = {0: "copper", 1: "spur", 2: "short"}  # by the number of conductors that are touched
TAKEN = {0: "pin-hole", 1: "mousebite", 2: "open"}


@dataclass(frozen=True, slots=True)
class Stroke:
    """What one defect changes (a mask of the whole board), and its class."""

    mask: Mask
    class_id: int


def layout(template: NDArray[np.uint8], other: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """A defect-free board that nobody has seen: two laid over each other, or now and then *template* itself."""
    kind = random.random()
    if kind < 0.4:
        return drilled(template, random)
    other = np.asarray(np.rot90(other, int(random.integers(4))), np.uint8)
    together = cv2.max if kind < 0.7 else cv2.min
    half = np.asarray(together(template, other), np.uint8)
    rows = int(random.integers(160, 480))
    return drilled(np.vstack([half[:rows], template[rows:]]), random)


def drilled(template: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """
    Half of the time: *template* with drill marks in wide copper, round, all of a size, some in a pad of their own.

    They belong there. What tells them from pin-holes, which are ragged and no two alike, is not to be learned from the
    few layouts that have them.
    """
    if random.random() < 0.5:
        return template
    radius = float(np.exp(random.uniform(np.log(3), np.log(24))))
    around = radius * float(random.uniform(1.6, 4))  # of copper
    bulge = float(random.choice([0, random.uniform(2, 8)]))  # that the pad stands out from its conductor
    copper = np.where(template < 128, 255, 0).astype(np.uint8)
    places: list[tuple[int, int]] = []
    for _ in range(int(random.integers(2, 16))):
        depth = cv2.distanceTransform(copper, cv2.DIST_L2, 5)
        free = np.argwhere(depth > max(around - bulge, radius + 3))
        if len(free) == 0:
            break
        y, x = free[int(random.integers(len(free)))].tolist()
        cv2.circle(copper, (x, y), round(around), 0, -1)  # taken
        places.append((x, y))
    board = template.copy()
    for place in places:
        cv2.circle(board, place, round(around), 0, -1)
    corners = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for place in places:
        reach = radius + random.normal(0, 0.4, len(corners))
        outline = np.array(place) + np.stack([reach * np.cos(corners), reach * np.sin(corners)], axis=1)
        cv2.fillPoly(board, [np.round(outline).astype(np.int32)], 255)
    return board


def defective(
    template: NDArray[np.uint8], random: np.random.Generator, *, defects: int
) -> tuple[NDArray[np.uint8], list[deeppcb.Truth]]:
    """*template* (grey, copper is dark) with about so many defects, and where they are."""
    board = template.copy()
    taken = np.zeros_like(template)  # strokes and their surroundings: two defects never touch
    truths: list[deeppcb.Truth] = []
    for _ in range(defects):
        adds = bool(random.random() < 0.5)
        solid = np.where((template < 128) == adds, 255, 0).astype(np.uint8)
        stroke = _stroke(solid, taken, random, adds=adds)
        if stroke is not None:
            x, y, width, height = cv2.boundingRect(stroke.mask)
            left, top, right, bottom = np.clip(np.round(random.normal(MARGIN_PX, 2.0, 4)), 5, 16)
            truths.append(
                deeppcb.Truth(
                    stroke.class_id,
                    max(0.0, x - left),
                    max(0.0, y - top),
                    min(float(template.shape[1]), x + width + right),
                    min(float(template.shape[0]), y + height + bottom),
                )
            )
            board[stroke.mask > 0] = 0 if adds else 255
            taken[max(0, y - NEAR_PX) : y + height + NEAR_PX, max(0, x - NEAR_PX) : x + width + NEAR_PX] = 255
    return board, truths


def _stroke(solid: Mask, taken: Mask, random: np.random.Generator, *, adds: bool) -> Stroke | None:
    """
    A stroke that adds to *solid* (copper if it *adds*, else gap) and touches as many of its parts as was drawn by lot.

    None: no room was found.
    """
    touched = int(random.integers(3))
    outline = np.argwhere(cv2.morphologyEx(solid, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0)
    free = np.argwhere(cv2.erode(255 - solid, np.ones((13, 13), np.uint8)) > 0)
    places = free if touched == 0 else outline
    if len(places) == 0:
        return None
    kind = random.random()
    # Copper in a loop is called a spur or a short by people, as they like: only copper is cut off here.
    cuts = not adds and touched == 2 and kind < 0.15
    for _ in range(TRIES):
        y, x = (int(one) for one in places[int(random.integers(len(places)))])
        if cuts:
            drawn = _chord(solid.shape, x, y, outline, random)
        elif touched == 2:
            drawn = _bridge(solid, x, y, random)
        elif touched == 1 and kind < 0.25:
            drawn = _bridge(solid, x, y, random, stops_short=True)
        elif touched == 1 and kind < 0.4:
            drawn = _ledge(solid, x, y, random)
        else:
            drawn = _blob(solid.shape, x, y, random)
        if drawn is None:
            continue
        mask = np.where(solid > 0, 0, drawn).astype(np.uint8)
        mask = _largest(mask)
        if cv2.countNonZero(mask) < 25 or (mask & taken).any():
            continue
        if touched == 0 and _is_round(mask):
            continue  # drilled, as far as anybody can see
        if _touches(mask, solid) != (1 if cuts else touched) or ((touched < 2 or cuts) and _cuts(mask, solid) != cuts):
            continue
        return Stroke(mask, deeppcb.CLASSES.index((ADDED if adds else TAKEN)[touched]))
    return None


def _blob(shape: tuple[int, ...], x: int, y: int, random: np.random.Generator) -> Mask:
    """Something about (x, y), 4 to 90 px across: a patch, a scribble, a chain of dots or a stroke that tapers off."""
    mask = np.zeros(shape, np.uint8)
    reach = float(
        random.choice([random.uniform(3, 9), random.uniform(8, 18), random.uniform(14, 32)], p=[0.4, 0.4, 0.2])
    )
    kind = random.random()
    if kind < 0.3:
        axes = (int(max(3, reach)), int(max(2, reach * random.uniform(0.3, 0.75))))
        cv2.ellipse(mask, (x, y), axes, float(random.uniform(0, 180)), 0, 360, 255, -1)
        return mask
    points = np.cumsum(random.normal(0, reach * 0.6, (int(random.integers(2, 7)), 2)), axis=0)
    points = np.round(points - points.mean(axis=0) + np.array([x, y])).astype(np.int32)
    if kind < 0.45:
        cv2.fillPoly(mask, [cv2.convexHull(points)], 255)
        cv2.polylines(mask, [points], False, 255, int(random.integers(1, 4)))
    elif kind < 0.75:
        cv2.polylines(mask, [points], False, 255, int(random.integers(2, 11)))
    elif kind < 0.9:
        cv2.polylines(mask, [points], False, 255, 1)
        for start, end in itertools.pairwise(points):
            for share in np.arange(0, 1, 4 / max(4.0, float(np.linalg.norm(end - start)))):
                cv2.drawMarker(mask, tuple(map(int, start + share * (end - start))), 255, cv2.MARKER_CROSS, 5, 2)
    else:
        ends = (points[0], points[-1])
        for share in np.linspace(0, 1, 24):
            place = ends[0] + share * (ends[1] - ends[0])
            cv2.circle(mask, tuple(map(int, place)), int(1 + (1 - share) * min(8.0, reach / 2)), 255, -1)
    return mask


def _bridge(solid: Mask, x: int, y: int, random: np.random.Generator, *, stops_short: bool = False) -> Mask | None:
    """
    A bent line from (x, y), an edge, straight out of its conductor to the next one; None: there is none near.

    *stops_short*: it ends before that, and there need be no other.
    """
    around = solid[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5].astype(np.float32)
    down, right = np.gradient(cv2.GaussianBlur(around, (5, 5), 0)) if min(around.shape) > 1 else (around, around)
    away = -np.array([right.mean(), down.mean()])
    if np.linalg.norm(away) < 1e-3:
        return None
    away = away / np.linalg.norm(away)
    turn = float(random.normal(0, 0.3))
    away = np.array([away[0] * np.cos(turn) - away[1] * np.sin(turn), away[0] * np.sin(turn) + away[1] * np.cos(turn)])
    steps = np.arange(3, FAR_PX)
    columns, rows = np.round(x + steps * away[0]).astype(int), np.round(y + steps * away[1]).astype(int)
    inside = (columns >= 0) & (rows >= 0) & (columns < solid.shape[1]) & (rows < solid.shape[0])
    hits = np.flatnonzero(solid[rows[inside], columns[inside]] > 0)
    if stops_short:
        room = float(steps[hits[0]]) if len(hits) else float(inside.sum())
        if room < 14:
            return None
        return _brushed(solid, x, y, away, min(90.0, room * float(random.uniform(0.3, 0.95))), random, tapers=True)
    if len(hits) == 0 or hits[0] < 2:
        return None
    return _brushed(solid, x, y, away, float(steps[hits[0]]) + 3, random, tapers=False)


def _brushed(
    solid: Mask, x: int, y: int, away: NDArray[np.float64], length: float, random: np.random.Generator, *, tapers: bool
) -> Mask:
    """One to three bent lines of *length* from (x, y) in the direction *away*; *tapers*: most get thinner."""
    way = np.linspace(-3, length, 5)
    bend = random.normal(0, min(4.0, length / 12), 5)
    points = np.stack([x + way * away[0] - bend * away[1], y + way * away[1] + bend * away[0]], axis=1)
    mask = np.zeros_like(solid)
    for _ in range(int(random.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))):
        beside = random.normal(0, 4.0, (1, 2)) if mask.any() else np.zeros((1, 2))
        line = np.round(points + beside).astype(np.int32)
        width = int(random.integers(1, 14))
        if not tapers or random.random() < 0.3:
            cv2.polylines(mask, [line], False, 255, width)
            continue
        for number, (start, end) in enumerate(itertools.pairwise(line)):
            cv2.line(mask, start.tolist(), end.tolist(), 255, max(1, round(width * (1 - number / 4))))
    return mask


def _ledge(solid: Mask, x: int, y: int, random: np.random.Generator) -> Mask:
    """An edge about (x, y) that lies some pixels further out than it should, smooth or ragged, for 16 to 160 px."""
    reach = int(random.choice([random.integers(8, 30), random.integers(30, 80)], p=[0.8, 0.2]))
    depth = int(random.integers(2, 8))
    window = np.zeros_like(solid)
    cv2.ellipse(window, (x, y), (reach, max(6, reach // 2)), float(random.uniform(0, 180)), 0, 360, 255, -1)
    grown = np.asarray(cv2.dilate(solid, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * depth + 1,) * 2)), np.uint8)
    if random.random() < 0.5:
        ragged = (random.random((solid.shape[0] // 3 + 1, solid.shape[1] // 3 + 1)) < 0.6).astype(np.uint8) * 255
        near = np.asarray(cv2.dilate(solid, np.ones((5, 5), np.uint8)), np.uint8)
        grain = cv2.resize(ragged, (solid.shape[1], solid.shape[0]), interpolation=cv2.INTER_NEAREST)
        grown = np.where((grain > 0) | (near > 0), grown, 0).astype(np.uint8)
    return np.asarray(cv2.bitwise_and(window, grown), np.uint8)


def _chord(
    shape: tuple[int, ...], x: int, y: int, outline: NDArray[np.int64], random: np.random.Generator
) -> Mask | None:
    """A bent line from (x, y) to another place of the *outline* (rows of y, x); None: there is none near."""
    far = np.linalg.norm(outline - np.array([y, x]), axis=1)
    near = outline[(far > CHORD_PX[0]) & (far < CHORD_PX[1])]
    if len(near) == 0:
        return None
    end = near[int(random.integers(len(near)))][::-1].astype(float)
    start = np.array([x, y], float)
    along = end - start
    bulge = np.array([-along[1], along[0]]) * float(random.uniform(-0.5, 0.5))
    share = np.linspace(-0.05, 1.05, 9)[:, None]
    points = start + share * along + 4 * share * (1 - share) * bulge
    mask = np.zeros(shape, np.uint8)
    cv2.polylines(mask, [np.round(points).astype(np.int32)], False, 255, int(random.integers(1, 8)))
    return mask


def _largest(mask: Mask) -> Mask:
    """The largest connected piece of *mask*."""
    count, marked, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return mask
    return np.where(marked == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()), 255, 0).astype(np.uint8)


def _is_round(mask: Mask) -> bool:
    """Whether *mask* fills most of a circle, and is no speck, which has no shape."""
    (outline, *_), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    _, radius = cv2.minEnclosingCircle(outline)
    return radius > ROUND_FROM_PX and cv2.countNonZero(mask) > ROUND_SHARE * np.pi * radius**2


def _touches(mask: Mask, solid: Mask) -> int:
    """How many conductors, counted in the neighbourhood of the stroke, *mask* touches; at most two."""
    x, y, width, height = cv2.boundingRect(mask)
    rows = slice(max(0, y - NEAR_PX), y + height + NEAR_PX)
    columns = slice(max(0, x - NEAR_PX), x + width + NEAR_PX)
    _, conductors = cv2.connectedComponents(solid[rows, columns])
    grown = cv2.dilate(mask[rows, columns], np.ones((3, 3), np.uint8))
    return min(2, len(np.unique(conductors[(grown > 0) & (conductors > 0)])))


def _cuts(mask: Mask, solid: Mask) -> bool:
    """Whether *mask*, added to *solid*, cuts a piece off what is not solid, looked at in the stroke's neighbourhood."""
    x, y, width, height = cv2.boundingRect(mask)
    rows = slice(max(0, y - NEAR_PX), y + height + NEAR_PX)
    columns = slice(max(0, x - NEAR_PX), x + width + NEAR_PX)
    before = solid[rows, columns] == 0
    return _pieces(before & (mask[rows, columns] == 0)) > _pieces(before)


def _pieces(free: NDArray[np.bool_]) -> int:
    _, _, stats, _ = cv2.connectedComponentsWithStats(free.astype(np.uint8), connectivity=4)
    return int((stats[1:, cv2.CC_STAT_AREA] >= PIECE_PX).sum())
