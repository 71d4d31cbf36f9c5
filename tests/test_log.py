"""One form for every line: ours, and those of the libraries."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from station import log


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in log.NOISY}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, number in levels.items():
        logging.getLogger(name).setLevel(number)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


Stderr = pytest.CaptureFixture[str]


def lines(capsys: Stderr) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_one_json_document_with_level_logger_and_utc_time(capsys: Stderr) -> None:
    log.setup(level="info", format="auto")
    structlog.get_logger("station.line").info("board inspected", verdict="fail", reason="a\nb")
    (line,) = lines(capsys)
    assert (line["event"], line["verdict"], line["reason"]) == ("board inspected", "fail", "a\nb")
    assert (line["level"], line["logger"]) == ("info", "station.line")
    assert line["timestamp"].endswith("Z")


def test_on_a_terminal_a_name_is_not_carried_out(capsys: Stderr) -> None:
    log.setup(level="info", format="console")
    structlog.get_logger("station.line").info("board inspected", file="a\x1b[2Jb.jpg")
    shown = capsys.readouterr().err
    assert r"a\x1b[2Jb.jpg" in shown
    assert len(shown.splitlines()) == 1


def test_a_traceback_does_not_show_what_variables_hold(capsys: Stderr) -> None:
    for form in ("console", "json"):
        log.setup(level="info", format=form)
        password = "hunter" + "2"
        try:
            password.index("x")
        except ValueError as error:
            structlog.get_logger("station.mqtt").error("loop failed", exc_info=error)
        shown = capsys.readouterr().err
        assert "substring not found" in shown
        assert "hunter2" not in shown


@pytest.mark.parametrize("name", ["uvicorn.error", "paho.mqtt.client", "watchdog.observers", "anything.else"])
def test_libraries_speak_in_the_same_form(capsys: Stderr, name: str) -> None:
    log.setup(level="info", format="json")
    logging.getLogger(name).warning("half of %s is gone", "it", extra={"client": "a"})
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["logger"], line["client"]) == (
        "half of it is gone",
        "warning",
        name,
        "a",
    )


def test_what_libraries_chatter_about_is_left_out(capsys: Stderr) -> None:
    log.setup(level="info", format="json")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("paho.mqtt.client").info("Sending PINGREQ")
    assert lines(capsys) == []


def test_below_the_level_nothing_is_said(capsys: Stderr) -> None:
    log.setup(level="error", format="json")
    structlog.get_logger("station").warning("not now")
    structlog.get_logger("station").error("now")
    assert [line["event"] for line in lines(capsys)] == ["now"]


def test_a_traceback_stays_inside_of_its_line(capsys: Stderr) -> None:
    log.setup(level="info", format="json")
    try:
        int("broken")
    except ValueError as error:
        structlog.get_logger("station").error("loop failed", exc_info=error)
    (line,) = lines(capsys)
    assert "ValueError: invalid literal" in line["exception"]


def test_a_python_warning_is_a_log_line_too(capsys: Stderr) -> None:
    log.setup(level="info", format="json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old ways", UserWarning, stacklevel=1)
    (line,) = lines(capsys)
    assert "old ways" in line["event"]
    assert line["level"] == "warning"


def test_a_console_line_is_for_people(capsys: Stderr) -> None:
    log.setup(level="info", format="console")
    structlog.get_logger("station").info("station ready", inbox="/srv/in")
    said = capsys.readouterr().err
    assert "station ready" in said
    assert "inbox=/srv/in" in said
    assert not said.startswith("{")


def test_setting_up_again_replaces_and_does_not_double(capsys: Stderr) -> None:
    log.setup(level="debug", format="console")
    log.setup(level="info", format="json")
    structlog.get_logger("station").debug("quiet")
    structlog.get_logger("station").info("once")
    assert [line["event"] for line in lines(capsys)] == ["once"]


def test_of_what_comes_without_end_ever_less_is_said() -> None:
    assert [count for count in range(1, 20) if log.is_said(count)] == [1, 2, 4, 8, 16]
