"""``station trust learn``: what pictures of good boards look like becomes the limits of what is judged at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from station.config import Settings
from station.detectors.reference import Reference
from station.digest import pixels_sha256
from station.errors import ConfigError, DetectorError, PictureError
from station.folders import make_folder
from station.parts import build_reference, depth_bits, picture_limits
from station.picture import read
from station.terminal import shown
from station.trust import Look, look_at, problem_of
from station.types import Image, TrustLimits

LEAST = 5  # pictures: of fewer nobody knows what varies
BRIGHTNESS = 0.2  # of the darkest and the brightest: lamps age, and laminates differ
CONTRAST = 0.7
PART = 0.5  # of the light of each part of the picture: a lens half covered, a lamp that is out on one side
SHARPNESS = 0.5  # blurred by one pixel (standard deviation), board pictures keep a quarter of their sharpness
STRANGE = 0.4  # of the median: a picture with so little is not one of the good ones
SHIFT, SHIFT_PX = 1.5, 3.0


@dataclass(frozen=True, slots=True)
class Taught:
    """One good picture: name, figures, how far it lies off the template (None: there is none), hash of its pixels."""

    name: str
    look: Look
    shift_px: float | None
    sha256: str = ""


def learn(settings: Settings, folder: Path, *, save: Path | None, today: date, console: Console) -> Path:
    """Prints what was seen and writes the limits to a new file, whose path it returns. Raises ConfigError."""
    target = (save or settings.station.data_dir / f"trust-{settings.recipe.name}.toml").absolute()
    if target.exists():
        raise ConfigError(f"{target} is there already, and may be in use: move it away, or name another with --save")
    reference = build_reference(
        settings.model_copy(update={"recipe": settings.recipe.model_copy(update={"trust": None})})
    )
    taught = [_taught(path, settings, reference) for path in _pictures(folder)]
    _check_different(taught)
    limits = limits_of(taught)
    console.print(_table(taught))
    make_folder(target.parent, "--save")
    try:
        target.write_text(_text(limits, count=len(taught), folder=folder, today=today), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{target} cannot be written: {error.strerror}") from None
    return target


def limits_of(taught: Sequence[Taught]) -> TrustLimits:
    """What the pictures of *taught* teach. Raises ConfigError when they are too few, or not alike."""
    if len(taught) < LEAST:
        raise ConfigError(
            f"{len(taught)} pictures teach too little: give at least {LEAST}, of different good boards, "
            "in the folder itself (sub-folders are not searched)"
        )
    sizes = Counter((one.look.width, one.look.height) for one in taught)
    (width, height), _ = sizes.most_common(1)[0]
    odd = [one.name for one in taught if (one.look.width, one.look.height) != (width, height)]
    if odd:
        raise ConfigError(f"not all pictures are {width} x {height} pixels: {', '.join(odd[:5])}: take them away")
    usual = median(one.look.sharpness for one in taught)
    soft = [one.name for one in taught if one.look.sharpness < STRANGE * usual]
    if soft:
        raise ConfigError(f"far less sharp than the others: {', '.join(soft[:5])}: take them away, and learn again")
    shifts = [one.shift_px for one in taught if one.shift_px is not None]
    looks = [one.look for one in taught]
    return TrustLimits(
        width=width,
        height=height,
        min_brightness=round((1 - BRIGHTNESS) * min(one.brightness for one in looks), 1),
        max_brightness=round(min(255.0, (1 + BRIGHTNESS) * max(one.brightness for one in looks)), 1),
        min_contrast=round(CONTRAST * min(one.contrast for one in looks), 1),
        min_sharpness=round(SHARPNESS * min(one.sharpness for one in looks), 2),
        min_parts=tuple(round(PART * min(lights), 1) for lights in zip(*(one.parts for one in looks), strict=True)),
        max_shift_px=round(SHIFT * max(shifts) + SHIFT_PX, 1) if shifts else None,
    )


def _check_different(taught: Sequence[Taught]) -> None:
    """A camera that repeats itself, or a stand-in for one, teaches nothing of what varies."""
    first: dict[str, str] = {}
    for one in taught:
        twin = first.setdefault(one.sha256, one.name)
        if twin != one.name:
            raise ConfigError(f"{twin} and {one.name} are the same picture: take one away, and give another board's")


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"{shown(str(folder))} is not a folder: give one with pictures of good boards")
    return sorted(one for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))


def _taught(path: Path, settings: Settings, reference: Reference | None) -> Taught:
    name = shown(path.name)
    image = _read(path, settings)
    problem = problem_of(image, min_contrast=settings.recipe.min_contrast)
    if problem is not None:
        raise ConfigError(f"{name} is not a picture of a good board: {problem}: take it away")
    sha256 = pixels_sha256(image)
    if reference is None:
        return Taught(name, look_at(image), None, sha256)
    try:
        return Taught(name, look_at(image), reference.register(image).shift_px, sha256)
    except DetectorError as error:
        raise ConfigError(f"{name} is not a picture of a good board: {error}: take it away") from None


def _read(path: Path, settings: Settings) -> Image:
    max_bytes, max_pixels = picture_limits(settings)
    try:
        if path.stat().st_size > max_bytes:
            raise ConfigError(f"{shown(path.name)} is too large: take it away")
        return read(path.read_bytes(), max_pixels=max_pixels, depth_bits=depth_bits(settings))
    except PictureError as error:
        raise ConfigError(f"{shown(path.name)}: {error}: take it away") from None
    except OSError as error:
        raise ConfigError(f"{shown(path.name)} cannot be read: {error.strerror}") from None


def _table(taught: Sequence[Taught]) -> Table:
    table = Table(box=None, header_style="bold")
    table.add_column("picture")
    for title in ("size", "brightness", "contrast", "sharpness", "shift px"):
        table.add_column(title, justify="right")
    for one in taught:
        seen = one.look
        table.add_row(
            one.name,
            f"{seen.width}x{seen.height}",
            f"{seen.brightness:.0f}",
            f"{seen.contrast:.0f}",
            f"{seen.sharpness:.1f}",
            "-" if one.shift_px is None else f"{one.shift_px:.1f}",
        )
    return table


def _text(limits: TrustLimits, *, count: int, folder: Path, today: date) -> str:
    lines = [
        f"# Learned from {count} pictures in {shown(str(folder))} on {today.isoformat()}: station trust learn.",
        "# A picture beyond these limits is not judged: it ends UNKNOWN, with the figure in its reason.",
        f"width = {limits.width}",
        f"height = {limits.height}",
        f"min_brightness = {limits.min_brightness}  # mean grey level, 0 to 255",
        f"max_brightness = {limits.max_brightness}",
        f"min_contrast = {limits.min_contrast}  # grey levels between its brightest and its darkest place",
        f"min_sharpness = {limits.min_sharpness}  # thousandths of its variance that lie in its finest detail",
    ]
    if limits.min_parts is not None:
        lines.append("# Mean grey level of each of 4 x 4 parts of the picture, row by row:")
        lines.append(f"min_parts = [{', '.join(map(str, limits.min_parts))}]")
    if limits.max_shift_px is not None:
        lines.append(f"max_shift_px = {limits.max_shift_px}  # how far a board may lie off the recipe's template")
    return "\n".join(lines) + "\n"
