"""Judges one picture: is it fit, what does the detector find on it, and what does the recipe make of that."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from station.decide import decide, unknown
from station.errors import DetectorError
from station.trust import problem_of
from station.types import Decision, Defect, Detector, Frame, Image, Inspection, Recipe


@dataclass(frozen=True, slots=True)
class Bench:
    """
    What judges a board, and under which names it is on record.

    *half* is the same detector on half of the cores, for two boards at a time; None: *detector* serves both.
    *withhold* has the last word on a decision: a challenge that is due lets nothing pass.
    """

    detector: Detector
    recipe: Recipe
    recipe_sha256: str
    station: str
    clock_synced: Callable[[], bool]
    withhold: Callable[[Frame, Decision], Decision] | None = None
    half: Detector | None = None

    def detector_for(self, *, alone: bool) -> Detector:
        """What judges a board *alone*, on all cores, or beside another one."""
        return self.detector if alone or self.half is None else self.half


@dataclass(frozen=True, slots=True)
class Seen:
    """What is to be seen on a board: the *problem* that keeps it from being judged, or what a detector found on it."""

    problem: str | None
    defects: list[Defect]
    detect_ms: float | None


Look = Callable[[Image, Bench], Seen]
"""
Looks at a picture as the bench would have it. Raises DetectorError, and CancelledError when the station stops before
the detector comes to it.
"""


def look_now(image: Image, bench: Bench) -> Seen:
    """Looks at *image* here and now, on all cores. Raises DetectorError."""
    return unfit(image, bench) or detected(image, bench, alone=True)


def unfit(image: Image, bench: Bench) -> Seen | None:
    """What keeps *image* from being judged; None: nothing does, and the detector may look at it."""
    recipe = bench.recipe
    problem = problem_of(image, min_contrast=recipe.min_contrast, limits=recipe.trust)
    return None if problem is None else Seen(problem, [], None)


def detected(image: Image, bench: Bench, *, alone: bool) -> Seen:
    """What the detector finds, *alone* or beside another board. Raises DetectorError."""
    began_s = time.perf_counter()
    defects = bench.detector_for(alone=alone).detect(image)
    return Seen(None, defects, (time.perf_counter() - began_s) * 1e3)


def inspect(frame: Frame, bench: Bench, look: Look = look_now) -> Inspection:
    """Judges one frame. A picture or a detector in trouble becomes UNKNOWN; nothing else is caught."""
    began_s = time.perf_counter()
    detect_ms: float | None = None
    if frame.image is None:
        decision = unknown(frame.problem or "no picture")
    else:
        try:
            seen = look(frame.image, bench)
            decision = decide(seen.defects, bench.recipe) if seen.problem is None else unknown(seen.problem)
            detect_ms = seen.detect_ms
        except DetectorError as error:
            decision = unknown(f"the detector could not judge it: {error}")
    if bench.withhold is not None:
        decision = bench.withhold(frame, decision)
    return Inspection(
        frame=frame,
        decision=decision,
        model=bench.detector.model,
        recipe=bench.recipe.name,
        recipe_sha256=bench.recipe_sha256,
        detect_ms=detect_ms,
        # Of a board that was looked at ahead, what the detector took then counts too.
        total_ms=max((time.perf_counter() - began_s) * 1e3, detect_ms or 0.0),
        clock_synced=bench.clock_synced(),
    )
