"""``station inspect``: pictures in, verdicts out; nothing is recorded, moved or sent."""

from __future__ import annotations

import hashlib
import sys
import uuid
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import cv2
from rich.console import Console
from rich.text import Text

from station.clock import Clock
from station.config import Settings
from station.drawing import drawn
from station.errors import ConfigError, PictureError
from station.events import GATE_OFF, Aftermath, event_of
from station.folders import make_folder
from station.inspection import Bench, inspect
from station.judge import build_judge
from station.parts import build_recipe, check_labels, depth_bits, picture_limits, recipe_sha256
from station.picture import read
from station.sections import MB
from station.terminal import counted, shown
from station.types import Decision, Frame, Image, Verdict

STYLES = {Verdict.PASS: "bold green", Verdict.FAIL: "bold red", Verdict.UNKNOWN: "bold yellow"}


def inspect_paths(settings: Settings, paths: Iterable[Path], *, save: Path | None, as_json: bool) -> bool:
    """
    Judges every picture and prints it; True when all pass. What *save* holds then is said on stderr.

    Raises ConfigError for a path that is not there.
    """
    files = list(_files(paths))
    if not files:
        raise ConfigError("no file to inspect: name pictures, or folders that hold some")
    if save is not None:
        make_folder(save, "--save")
    recipe, detector = build_recipe(settings), build_judge(settings).detector
    check_labels(settings, detector.labels)
    bench = Bench(
        detector=detector,
        recipe=recipe,
        recipe_sha256=recipe_sha256(recipe),
        station=settings.station.name,
        clock_synced=Clock().synced,
    )
    console = Console(soft_wrap=True, highlight=False)
    all_pass = True
    saved: list[str] = []
    for file in files:
        inspection = inspect(_frame(file, settings), bench)
        all_pass = all_pass and inspection.decision.verdict is Verdict.PASS
        if as_json:
            aftermath = Aftermath(GATE_OFF, None)
            print(event_of(inspection, None, aftermath, station=settings.station.name).payload.decode())
        else:
            verdict = inspection.decision.verdict
            told = f"{shown(str(file))}  {shown(inspection.decision.reason)}"
            said = Text.assemble((f"{verdict.name:<8}", STYLES[verdict]), told)
            console.print(said)
        if save is not None and inspection.frame.image is not None:
            saved.append(_save(inspection.frame.image, inspection.decision, file, save))
    if save is not None:
        print(_saved(saved, save, judged=len(files)), file=sys.stderr)
    return all_pass


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        elif path.exists():
            yield path
        else:
            raise ConfigError(f"{shown(str(path))} does not exist")


def _frame(file: Path, settings: Settings) -> Frame:
    image, sha256, problem = None, "", None
    max_bytes, max_pixels = picture_limits(settings)
    try:
        if file.stat().st_size > max_bytes:
            problem = f"larger than {max_bytes / MB:g} MB ([source] max_file_mb)"
        else:
            data = file.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            image = read(data, max_pixels=max_pixels, depth_bits=depth_bits(settings))
    except PictureError as error:
        problem = str(error)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    return Frame(
        id=str(uuid.uuid4()),
        image=image,
        captured_at=datetime.now(timezone.utc),
        source="inspect",
        file=file.name,
        sha256=sha256,
        problem=problem,
    )


def _save(image: Image, decision: Decision, file: Path, folder: Path) -> str:
    """The name that it has there."""
    canvas = drawn(image, decision)
    target = folder / f"{file.stem}-{decision.verdict.value}.jpg"
    if not cv2.imwrite(str(target), canvas):
        raise ConfigError(f"--save {folder}: {target.name} cannot be written there")
    return target.name


def _saved(names: list[str], folder: Path, *, judged: int) -> str:
    """What was written where, and why there are fewer pictures than boards."""
    unread, replaced = judged - len(names), len(names) - len(set(names))
    fewer = [
        *([f"{unread} could not be read"] if unread else []),
        *([f"{replaced} written over: another had the same name"] if replaced else []),
    ]
    said = f"{counted(len(set(names)), 'annotated picture')} in {shown(str(folder))}/"
    return said + (f" ({', '.join(fewer)})" if fewer else "")
