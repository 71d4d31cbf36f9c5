"""``station model``: models come into the store, are tested, chosen, and taken back."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.prompt import Confirm
from rich.table import Column, Table

from station import __version__
from station.commands.boards import PICTURES, Boards, boards_of, thresholds_of
from station.commands.plain import plain
from station.config import Settings
from station.detectors import selftest
from station.detectors.card import Card, Timing, model_sha256
from station.detectors.choices import Choices
from station.detectors.find import find_model
from station.detectors.pt import WARNING
from station.detectors.selftest import Locked, lock
from station.detectors.store import PAIRED, SHIPPED, STORE, ModelFile
from station.detectors.yolo import NetworkDetector
from station.errors import ModelError
from station.events import utc_text
from station.labelled import load
from station.model_choice import onnx_of, run_self_test, seeing_all
from station.parts import build_detector, depth_bits, floor_of, model_store
from station.types import Detector, Image

RUNS = 10  # of which the median is the model's timing


def import_model(
    settings: Settings,
    file: Path,
    *,
    name: str | None,
    images: Path | None,
    miss_cost: float,
    trusted: bool,
    console: Console,
) -> None:
    """
    Takes *file* (.onnx or .pt) into the store as *name*; it is not used before ``use`` says so. Raises ModelError.

    *images*: a folder of labelled boards, from which its self-test and its thresholds are made (LabelsError).
    *trusted*: do not ask whether code in a .pt may run.
    """
    if not file.is_file():  # before its boards are looked at, which may take a while
        raise ModelError(f"{file}: there is no such file")
    store = model_store(settings)
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).lstrip("._-")
    store.check_free(name)
    template = settings.recipe.template
    boards = None if images is None else boards_of(images, depth_bits=depth_bits(settings), template=template)
    store.make()  # what is measured on the way is kept beside it
    with tempfile.TemporaryDirectory(prefix="station-import-") as folder:
        onnx, facts = _as_onnx(settings, file, Path(folder), boards=boards, trusted=trusted, console=console)
        model = ModelFile(onnx, name, model_sha256(onnx))
        detector = build_detector(seeing_all(settings), model)
        if boards is not None and detector.paired:
            given, boards = len(boards.all), boards.comparable()
            console.print(f"Judged beside their templates: {len(boards.all)} of {given} boards have one that they fit.")
        chosen = {} if boards is None else thresholds_of(detector, boards, detector.labels, miss_cost=miss_cost)
        thresholds = {label: one.threshold for label, one in chosen.items()}
        locked = _lock(detector, boards, thresholds, console)
        card = Card(
            name=name,
            sha256=model.sha256 or "",
            source=file.name,
            made_at=utc_text(datetime.now(timezone.utc)),
            made_by=f"station {__version__}",
            labels=detector.labels,
            height_px=detector.input_size[0],
            width_px=detector.input_size[1],
            boards=locked.boards,
            timing=_timing_of(detector, _picture(boards, detector.input_size)),
            thresholds=thresholds,
            miss_cost=miss_cost if chosen else None,
            facts=facts,
        )
        store.add(card, model=onnx, boards=locked.pictures)
    console.print(plain(f"{name} is in the store: {detector.description}"))
    if card.timing is not None:
        console.print(plain(f"{card.timing.median_ms:.1f} ms a board ({card.timing.computed_by})"))
    if boards is None:
        console.print("It has no self-test: import it with --images DIR (labelled boards) to give it one.")
    else:
        console.print(f"Self-test: {len(locked.boards)} boards locked ({locked.passed_over} were not judged clearly).")
    if chosen:
        table = Table("label", "threshold", "labelled", "missed", "false calls")
        for label, one in chosen.items():
            counts = map(str, (one.labelled, one.misses, one.false_calls))
            table.add_row(plain(label), f"{one.threshold:g}", *counts)
        console.print(table)
        console.print(plain(f"At {miss_cost:g} false calls for a miss, this line belongs into [recipe]:\n"))
        print(toml_of(thresholds))
    console.print()
    console.print(plain(f"Use it with: station model use {name}"))


def list_models(settings: Settings, console: Console) -> None:
    """Prints what is in the store, and which one is used; a damaged one says what is wrong with it."""
    store, wanted = model_store(settings), settings.detector.model
    try:
        current = Choices(store).current() if wanted == STORE else wanted
    except ModelError as error:
        console.print(plain(f"station: {error}", style="red"))
        current = ""
    table = Table("", Column("model", no_wrap=True), "labels", "input", "ms", "self-test", "imported", "sha256")
    damaged = list[str]()
    for name in SHIPPED:
        tested = "needs [recipe] template" if name == PAIRED else "samples"
        table.add_row(
            _mark(current, name), name, "", "", "", plain(tested), "ships", (find_model(name).sha256 or "")[:8]
        )
    for name in store.names():
        damage = store.damage(name)
        if damage is not None:
            table.add_row(_mark(current, name), name, "", "", "", "DAMAGED", "", "")
            damaged.append(damage)
            continue
        card = store.card(name)
        table.add_row(
            _mark(current, name),
            name,
            str(len(card.labels)),
            f"{card.width_px}x{card.height_px}",
            "" if card.timing is None else f"{card.timing.median_ms:.1f}",
            f"{len(card.boards)} boards" if card.boards else "none",
            plain(card.made_at[:10]),
            plain(card.sha256[:8]),
        )
    console.print(table)
    if current:
        console.print("* is the one that the station uses")
    for text in damaged:
        console.print(plain(text, style="red"))
    if wanted != STORE:
        console.print(plain(f'[detector] model = "{wanted}" in the configuration: that is used, and no choice here'))


def verify(settings: Settings, name: str | None, console: Console) -> tuple[str, ...]:
    """
    Loads a model (None: the configured one), has it judge its whole self-test, and times it. Raises ModelError.

    Returns the labels that it knows.
    """
    store = model_store(settings)
    names = [*SHIPPED, *store.names()]
    if name is not None and name not in names and Path(name).suffix not in {".onnx", ".pt"}:
        raise ModelError(f"there is no model {name}, but: {', '.join(names)}")
    file = find_model(name or settings.detector.model, store=store)
    began_s = time.perf_counter()
    detector = build_detector(settings, file)
    loaded_s = time.perf_counter() - began_s
    told = run_self_test(detector, file, store, floor=floor_of(settings))
    timing = _timing_of(detector, _picture(None, detector.input_size))
    console.print(plain(f"{detector.description}: loaded in {loaded_s:.2f} s"))
    known = f"{told} boards judged as when it came" if told else "it has no self-test (model import --images DIR)"
    console.print(plain(f"self-test: {known}; {timing.median_ms:.1f} ms a board ({timing.computed_by})"))
    return detector.labels


def use(settings: Settings, name: str, console: Console) -> None:
    """Chooses *name* for the next start, if it passes its self-test here and now. Raises ModelError."""
    labels = verify(settings, name, console)
    Choices(model_store(settings)).use(name, labels)
    _say_used(settings, name, console)


def rollback(settings: Settings, console: Console) -> None:
    """Chooses what was used before the present choice. Raises ModelError, and changes nothing, if that is not good."""
    choices = Choices(model_store(settings))
    name = choices.previous()
    try:
        labels = verify(settings, name, console)
    except ModelError as error:
        raise ModelError(f"{error}; nothing was changed: choose one with station model use NAME") from None
    choices.rollback(name, labels)
    _say_used(settings, name, console)


def toml_of(thresholds: dict[str, float]) -> str:
    """The line of a ``[recipe]`` that says them; a label may be any text, and is quoted."""
    said = (f'"{"".join(map(_escaped, label))}" = {value:g}' for label, value in thresholds.items())
    return f"thresholds = {{ {', '.join(said)} }}"


def _as_onnx(
    settings: Settings, file: Path, folder: Path, *, boards: Boards | None, trusted: bool, console: Console
) -> tuple[Path, dict[str, str | float]]:
    """*file*, or the ONNX made of it in *folder*; and what is to be said of that on the card."""
    if file.suffix != ".pt":
        return file, {}
    console.print(plain(f"{file.name}: {WARNING}.", style="yellow"))
    if not trusted:
        if not sys.stdin.isatty():
            raise ModelError(f"{file} may run code: say --yes if you trust whoever made it")
        if not Confirm.ask("Do you trust whoever made this one?", default=False, console=console):
            raise ModelError(f"{file} was not imported")
    pictures = selftest.sample_pictures() if boards is None else [one.picture for one in boards.defective][:PICTURES]
    said = ""

    def on_progress(doing: str) -> None:
        nonlocal said
        if doing != said:
            console.print(plain(f"  {doing}", style="dim"))
        said = doing

    onnx, agreed = onnx_of(file, folder, settings, pictures=pictures, on_progress=on_progress)
    console.print(
        f"It agrees with the original on {agreed.compared} defects: scores to {agreed.largest_score_difference:g}, "
        f"boxes to an overlap of {agreed.smallest_iou:g}."
    )
    return onnx, {
        "converted_from_sha256": model_sha256(file),
        "compared_defects": float(agreed.compared),
        "largest_score_difference": agreed.largest_score_difference,
        "smallest_iou": agreed.smallest_iou,
    }


def _lock(detector: Detector, boards: Boards | None, thresholds: dict[str, float], console: Console) -> Locked:
    if boards is None:
        return Locked((), {}, 0)
    candidates = track(boards.candidates(), description="choosing boards for the self-test", console=console)
    return lock(detector, candidates, threshold=lambda label: thresholds.get(label, 0.5))


def _picture(boards: Boards | None, size_px: tuple[int, int]) -> Image:
    """What a model is timed on: a board of its own, or a sample at its own size, so that nothing is scaled."""
    if boards is not None:
        return load(boards.all[0].picture, depth_bits=boards.all[0].depth_bits)
    return selftest.sample_of_size(*size_px)


def _timing_of(detector: NetworkDetector, image: Image) -> Timing:
    """The time from picture to defects, in the median of some runs after one that does not count."""
    took_s = []
    for _ in range(RUNS + 1):
        began_s = time.perf_counter()
        if detector.paired:
            detector.detect_beside(image, np.ascontiguousarray(image[..., 0]))
        else:  # a sample is no board of the recipe's product: it would not fit its template
            detector.detect_alone(image)
        took_s.append(time.perf_counter() - began_s)
    return Timing(round(median(took_s[1:]) * 1000, 2), RUNS, detector.computed_by)


def _escaped(sign: str) -> str:
    if sign.isprintable():
        return f"\\{sign}" if sign in {'"', "\\"} else sign
    return f"\\U{ord(sign):08X}"


def _mark(current: str, name: str) -> str:
    return "*" if current == name else ""


def _say_used(settings: Settings, name: str, console: Console) -> None:
    wanted = settings.detector.model
    if wanted == STORE:
        console.print(plain(f"{name} is used from the next start of the station on."))
    else:
        wins = f'the configuration says [detector] model = "{wanted}". Set it to "{STORE}".'
        console.print(plain(f"{name} is chosen, but not used: {wins}", style="yellow"))
