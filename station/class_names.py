"""
What the classes of a data set are called, by YOLO's ``data.yaml`` beside it (docs.ultralytics.com/datasets/detect).

No YAML reader comes with the station, and this is none: it understands ``names`` as people and programs write it, a
list or a number and a name in each line, or a list in brackets, and refuses anything else: what is guessed wrong would
be a threshold for another defect. Pure.
"""

from __future__ import annotations

import json
import re

_KEY = re.compile(r"""(?:names|"names"|'names')\s*:(?P<rest>\s.*)?""")
_ITEM = re.compile(r"(?P<indent> *)(?:(?P<dash>-)|(?P<number>\d+)\s*:)\s+(?P<name>\S.*)")
_BLANK = re.compile(r"\s*(?:#.*)?")
_END = re.compile(r"\s*|\s+#.*")
_DOUBLE = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_SINGLE = re.compile(r"'(?:[^'\n]|'')*'")
_PLAIN = re.compile(r"[^\s\-?:,\[\]{}#&*!|>'\"%@`](?:[^#:]|(?<!\s)#|:(?!\s|$))*")  # in a line of its own
_PLAIN_IN_LIST = re.compile(r"[^\s\-?:,\[\]{}#&*!|>'\"%@`][^,\[\]{}#:\n]*")


def class_names(text: str) -> dict[int, str]:
    """The names in *text*, by class from 0 on. Raises ValueError saying what is not understood."""
    lines = text.splitlines()
    found = [number for number, line in enumerate(lines) if _KEY.fullmatch(line)]
    if not found:
        raise ValueError("it has no names:")
    if len(found) > 1:
        raise ValueError(f"line {found[1] + 1}: names: stands here a second time")
    first = found[0]
    match = _KEY.fullmatch(lines[first])
    rest = (match["rest"] or "").strip() if match else ""
    if rest.startswith("["):
        names = _in_brackets("\n".join([rest, *lines[first + 1 :]]), f"line {first + 1}")
    elif _BLANK.fullmatch(rest):
        names = _in_lines(lines, first + 1)
    else:
        raise ValueError(f"line {first + 1}: {lines[first]}")
    if not names:
        raise ValueError(f"line {first + 1}: names: is empty")
    return names


def _in_lines(lines: list[str], first: int) -> dict[int, str]:
    """``- NAME`` or ``NUMBER: NAME`` in each line from *first* on, all of one kind, and equally far in."""
    names: dict[int, str] = {}
    kind: tuple[bool, str] | None = None
    for number, line in enumerate(lines[first:], first + 1):
        if _BLANK.fullmatch(line):
            continue
        item = _ITEM.fullmatch(line)
        if line.startswith("---") or not line.startswith((" ", "\t", "-")):
            break  # the next key, or the end
        if item is None or (kind is not None and kind != (item["dash"] is None, item["indent"])):
            raise ValueError(f"line {number}: {line}")
        kind = (item["dash"] is None, item["indent"])
        name, rest = _name(item["name"], _PLAIN, f"line {number}")
        index = len(names) if item["number"] is None else int(item["number"])
        if index in names or not _END.fullmatch(rest):
            raise ValueError(f"line {number}: {line}")
        names[index] = name
    return names


def _in_brackets(text: str, where: str) -> dict[int, str]:
    """``[NAME, NAME]``, over one line or several."""
    names: list[str] = []
    rest = text[1:].lstrip()
    while not rest.startswith("]"):
        name, rest = _name(rest, _PLAIN_IN_LIST, where)
        names.append(name)
        rest = rest.lstrip()
        if rest.startswith(","):
            rest = rest[1:].lstrip()
        elif not rest.startswith("]"):
            raise ValueError(f"{where}: a list whose end is not found")
    if not _END.fullmatch(rest[1:].partition("\n")[0]):
        raise ValueError(f"{where}: something stands behind the list")
    return dict(enumerate(names))


def _name(text: str, plain: re.Pattern[str], where: str) -> tuple[str, str]:
    """The name that *text* begins with, and what comes after it."""
    if found := _DOUBLE.match(text):
        return str(json.loads(found[0])), text[found.end() :]
    if found := _SINGLE.match(text):
        return found[0][1:-1].replace("''", "'"), text[found.end() :]
    if found := plain.match(text):
        name = found[0].rstrip()
        return name, text[len(name) :]
    raise ValueError(f"{where}: {text[:60]}")
