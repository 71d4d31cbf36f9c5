"""Pictures that are sent: read as they come, in memory alone, and no byte more than was allowed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi import Request
from python_multipart import multipart
from python_multipart.exceptions import MultipartParseError

from station.web.problems import ProblemError

FIELD = "file"
MAX_FILES = 16
OVERHEAD_BYTES = 65536  # of headers between the files
WITHIN_S = 60.0
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Upload:
    """One file. *name* is what the sender calls it, for who reads the answer: it is never a path here."""

    name: str
    data: bytes


async def read_uploads(request: Request, *, max_bytes: int) -> list[Upload]:
    """
    The parts named ``file`` of a multipart body. Raises ProblemError: 408 too slow, 413 too large, 415 no multipart,
    422 not understood, or without a file.
    """
    kind, options = multipart.parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > 200:
        raise ProblemError(
            415,
            "Not a form",
            f'send the picture as multipart/form-data in a part named "{FIELD}": curl -F file=@board.jpg',
        )
    most = max_bytes + OVERHEAD_BYTES
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise _too_large(max_bytes)
    form = _Form(boundary, max_bytes=max_bytes)
    try:
        await asyncio.wait_for(_receive(request, form, most, max_bytes), WITHIN_S)
    except asyncio.TimeoutError:
        raise ProblemError(408, "Too slow", f"the picture did not arrive within {WITHIN_S:g} s") from None
    if not form.uploads:
        raise ProblemError(422, "No picture", f'there is no part named "{FIELD}" with a file: curl -F file=@board.jpg')
    return form.uploads


async def _receive(request: Request, form: _Form, most: int, max_bytes: int) -> None:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > most:
            raise _too_large(max_bytes)
        form.feed(chunk)
    form.end()


class _Form:
    """Follows the parser from part to part."""

    def __init__(self, boundary: bytes, *, max_bytes: int) -> None:
        self.uploads: list[Upload] = []
        self._max_bytes = max_bytes
        self._kept = 0
        self._name: str | None = None  # of the file that comes at the moment; None: it is not wanted
        self._data = bytearray()
        self._field = bytearray()
        self._value = bytearray()
        self._ended = False
        self._parser = multipart.MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": lambda data, start, end: self._grow(self._field, data[start:end]),
                "on_header_value": lambda data, start, end: self._grow(self._value, data[start:end]),
                "on_header_end": self._on_header_end,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise ProblemError(422, "Not understood", f"the form is damaged: {error}") from None

    def end(self) -> None:
        if not self._ended:
            raise ProblemError(422, "Not understood", "the form is cut off: its last boundary is missing")

    def _on_part_begin(self) -> None:
        self._name = None
        self._data = bytearray()

    def _grow(self, buffer: bytearray, data: bytes) -> None:
        buffer += data
        if len(buffer) > 4096:
            raise ProblemError(422, "Not understood", "a header in the form is too long")

    def _on_header_end(self) -> None:
        field, value = bytes(self._field).lower(), bytes(self._value)
        self._field, self._value = bytearray(), bytearray()
        if field != b"content-disposition":
            return
        _, options = multipart.parse_options_header(value)
        if options.get(b"name") != FIELD.encode() and b"filename" in options:
            # Not to be left out in silence: whoever sent two would take the answer for both.
            part = options.get(b"name", b"").decode("utf-8", "replace")[:64]
            raise ProblemError(
                422, "Unknown part", f'a file in the part "{part}": each picture goes into one named "{FIELD}"'
            )
        if options.get(b"name") == FIELD.encode():
            self._name = options.get(b"filename", b"").decode("utf-8", "replace")[:255]
            if len(self.uploads) >= MAX_FILES:
                raise ProblemError(413, "Too many pictures", f"at most {MAX_FILES} pictures in one request")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name is None:
            return
        self._kept += end - start
        if self._kept > self._max_bytes:
            raise _too_large(self._max_bytes)
        self._data += data[start:end]

    def _on_part_end(self) -> None:
        if self._name is not None:
            self.uploads.append(Upload(self._name, bytes(self._data)))

    def _on_end(self) -> None:
        self._ended = True


def _too_large(max_bytes: int) -> ProblemError:
    return ProblemError(413, "Too large", f"at most {max_bytes / MB:g} MB in one request ([http] max_file_mb)")
