"""Thousands of damaged and hostile pictures: a decoder may refuse them, but not crash, hang or eat the memory."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

MEMORY_MB = 100  # for pictures of at most two million pixels, several copies of them included
SECONDS = 5.0  # of CPU, for one picture


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(10_000, id="short"),
        pytest.param(300_000, id="long", marks=[pytest.mark.long, pytest.mark.timeout(1800)]),
    ],
)
def test_no_picture_crashes_hangs_or_eats_the_memory(last: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.judging", "0", str(last)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"exit {done.returncode}; the last mutants: {done.stderr[-1500:]}"
    figures = json.loads(done.stdout)
    print(json.dumps(figures, indent=2))  # noqa: T201  # the figures, with -s
    assert sum(figures["came"].values()) == last
    assert figures["more_memory_mb"] < MEMORY_MB
    assert figures["slowest_s"] < SECONDS
    kinds = {one.partition(":")[0] for one in figures["came"]}
    assert kinds == {"jpeg", "png", "bmp", "tiff", "webp"}
    decoded = sum(count for one, count in figures["came"].items() if one.endswith("decoded"))
    assert 0 < decoded < last, "mutants that all pass, or none, try nothing"
