"""The power fails at any moment, and whatever was not synced is lost or kept: no promise is broken."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.powercut.disk import Change, Op, Recording, State
from tests.powercut.run import Recorded, cut, record_folder, record_line

ROOT = "/disk"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record_folder(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return record_line(tmp_path_factory.mktemp("line"))


def test_whatever_a_power_cut_leaves_of_a_folder_each_board_is_answered_once(folder: Recorded, tmp_path: Path) -> None:
    outcome = cut(folder, tmp_path, seed=1, samples=2, every=3, restarts=4)
    assert outcome.states > 1000
    assert outcome.broken == [], str(outcome)


def test_no_pass_that_a_line_has_heard_is_lost_by_a_power_cut(line: Recorded, tmp_path: Path) -> None:
    outcome = cut(line, tmp_path, seed=1, samples=2, every=3)
    assert outcome.states > 500
    assert outcome.broken == [], str(outcome)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_every_moment_and_many_more_losses(folder: Recorded, line: Recorded, tmp_path: Path) -> None:
    of_folder = cut(folder, tmp_path / "folder", seed=2, samples=50, restarts=60)
    of_line = cut(line, tmp_path / "line", seed=2, samples=50)
    print(f"folder: {of_folder}\nline: {of_line}")  # noqa: T201  # the figures, with -s
    assert of_folder.broken + of_line.broken == []


def states(*ops: Op) -> list[State]:
    recording = Recording(Path(ROOT), {}, [], list(ops))
    return list(recording.states(samples=0, chance=random.Random(1)))  # noqa: S311  # no draws


def op(kind: str, path: str, second: str = "", data: bytes = b"", at: int = 0) -> Op:
    return Op(kind, f"{ROOT}/{path}" if path else ROOT, f"{ROOT}/{second}" if second else "", at, data)


def left(*ops: Op) -> set[tuple[tuple[str, bytes], ...]]:
    """What may lie there after all of *ops*."""
    found = states(*ops)
    return {tuple(sorted(one.disk.lies().items())) for one in found if one.after == len(ops)}


def test_bytes_are_safe_with_their_own_sync_and_names_with_that_of_their_folder() -> None:
    made, written = op("c", "a"), op("w", "a", data=b"x")
    assert left(made, written) == {(), (("a", b""),), (("a", b"x"),)}
    assert left(made, written, op("f", "a")) == {(), (("a", b"x"),)}
    assert left(made, written, op("f", "")) == {(("a", b""),), (("a", b"x"),)}
    assert left(made, written, op("f", "a"), op("f", "")) == {(("a", b"x"),)}


def test_a_rename_may_come_before_the_bytes_and_is_never_half() -> None:
    found = left(op("c", "a"), op("f", ""), op("w", "a", data=b"x"), op("r", "a", "b"))
    assert found == {(("a", b""),), (("a", b"x"),), (("b", b""),), (("b", b"x"),)}


def test_a_long_write_may_end_at_a_sector() -> None:
    whole = b"x" * 4096
    found = left(op("c", "a"), op("f", ""), op("w", "a", data=whole))
    assert found == {(("a", b""),), (("a", whole[:2048]),), (("a", whole),)}


def test_what_lies_in_a_folder_whose_name_was_lost_is_lost_with_it() -> None:
    assert left(op("m", "d"), op("c", "d/a"), op("f", "d")) == {(), (("d/a", b""),)}


def test_a_file_keeps_its_bytes_under_the_name_that_replaced_another() -> None:
    disk = states(op("c", "a"), op("w", "a", data=b"old"))[-1].disk
    disk.apply(Change(op("u", "a"), 1))
    assert disk.lies() == {}
