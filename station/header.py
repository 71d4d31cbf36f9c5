"""What the head of an image file says, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Header:
    """
    What a whole file says of its picture.

    *bits*: of one sample of one channel, 8 (for fewer, too) to 16. *alpha*: some of it may be transparent;
    *premultiplied*: its colours are dimmed by that already. *orientation*: EXIF's, 1 to 8, for JPEG and what has
    alpha; all others the decoder turns. *odd*: why what a decoder makes of it is not what a person sees, None for usual
    pictures.
    """

    width_px: int
    height_px: int
    bits: int = 8
    alpha: bool = False
    premultiplied: bool = False
    orientation: int = 1
    odd: str | None = None


class FlawError(Exception):
    """Raised when a walk through a file meets what is missing or wrong; its text is the flaw."""
