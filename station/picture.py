"""Judges what the bytes of an image file are, and decodes them as a person would see them. Pure but for the decoder."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # it has no stubs
from numpy.typing import NDArray

from station.errors import NoPictureError, PictureError
from station.formats import NoImageError, kind_of, read_header
from station.header import FlawError, Header
from station.tiff_parts import holds_all
from station.types import Image

DEEP_BITS = 16  # of a sample, unless somebody knows better: cameras put 10, 12 or 14 bits into them
MAX_PIXELS = 150_000_000  # where nobody has set a limit: as the inbox has it
REFUSED = "the decoder refused it"
STRIP_ROWS = 128  # of a transparent picture are worked on at a time: what is needed besides stays small

# Damaged files are this module's business: what the decoder thinks of them is noise on a service's stderr.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


@dataclass(frozen=True, slots=True)
class Look:
    """
    What the bytes of a file say of themselves.

    *kind* is None for what is no known image. *flaw* says what is missing or wrong, None for a whole file: its header
    gives a size and its last part is there. *hopeless*: no byte that may follow could make an image of it. *odd*: why a
    whole file is not decoded all the same. *pixel_bytes*: what the decoder needs for one pixel.
    """

    kind: str | None
    width_px: int = 0
    height_px: int = 0
    flaw: str | None = None
    hopeless: bool = False
    odd: str | None = None
    pixel_bytes: int = 3


def keep_to_one_core(*, yes: bool) -> None:
    """
    Whether OpenCV leaves all cores but its caller's to others, in the whole process.

    It gains nothing by them: a board of 640 pixels is registered in 0.98 ms of one core, or in 1.00 ms and 1.86 of two.
    But a core that it has woken is awake when a network is run next: in a virtual machine, after a pause, YOLO11n in
    int8 then takes 7 ms instead of 13.
    """
    cv2.setNumThreads(1 if yes else -1)


def read(data: bytes, *, max_pixels: int = MAX_PIXELS, depth_bits: int = DEEP_BITS) -> Image:
    """
    The picture in a whole file, by ``look``, ``refusal`` and ``decode``, which say more of *max_pixels* and
    *depth_bits*.

    Raises PictureError with what is wrong with the file, NoPictureError when it is none.
    """
    found = look(data)
    if found.kind is None:
        raise NoPictureError(str(found.flaw))
    problem = found.flaw or refusal(found, max_pixels=max_pixels)
    if problem is not None:
        raise PictureError(problem)
    image = decode(data, depth_bits=depth_bits)
    if image is None:
        raise PictureError(f"{found.kind}: {REFUSED}")
    return image


def look(data: bytes) -> Look:
    """Looks at a whole file or at what there is of it. Nothing is decoded, and no length in the file is believed."""
    try:
        kind = kind_of(data)
    except NoImageError as error:
        return Look(None, flaw=str(error), hopeless=error.hopeless)
    try:
        header = read_header(data, kind)
    except FlawError as flaw:
        return Look(kind, flaw=f"{kind}: {flaw}")
    if header.width_px <= 0 or header.height_px <= 0:
        return Look(kind, flaw=f"damaged {kind}: it says it is {header.width_px} x {header.height_px} pixels")
    odd = header.odd and f"{kind} with {header.odd}"
    return Look(kind, header.width_px, header.height_px, odd=odd, pixel_bytes=_pixel_bytes(header))


def refusal(found: Look, *, max_pixels: int) -> str | None:
    """
    Why a whole picture is not to be decoded; None: it may be.

    *max_pixels* is for pixels of three bytes. Those of 16 bits or with alpha take more room, and so fewer are allowed.
    """
    if found.odd is not None:
        return found.odd
    pixels = found.width_px * found.height_px
    allowed = max_pixels * 3 // max(3, found.pixel_bytes)
    if pixels <= allowed:
        return None
    each = f" of {found.pixel_bytes} bytes each" if found.pixel_bytes > 3 else ""
    return (
        f"too many pixels: {found.width_px} x {found.height_px} = {pixels / 1e6:.1f} million{each}, "
        f"and {allowed / 1e6:.1f} million are allowed"
    )


def decode(data: bytes, *, depth_bits: int = DEEP_BITS) -> Image | None:
    """
    The picture as height x width x 3, BGR, uint8, as a viewer shows it; None if the decoder refuses it.

    Turned as its EXIF orientation says, grey spread, and what is transparent shows white. *depth_bits*: how many of
    a sample's 16 bits, the low ones, its camera uses; the upper eight of these are taken, and what is above them is
    white. It is never guessed from a picture: a little more light or one hot pixel would change all the others. Alpha
    that is zero everywhere was left empty by its writer, and is ignored. Only for what ``look`` found whole and
    ``refusal`` allows: the decoder is native code, and allocates what the header asks for. Of damage within the coded
    data libpng may still say a line on stderr, which no setting of cv2 reaches.
    """
    try:
        kind = kind_of(data)
        header = read_header(data, kind)
        if header.odd is not None:
            return None
        if kind == "JPEG":
            return _jpeg(data, header)
        if kind == "TIFF" and not holds_all(data):
            return None
        samples = cv2.imdecode(np.frombuffer(data, np.uint8), _flags(header))
    except (NoImageError, FlawError, cv2.error):
        return None
    if samples is None or samples.dtype not in (np.uint8, np.uint16):
        return None
    if header.bits < DEEP_BITS:  # a TIFF that packs 10, 12 or 14 bits says so, and the decoder spreads them over 16
        depth_bits = DEEP_BITS
    if samples.ndim == 3 and samples.shape[2] == 4:
        image = _opaque(samples, header, depth_bits)
    else:
        image = _eight_bits(samples, depth_bits)
    if image.ndim == 2:
        image = _bytes(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    return image if image.ndim == 3 and image.shape[2] == 3 else None


def _jpeg(data: bytes, header: Header) -> Image | None:
    """
    Strictly: cv2 fills what a damaged file lacks with grey and says nothing but a line on stderr, and a grey half of a
    board has no defects. The pixels are the same otherwise; both are libjpeg-turbo.
    """
    try:
        image = simplejpeg.decode_jpeg(data, colorspace="BGR", strict=True)
    except (ValueError, MemoryError):
        return None
    return _turned(image, header.orientation)


def _pixel_bytes(header: Header) -> int:
    return (4 if header.alpha else 3) * (2 if header.bits > 8 else 1)


def _flags(header: Header) -> int:
    if header.alpha:
        return cv2.IMREAD_UNCHANGED  # the only one that gives alpha
    return cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH if header.bits > 8 else cv2.IMREAD_COLOR


def _eight_bits(samples: NDArray[np.generic], depth_bits: int) -> Image:
    """The upper eight of *depth_bits*. Shifted, not scaled, so that 8 bits that were made 16 come back exactly."""
    if samples.dtype == np.uint8:
        return _bytes(samples)
    image = np.empty(samples.shape, np.uint8)
    np.right_shift(samples, depth_bits - 8, out=samples)  # ours alone: no second copy of 16 bits
    np.minimum(samples, 255, out=image, casting="unsafe")
    return image


def _opaque(samples: NDArray[np.generic], header: Header, depth_bits: int) -> Image:
    """*samples*: height x width x 4, BGRA. Over white, and turned: the decoder turns no picture that has alpha."""
    image, alpha = (_eight_bits(part, depth_bits) for part in (samples[..., :3], samples[..., 3]))
    image = np.ascontiguousarray(image)
    low, high = int(alpha.min()), int(alpha.max())
    if low < 255 and high > 0:
        for top in range(0, len(image), STRIP_ROWS):
            colours = image[top : top + STRIP_ROWS]
            shown = alpha[top : top + STRIP_ROWS, :, None].astype(np.uint16)
            dimmed = colours * np.uint16(255) if header.premultiplied else colours * shown
            colours[:] = np.minimum((dimmed + np.uint16(255) * (255 - shown) + 127) // 255, 255)
    return _turned(image, header.orientation)


def _turned(image: Image, orientation: int) -> Image:
    """*image* as EXIF's 1 to 8 say that it is to be shown."""
    if orientation >= 5:
        image = _bytes(cv2.transpose(image))
    mirror = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)  # cv2's codes: 1 left-right, 0 top-bottom, -1 both
    return image if mirror is None else _bytes(cv2.flip(image, mirror))


def _bytes(samples: NDArray[np.generic]) -> Image:
    """The same array: cv2's stubs do not know that it is of bytes."""
    return samples.astype(np.uint8, copy=False)
