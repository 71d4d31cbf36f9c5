"""The hash of a picture that came without a file."""

from __future__ import annotations

import hashlib

import numpy as np

from station.types import Image


def pixels_sha256(image: Image) -> str:
    """Of its pixels, row by row; hex."""
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
