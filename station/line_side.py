"""Builds what stands at the line: where pictures and triggers come from, and where the answers go."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from station.config import Settings
from station.errors import ConfigError
from station.health import Health
from station.ledger import SqliteLedger
from station.line_sections import CameraSection
from station.metrics import Metrics
from station.parts import check_apart, lock_inbox, make_folder
from station.sections import MB, FolderSection
from station.sources.folder import FolderSource
from station.trigger_journal import TriggerJournal
from station.triggers import Triggers
from station.types import Gate, Source, Stop

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop that a Worker runs, and how long it may go without a beat before only a restart helps."""

    run: Callable[[Stop], None]
    limit_s: float = 30.0


@dataclass(frozen=True, slots=True)
class LineSide:
    """
    What the line works with. *loops* start in their order, and stop in it after the line has.

    *gate* is None where nobody asks and nothing is shown. *triggers* is None where nothing triggers from outside, and
    *journal* with it. *inbox* (a descriptor) holds the watched folder for this process.
    """

    source: Source
    where: str
    gate: Gate | None = None
    loops: dict[str, Loop] = field(default_factory=dict)
    triggers: Triggers | None = None
    journal: TriggerJournal | None = None
    inbox: int | None = None


def build_line_side(
    settings: Settings, *, ledger: SqliteLedger, health: Health, metrics: Metrics, on_backlog: Callable[[int], None]
) -> LineSide:
    """The line's side as configured. Raises ConfigError, LedgerError."""
    match settings.source:
        case FolderSection() as wanted:
            check_apart(settings.station.data_dir, wanted.path)
            source = build_folder(wanted, ledger=ledger, on_backlog=on_backlog)
            return LineSide(source, str(wanted.path), inbox=lock_inbox(wanted.path))
        case CameraSection() as wanted:
            return _camera_side(settings, wanted, health=health, metrics=metrics)


def _camera_side(settings: Settings, wanted: CameraSection, *, health: Health, metrics: Metrics) -> LineSide:
    raise NotImplementedError


def build_folder(wanted: FolderSection, *, ledger: SqliteLedger, on_backlog: Callable[[int], None]) -> FolderSource:
    with contextlib.suppress(ConfigError):  # a share that is away at the moment: the source says so, and waits for it
        make_folder(wanted.path, "[source] path")
    return FolderSource(
        wanted.path,
        after=wanted.after,
        recorded=ledger.recorded,
        serial_pattern=re.compile(wanted.serial_pattern) if wanted.serial_pattern else None,
        subfolders=wanted.subfolders,
        polling=True if wanted.polling == "always" else None,
        scan_every_s=wanted.scan_s,
        unchanged_s=wanted.unchanged_s,
        max_bytes=int(wanted.max_file_mb * MB),
        max_pixels=int(wanted.max_pixels_mp * MB),
        on_backlog=on_backlog,
    )
