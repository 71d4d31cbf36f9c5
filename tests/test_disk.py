"""The floors of free disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from station.disk import Disks, Room, free_bytes, room

GB = 1_000_000_000


@dataclass
class Space:
    f_bavail: int
    f_frsize: int = 1
    f_files: int = 1000
    f_favail: int = 1000


class FakeDisks:
    """File systems by path, which count how often they are asked."""

    def __init__(self, **free: int) -> None:
        self.spaces = {f"/{name}": Space(count) for name, count in free.items()}
        self.asked = 0
        self.now_s = 100.0

    def statvfs(self, path: Path) -> Space:
        self.asked += 1
        if str(path) not in self.spaces:
            raise FileNotFoundError(str(path))
        return self.spaces[str(path)]

    def disks(self, *paths: str) -> Disks:
        return Disks(
            [Path(path) for path in paths],
            evidence_floor_bytes=2 * GB,
            stop_floor_bytes=GB,
            monotonic=lambda: self.now_s,
            statvfs=self.statvfs,
        )


@pytest.mark.parametrize(
    ("free", "before", "after"),
    [
        (2.00 * GB, Room.PLENTY, Room.PLENTY),
        (1.99 * GB, Room.PLENTY, Room.NO_EVIDENCE),
        (2.05 * GB, Room.NO_EVIDENCE, Room.NO_EVIDENCE),
        (2.10 * GB, Room.NO_EVIDENCE, Room.PLENTY),
        (1.00 * GB, Room.NO_EVIDENCE, Room.NO_EVIDENCE),
        (0.99 * GB, Room.NO_EVIDENCE, Room.FULL),
        (0.99 * GB, Room.PLENTY, Room.FULL),
        (1.04 * GB, Room.FULL, Room.FULL),
        (1.05 * GB, Room.FULL, Room.NO_EVIDENCE),
        (2.05 * GB, Room.FULL, Room.NO_EVIDENCE),
        (2.10 * GB, Room.FULL, Room.PLENTY),
    ],
)
def test_room_shrinks_at_a_floor_and_grows_only_above_it(free: float, before: Room, after: Room) -> None:
    assert room(int(free), evidence_floor_bytes=2 * GB, stop_floor_bytes=GB, before=before) is after


def test_the_fullest_file_system_counts() -> None:
    fake = FakeDisks(data=10 * GB, inbox=GB // 2)
    disks = fake.disks("/data", "/inbox")
    assert disks.room() is Room.FULL
    assert disks.free_bytes() == GB // 2
    assert disks.fullest() == Path("/inbox")


def test_the_disk_is_asked_once_a_second() -> None:
    fake = FakeDisks(data=10 * GB)
    disks = fake.disks("/data")
    assert disks.room() is Room.PLENTY
    fake.spaces["/data"].f_bavail = 0
    fake.now_s += 0.9
    assert disks.room() is Room.PLENTY
    assert fake.asked == 1
    fake.now_s += 0.2
    assert disks.room() is Room.FULL


def test_free_space_around_a_floor_does_not_make_it_flap() -> None:
    fake = FakeDisks(data=2 * GB - 1)
    disks = fake.disks("/data")
    seen = []
    for free in (2 * GB - 1, 2 * GB + 1, 2 * GB - 1, 2 * GB + 1):
        fake.spaces["/data"].f_bavail = free
        fake.now_s += 2
        seen.append(disks.room())
    assert seen == [Room.NO_EVIDENCE] * 4


def test_a_path_that_cannot_be_asked_does_not_count() -> None:
    fake = FakeDisks(data=10 * GB)
    assert fake.disks("/data", "/unmounted").room() is Room.PLENTY


def test_without_any_answer_there_is_no_room() -> None:
    disks = FakeDisks().disks("/data")
    assert disks.room() is Room.FULL
    assert disks.fullest() is None


def test_a_file_system_without_inodes_has_no_room() -> None:
    assert free_bytes(Path("/data"), statvfs=lambda _: Space(GB, f_favail=0)) == 0


def test_a_file_system_that_does_not_count_inodes_has_room() -> None:
    assert free_bytes(Path("/data"), statvfs=lambda _: Space(GB, f_files=0, f_favail=0)) == GB


def test_a_real_disk_answers(tmp_path: Path) -> None:
    assert Disks([tmp_path], evidence_floor_bytes=1, stop_floor_bytes=0).free_bytes() > 0
