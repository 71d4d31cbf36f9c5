"""What is wrong in a configuration, in an operator's words: pydantic speaks to programmers. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

Kinds = Mapping[str, Mapping[str, type[Any]]]  # section -> kind ("" where there is but one) -> its class
Error = Mapping[str, Any]  # as pydantic lists them: loc, type, msg, input, ctx; and the section's kind

NAMED = "recipes"  # the section whose keys are sections, of any name: [recipes.NAME]
GIVEN_CHARS = 60  # of a wrong value are shown
LOGIN = re.compile(r"://[^/\s]*@")  # in an address: what we repeat stands in journals and in tickets

# What a pattern means, for those who cannot read it.
FORMS = {
    "station.name": "must be letters, digits, . _ - and begin with a letter or digit, e.g. aoi-1",
    "recipe.name": "must be letters, digits, . _ - and begin with a letter or digit, e.g. board-b",
    "station.topic": "may not hold the wildcards + and #, nor begin with / or $, nor hold line breaks or "
    "other control characters, e.g. factory/line1/aoi-1",
    "mqtt.client_id": "may not hold line breaks or other control characters",
    "mqtt.username": "may not hold line breaks or other control characters",
    "source.pixel_format": 'must be four characters, as in "MJPG"',
    "recipe.at": 'must be a time of day, HH:MM, as in "06:30"',
    "gate.on_hex": 'must be pairs of hexadecimal digits, as in "A0 01 01 A2"',
    "gate.off_hex": 'must be pairs of hexadecimal digits, as in "A0 01 00 A1"',
}

# What is told by pydantic's type of an error (https://docs.pydantic.dev/latest/errors/validation_errors/).
TABLES = frozenset({"dict_type", "model_type", "model_attributes_type"})
NUMBERS = ("int_", "float_", "finite_number", "greater_than", "less_than")
MESSAGES = {
    "string_type": "must be text in quotes",
    "string_too_short": "may not be empty",
    "string_too_long": "may have {max_length} characters at most",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "path_type": "must be a path in quotes",
    "list_type": "must be a list in square brackets",
    "tuple_type": "must be a list in square brackets",
    **dict.fromkeys(TABLES, "must be a table, as {{ name = value }}"),
}


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a key stands: the class that holds it (None: no class, a table of any names), its type, and its limits."""

    owner: type[Any] | None
    annotation: Any
    limits: tuple[Any, ...] = ()


def explain(error: Error, *, said: Mapping[str, str], file: str, kinds: Kinds) -> str:
    """
    One of pydantic's errors as ``FILE: [section] key: what is accepted (given: what was)``.

    *said* is where each key was said (``mqtt.port`` -> ``environment``); what nobody said is missing in *file*.
    """
    path = [str(part) for part in error["loc"]]
    place = _place(error, kinds)
    if error["type"] != "extra_forbidden":
        message = _accepted(error, path, place)
    elif len(path) == 1:
        message, path = _unknown_at_top(path[0], error["input"], kinds)
    else:
        message = _unknown(path, error, place, kinds, said)
    where = _where(path, message, said) or file
    if not path:
        return f"{where}: {message}"
    return f"{where}: [{path[0]}]{_inner(error['loc'][1:]) if len(path) > 1 else ''}: {message}"


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean ...?`` of what is most like *name*, else all that is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    longer = [one for one in known if one.startswith(name)]
    if not close and len(longer) == 1:
        close = longer
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"


def accepted(error: Error, annotation: Any) -> str:
    """The same of an error below *annotation* alone: key and what is accepted, without section or file."""
    path = [str(part) for part in error["loc"]]
    place = _walk(_Place(None, annotation), error["loc"])
    if error["type"] == "extra_forbidden":
        known = [] if place.owner is None else place.owner.model_fields
        return f"{'.'.join(path)}: unknown key{nearest(path[-1], known)}"
    said = _accepted(error, path, place)
    return f"{'.'.join(path)} {said}".strip()


# Unknown names.


def _unknown_at_top(name: str, value: object, kinds: Kinds) -> tuple[str, list[str]]:
    if isinstance(value, Mapping):
        return f"unknown section{nearest(name, kinds)}", [name]
    homes = _homes(name, kinds)
    where = f"put it below {_either(homes)}" if homes else f"put it below its section{nearest(name, _all_keys(kinds))}"
    return f"{name} stands outside of any section: {where}", []


def _unknown(path: list[str], error: Error, place: _Place, kinds: Kinds, said: Mapping[str, str]) -> str:
    section, name, kind = path[0], path[-1], str(error.get("kind", ""))
    here = [] if place.owner is None else list(place.owner.model_fields)
    if len(path) == 2:
        others = [one for one, of in kinds.get(section, {}).items() if one != kind and name in of.model_fields]
        if others:
            of_kind = " or ".join(f'"{one}"' for one in others)
            chosen = said.get(f"{section}.kind")
            where = f" ({chosen})" if chosen not in {None, _where(path, "", said)} else ""
            this = f', and this is kind = "{kind}"{where}' if kind else ""
            return f"belongs to [{section}] kind = {of_kind}{this}"
        if section == NAMED[:-1] and isinstance(error["input"], Mapping):
            return f"unknown key; a recipe of its own is written [{NAMED}.{name}]"
        homes = _homes(name, kinds)
        if homes and not difflib.get_close_matches(name, here, n=1, cutoff=0.8):
            return f"unknown key; it belongs to {_either(homes)}"
    return f"unknown key{nearest(name, here)}"


def _homes(name: str, kinds: Kinds) -> list[str]:
    return [f"[{section}]" for section, of in kinds.items() if any(name in one.model_fields for one in of.values())]


def _all_keys(kinds: Kinds) -> list[str]:
    return sorted({key for of in kinds.values() for one in of.values() for key in one.model_fields})


def _either(texts: list[str]) -> str:
    return ", ".join(texts[:-1]) + f" or {texts[-1]}" if len(texts) > 1 else texts[0]


# Wrong values.


def _accepted(error: Error, path: list[str], place: _Place) -> str:
    kind, limits = str(error["type"]), error.get("ctx") or {}
    if kind == "missing":
        return "is missing, and has no default"
    if kind.startswith(NUMBERS):
        message = f"must be {_number(place)}"
    elif kind == "string_pattern_mismatch":
        section = "recipe" if path[0].startswith(NAMED) else path[0]
        key = next(one for one in reversed(error["loc"]) if isinstance(one, str))  # that of a list, for its item
        message = FORMS.get(f"{section}.{key}", f"must have the form {limits.get('pattern')}")
    elif kind == "literal_error":
        message = "must be " + str(limits.get("expected")).replace("'", '"')
    elif kind in TABLES and (len(path) == 1 or path[0] == NAMED):
        section = ".".join(path) + (".NAME" if path == [NAMED] else "")
        message = f"is a section: write [{section}] on a line of its own, and its keys below"
    elif kind in MESSAGES:
        message = MESSAGES[kind].format(**limits)
    else:
        message = str(error["msg"]).removeprefix("Value error, ")
    return message + _given(error["input"])


def _number(place: _Place) -> str:
    """``a whole number from 1 to 65535``."""
    bounds: dict[str, float] = {}
    for limit in place.limits:
        bounds |= {
            one: getattr(limit, one) for one in ("ge", "gt", "le", "lt") if getattr(limit, one, None) is not None
        }
    types = set(get_args(place.annotation)) or {place.annotation}
    noun = "a whole number" if int in types else "a number"
    match bounds:
        case {"ge": least, "le": most}:
            return f"{noun} from {least:.10g} to {most:.10g}"
        case {"gt": least, "le": most}:
            return f"{noun} above {least:.10g}, {most:.10g} at most"
        case {"ge": least}:
            return f"{noun}, {least:.10g} or more"
        case {"gt": least}:
            return f"{noun} above {least:.10g}"
        case {"le": most}:
            return f"{noun}, {most:.10g} at most"
    return noun


def _given(value: object) -> str:
    if isinstance(value, Mapping) or hasattr(value, "model_fields"):
        return ""
    text = LOGIN.sub("://...@", json.dumps(value, ensure_ascii=False, default=str))
    return f" (given: {text if len(text) <= GIVEN_CHARS else text[:GIVEN_CHARS] + '...'})"


# Where it stands.


def _inner(parts: Sequence[object]) -> str:
    """`` ignore, item 1: height``: a list's item is an int, and people count from 1."""
    text = "".join(f", item {part + 1}: " if isinstance(part, int) else f".{part}" for part in parts)
    return " " + text.removeprefix(".").replace(": .", ": ").removesuffix(": ")


def _place(error: Error, kinds: Kinds) -> _Place:
    loc = error["loc"]
    of = kinds.get(str(loc[0])) if len(loc) > 1 else None
    if not of:
        return _Place(None, None)
    start = of.get(str(error.get("kind")), next(iter(of.values())))
    return _walk(_Place(None, start), loc[1:])


def _walk(place: _Place, parts: Iterable[object]) -> _Place:
    for part in parts:
        place = _step(place.annotation, str(part))
    return place


def _step(annotation: Any, part: str) -> _Place:
    """One step down from *annotation*: into a class's key, a table's value, a list's item."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _step(inner[0], part)
    if origin in {Union, UnionType}:
        steps = [_step(one, part) for one in inner]
        return next((one for one in steps if one.owner is not None), steps[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _item(inner[1])
    if inner:
        return _item(inner[0])
    fields = getattr(annotation, "model_fields", None)
    if fields is None:
        return _Place(None, None)
    field = fields.get(part)
    return _Place(annotation, None) if field is None else _Place(annotation, field.annotation, tuple(field.metadata))


def _item(annotation: Any) -> _Place:
    if get_origin(annotation) is not Annotated:
        return _Place(None, annotation)
    inner, *said = get_args(annotation)
    return _Place(None, inner, tuple(limit for one in said for limit in getattr(one, "metadata", [one])))


def _where(path: list[str], message: str, said: Mapping[str, str]) -> str | None:
    """Where it was said: the key itself, what lies below it, or what it lies in; else the keys that *message* names."""
    if len(path) < 2:
        section = f"{path[0]}." if path else ""
        named = [at for key, at in said.items() if key.startswith(section) and _names(message, key, section)]
        return next(reversed(named), None)  # the layers are in order: the last is the one that was added to the file
    key = ".".join(path)
    below = [at for one, at in said.items() if one.startswith(f"{key}.")]
    above = [said[one] for one in (".".join(path[:count]) for count in range(len(path), 1, -1)) if one in said]
    return next(iter([*above[:1], *below]), None)


def _names(message: str, key: str, section: str) -> bool:
    return re.search(rf"\b{re.escape(key.removeprefix(section))}\b", message) is not None
