"""
Turns a .pt into ONNX in a child process, and believes the result only where it agrees with the original.

A .pt is a pickle: to load it is to run its code. That happens in the child alone, which has no secrets of the station's
in its environment; but it runs as the same user. Whoever uses a .pt trusts whoever made it, and is told so.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

from station.errors import ModelError
from station.extras import how_to_add
from station.types import Box, Defect

CHILD = Path(__file__).with_name("pt_child.py")
WARNING = "a .pt file can run any code when it is loaded: use only files whose makers you trust"
MISSING = (
    "a .pt is converted by ultralytics, which is not installed: {how}, or convert it "
    "where it is: yolo export model={pt} format=onnx imgsz=640, and give the station the .onnx"
)
TURN_S = 1.0
# A child that neither speaks nor computes for so long is stuck. Importing torch from a slow disk took 40 s once.
STUCK_S = 120.0
# Names whose values a model has no business with. The rest stays: PATH, HOME, proxies and library paths are needed.
PRIVATE = ("STATION_", "SECRET", "TOKEN", "PASSWORD", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_")

SURE = 0.1  # from this confidence on every defect of one must be there in the other
SAME_BOX = 0.9  # intersection over union: the same arithmetic in another order moves a box by less than a pixel
SAME_SCORE = 0.02
WEAKEST = 20  # of each picture, if none is sure: what there is to compare on boards of another kind
ENOUGH = 0.9  # of those weak ones: among near ties the one or the other survives the suppression of overlaps


@dataclass(frozen=True, slots=True)
class Told:
    """What the original found on one picture, which lies at *picture* as the network was given it."""

    picture: Path
    defects: tuple[Defect, ...]


@dataclass(frozen=True, slots=True)
class Converted:
    """The ONNX file, and what the original says of the pictures: ``agreement`` with it is still to be seen."""

    onnx: Path
    told: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well a converted model agrees with its original, over all defects compared."""

    compared: int
    largest_score_difference: float
    smallest_iou: float


def convert(
    pt: Path,
    folder: Path,
    *,
    pictures: Sequence[Path],
    on_progress: Callable[[str], object],
    python: Sequence[str] = (sys.executable,),
    stuck_s: float = STUCK_S,
) -> Converted:
    """
    Has the child convert *pt* in *folder* (empty, and the caller's to delete) and judge *pictures* with the original.

    *on_progress* is called with what the child does, at least every few seconds, but only while it really computes: by
    that a start may be given more time. *python*: what runs the child. Raises ModelError saying what to do.
    """
    if not pt.is_file():
        raise ModelError(f"{pt}: there is no such file")
    copied = folder / pt.name  # the export writes beside its model, where we may not write
    try:
        shutil.copyfile(pt, copied)
    except OSError as error:
        raise ModelError(f"{pt} cannot be read: {error.strerror}") from None
    answer = _run(copied, folder, pictures, on_progress=on_progress, python=python, stuck_s=stuck_s)
    if "error" in answer:
        text = (
            MISSING.format(pt=pt, how=how_to_add("ultralytics"))
            if answer.get("missing")
            else f"{pt} cannot be converted: {answer['error']}"
        )
        raise ModelError(text)
    onnx = folder / "model.onnx"
    if not onnx.is_file():
        raise ModelError(f"{pt} cannot be converted: the child said that it had, but left no file")
    return Converted(onnx, tuple(_told(folder, pt.stem)))


def agreement(told: Sequence[Told], detect: Callable[[Path], list[Defect]]) -> Agreement:
    """
    Compares what the converted model *detect*s (at a confidence of 0.001) with what the original told.

    Every defect from 0.1 on must be in both, with its label, its box (IoU 0.9) and its score (0.02); where a picture
    has none, nine of its twenty best. Raises ModelError when they differ, or when there was nothing to compare.
    """
    scores, boxes = [0.0], [1.0]
    compared = 0
    for one in told:
        theirs, ours = list(one.defects), detect(one.picture)
        sure = [defect for defect in theirs if defect.confidence >= SURE]
        extra = [defect for defect in ours if defect.confidence >= SURE + SAME_SCORE]
        wanted = sure or theirs[:WEAKEST]
        partners = [(defect, _partner(defect, ours)) for defect in wanted]
        missing = [defect for defect, partner in partners if partner is None]
        missing += [defect for defect in extra if _partner(defect, theirs) is None]
        if missing and (sure or extra or len(wanted) - len(missing) < ENOUGH * len(wanted)):
            worst = missing[0]
            raise ModelError(
                f"the converted model does not agree with the original: {worst.label} {worst.confidence:.2f} is found "
                "by one of them only. It is not used; convert it where it was trained, and compare there"
            )
        compared += len(wanted)
        scores += [abs(defect.confidence - partner.confidence) for defect, partner in partners if partner]
        boxes += [defect.box.iou(partner.box) for defect, partner in partners if partner]
    if compared == 0:
        raise ModelError(
            "the original finds nothing at all on the pictures to compare with: give pictures of your boards with "
            "station model import FILE --images DIR"
        )
    return Agreement(compared, round(max(scores), 5), round(min(boxes), 4))


def _run(
    pt: Path,
    folder: Path,
    pictures: Sequence[Path],
    *,
    on_progress: Callable[[str], object],
    python: Sequence[str],
    stuck_s: float,
) -> dict[str, object]:
    """The child's last word. It is killed when it stands still, and when we are stopped."""
    command = [*python, "-c", CHILD.read_text(encoding="utf-8"), pt.name, str(folder), *map(str, pictures)]
    try:
        with (folder / "stderr").open("wb") as stderr:
            child = subprocess.Popen(
                command,
                cwd=folder,
                env=_environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
    except OSError as error:
        raise ModelError(f"{' '.join(python)} cannot be started to convert {pt.name}: {error.strerror}") from None
    lines: Queue[dict[str, object]] = Queue()
    reader = threading.Thread(target=_read, args=(child, lines), name="pt-child", daemon=True)
    reader.start()
    last: dict[str, object] = {}
    doing, moved_s, cpu_ticks, finished = "starting", time.monotonic(), -1, False
    try:
        while True:
            try:
                last = lines.get(timeout=TURN_S)
            except Empty:
                ticks = _cpu_ticks(child.pid)
                if ticks == cpu_ticks:
                    if not reader.is_alive() and lines.empty():
                        break
                    if time.monotonic() - moved_s > stuck_s:
                        raise ModelError(f"converting {pt.name} stands still since {stuck_s:g} s ({doing})") from None
                    continue
                cpu_ticks = ticks
            else:
                if "step" not in last:
                    finished = True
                    break
                doing = str(last["step"])
            moved_s = time.monotonic()
            on_progress(doing)
    finally:
        if not finished and child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        reader.join()
    if not {"done", "error"} & set(last):
        tail = (folder / "stderr").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        return {"error": f"the child ended with {child.returncode} while {doing}: {''.join(tail)[:300]}"}
    return last


def _read(child: subprocess.Popen[bytes], lines: Queue[dict[str, object]]) -> None:
    if child.stdout is None:  # it was opened as a pipe
        return
    with child.stdout as out:
        for line in out:
            try:
                said = json.loads(line)
            except ValueError:
                continue  # a stranger's code may print what it likes
            if isinstance(said, dict):
                lines.put(said)


def _environment(folder: Path) -> dict[str, str]:
    """Ours without what is private; ultralytics installs and reports nothing, and its settings stay in *folder*."""
    open_ones = {key: value for key, value in os.environ.items() if not any(word in key for word in PRIVATE)}
    return open_ones | {
        "YOLO_AUTOINSTALL": "False",
        "YOLO_OFFLINE": "True",
        "YOLO_CONFIG_DIR": str(folder),
        "MPLCONFIGDIR": str(folder),
        "ORT_DISABLE_TELEMETRY": "1",
    }


def _cpu_ticks(pid: int) -> int:
    """What the process has computed so far; -1 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    except (OSError, ValueError, IndexError):
        return -1


def _told(folder: Path, name: str) -> list[Told]:
    found = []
    for note in sorted(folder.glob("[0-9]*.json")):
        try:
            rows = json.loads(note.read_text(encoding="utf-8"))
            defects = [
                Defect(str(one["label"]), float(one["confidence"]), _box(*map(float, one["box"])), name) for one in rows
            ]
        except (OSError, ValueError, KeyError, TypeError):
            raise ModelError(
                f"what the child wrote of {note.stem} is not understood: convert the model elsewhere"
            ) from None
        found.append(Told(note.with_suffix(".png"), tuple(sorted(defects, key=lambda one: -one.confidence))))
    return found


def _box(x1: float, y1: float, x2: float, y2: float) -> Box:
    return Box(x1, y1, x2 - x1, y2 - y1)


def _partner(defect: Defect, others: Sequence[Defect]) -> Defect | None:
    """The one of *others* that is the same defect, as exactly as two runs of one network agree."""
    same = (
        one
        for one in others
        if one.label == defect.label
        and abs(one.confidence - defect.confidence) <= SAME_SCORE
        and one.box.iou(defect.box) >= SAME_BOX
    )
    return max(same, key=lambda one: one.box.iou(defect.box), default=None)
