"""What the demo prints is headed by what it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import demo
import pytest
from rich.console import Console


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    made = io.StringIO()
    monkeypatch.setattr(demo, "console", Console(file=made, width=120, highlight=False, soft_wrap=True))
    return made


def event(**changes: object) -> dict[str, Any]:
    short = {"label": "short", "confidence": 0.91, "counts": True}
    made = {"seq": 7, "verdict": "fail", "file": "board.jpg", "defects": [short], "reason": "short 0.91 >= 0.50"}
    return {**made, "timing_ms": {"detect": 17.25, "total": 18.0}, **changes}


def test_each_column_stands_below_its_heading(out: io.StringIO) -> None:
    demo.print_heading()
    demo.print_event(event())
    heading, line = out.getvalue().splitlines()
    for name, value in (("seq", "7"), ("verdict", "FAIL"), ("file", "board.jpg"), ("what was found", "short 0.91")):
        assert heading.index(name) == line.index(value), name
    assert heading.index("detect ms") + len("detect ms") == line.index("17.2") + 4


def test_a_name_cannot_play_tricks_on_the_terminal_of_the_demo(out: io.StringIO) -> None:
    demo.print_event(
        event(file="a\x1b[2J\nb.jpg", verdict="unknown", defects=[], reason="cut\noff", timing_ms={"detect": None})
    )
    (line,) = out.getvalue().splitlines()
    assert line.isprintable()


def test_ctrl_c_among_the_samples_is_no_traceback(
    out: io.StringIO, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def demonstrate(_home: Path, *, once: bool) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "demonstrate", demonstrate)
    monkeypatch.setattr("demo.tempfile.mkdtemp", lambda prefix: str(tmp_path))  # noqa: ARG005  # it is called by name
    monkeypatch.setattr("demo.signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["demo"])
    assert demo.main() == demo.INTERRUPTED
    assert "ended before all samples were judged" in out.getvalue()
    assert f"left in {tmp_path}" in out.getvalue().replace("\n", "")
