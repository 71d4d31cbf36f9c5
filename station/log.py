"""Logging, set up once: constant events plus keys, as JSON on a service and in colour on a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from station.terminal import shown

# Libraries that log through stdlib logging: their lines come out in the station's own form.
NOISY = {
    "uvicorn.error": logging.WARNING,
    "uvicorn.access": logging.WARNING,
    "paho": logging.WARNING,
    "watchdog": logging.WARNING,
    "asyncio": logging.WARNING,
}


def setup(*, level: str, format: Literal["auto", "json", "console"]) -> None:  # noqa: A002  # the name of the key
    """
    Sends every log line of the process to stderr, one event a line.

    *format* "auto" is console on a terminal and JSON anywhere else. Calling it again replaces the former set-up.
    """
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    number = (
        logging.getLevelNamesMapping()[level.upper()]
        if sys.version_info >= (3, 11)
        else getattr(logging, level.upper())
    )
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last_steps: list[structlog.types.Processor] = [_harmless] if console else [structlog.processors.format_exc_info]
    renderer: structlog.types.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            exception_formatter=structlog.dev.plain_traceback,  # the others show the locals: passwords, too
        )
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last_steps, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    logging.captureWarnings(capture=True)
    for name, least in NOISY.items():
        logging.getLogger(name).setLevel(max(least, number))


def _harmless(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """A file's name must not be carried out by the terminal; JSON escapes it by itself."""
    return {
        key: shown(value) if isinstance(value, str) and key != "exception" else value for key, value in event.items()
    }


def is_said(count: int) -> bool:
    """Of what may come without end: the 1st, 2nd, 4th, 8th ... of it. Noise must not fill the log, nor go unseen."""
    return count & (count - 1) == 0
