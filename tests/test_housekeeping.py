"""How full the disk is becomes a fault in time, and what is old is cleared away, chunk by chunk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from station.disk import CACHE_S, Disks
from station.health import Health
from station.housekeeping import PRUNE_CHUNKS, Housekeeping, Prune


class House:
    """A disk with *free_mb*, where pictures need 100 MB and boards 10."""

    def __init__(self, *prunes: Prune) -> None:
        self.free_mb = 1000
        self.now_s = 0.0
        self.sweeps = 0
        self.health = Health()
        disks = Disks(
            [Path("/")],
            evidence_floor_bytes=100_000_000,
            stop_floor_bytes=10_000_000,
            monotonic=lambda: self.now_s,
            statvfs=lambda _: SimpleNamespace(f_bavail=self.free_mb, f_frsize=1_000_000, f_files=0, f_favail=0),
        )
        self.keeping = Housekeeping(
            disks, self.health, stop_below_mb=10, evidence_below_mb=100, sweep=self.sweep, prunes=prunes
        )

    def sweep(self) -> None:
        self.sweeps += 1

    def faults_at(self, free_mb: int) -> dict[str, str]:
        self.free_mb = free_mb
        self.now_s += 2 * CACHE_S
        self.keeping.look()
        return {fault.code: fault.detail for fault in self.health.faults()}


def test_a_disk_that_fills_up_is_a_fault_twice_and_none_when_there_is_room_again() -> None:
    house = House()
    assert house.faults_at(1000) == {}
    assert house.faults_at(50) == {
        "disk_low": "50 MB free on the disk of /: no pictures are kept below 100 MB ([evidence] stop_below_mb)"
    }
    assert set(house.faults_at(5)) == {"disk_low", "disk_full"}
    assert "no board is taken" in house.health.not_ready()["disk"]
    assert "df -i" in house.faults_at(0)["disk_full"]
    assert house.faults_at(1000) == {}
    assert house.health.not_ready() == {}
    assert house.sweeps == 5, "a step each time"


class Heap:
    """So many chunks of what is old."""

    def __init__(self, chunks: int) -> None:
        self.chunks, self.turns = chunks, 0

    def prune(self) -> int:
        self.turns += 1
        cleared = min(1, self.chunks)
        self.chunks -= cleared
        return cleared


@pytest.mark.parametrize(("chunks", "turns"), [(0, 1), (3, 4), (10_000, PRUNE_CHUNKS)])
def test_what_is_old_is_cleared_in_chunks_and_never_for_long(chunks: int, turns: int) -> None:
    first, second = Heap(chunks), Heap(chunks)
    House(first.prune, second.prune).keeping.clear()
    assert (first.turns, second.turns) == (turns, turns)
