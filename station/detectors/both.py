"""A network and the golden board side by side: what either finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from station.decide import fails
from station.types import Box, Defect, Image, ModelDetector, ModelInfo, Recipe

SAME = 0.33  # overlap (IoU) of two boxes that are one thing
COVERED = 0.5  # of the golden board's box: a fragment of what the network saw whole


class BothDetector:
    """
    Implements ``types.Detector``: what *network* or *golden* finds, marked by whom.

    A thing that both found is one defect, found by ``NETWORK+golden``: an operator sees one place on the board, and
    whoever counts defects counts it once. It is told as the network told it, whose label says what it is, unless only
    the golden board is sure enough of it to fail the board by the limits of *recipe*: then it is told as the golden
    board did. So what counts for one of them is never hidden by the other. Something large that the golden board saw
    around a small thing of the network's stays a defect of its own.

    Raises DetectorError when either cannot judge the board: half an opinion must not pass for two.
    """

    def __init__(self, network: ModelDetector, golden: ModelDetector, *, recipe: Recipe) -> None:
        self.model = ModelInfo(f"{network.model.name}+{golden.model.name}", network.model.sha256)
        self.labels = (*network.labels, *golden.labels)
        self.description = f"{network.description}, beside the {golden.description}"
        self.network = network
        self._golden = golden
        self._recipe = recipe

    def half(self) -> BothDetector:
        """The same, for two boards at a time, each on half of the cores."""
        return BothDetector(self.network.half(), self._golden.half(), recipe=self._recipe)

    def detect(self, image: Image) -> list[Defect]:
        """*image*: H x W x 3 uint8 BGR. Raises DetectorError when it cannot be judged."""
        golden = self._golden.detect(image)  # first: it refuses what is no such board, and takes less time
        united = unite(self.network.detect(image), golden, recipe=self._recipe, found_by=self.model.name)
        return sorted(united, key=_confidence, reverse=True)


def unite(network: Sequence[Defect], golden: Sequence[Defect], *, recipe: Recipe, found_by: str) -> list[Defect]:
    """Both lists as one: what is in both once, marked *found_by*, and as told by whom it counts for."""
    alone = list(golden)
    united: list[Defect] = []
    sure = [one for one in network if fails(one, recipe)]
    told_so: list[Defect] = []  # a network tells one box under each label that it may have: the golden board's is one
    for one in network:
        same = [other for other in golden if _is_same(one.box, other.box)]
        alone = [other for other in alone if other not in same]
        known = [other for other in same if other in told_so or any(_is_same(each.box, other.box) for each in sure)]
        counting = [other for other in same if other not in known and fails(other, recipe)]
        told = one if one in sure else max(counting, key=_confidence, default=one)
        told_so.append(told)
        united.append(replace(told, found_by=found_by) if same else one)
    return united + alone


def _confidence(defect: Defect) -> float:
    return defect.confidence


def _is_same(network: Box, golden: Box) -> bool:
    shared_px = network.shared_px(golden)
    return shared_px > 0 and (network.iou(golden) > SAME or shared_px >= COVERED * golden.area_px)
