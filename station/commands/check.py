"""``station check``: the resolved configuration, and whether each part works."""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from station.commands.check_access import access, redis, tls
from station.commands.check_line import camera, modbus, ports
from station.commands.check_recipe import recipes, recipes_of
from station.commands.finding import Finding
from station.config import Settings
from station.disk import free_bytes
from station.errors import ConfigError, LedgerError, LinkError, ModelError, RefusedError
from station.folders import check_apart, lock_inbox
from station.judge import build_judge
from station.ledger_file import examine
from station.mqtt_probe import probe
from station.parts import build_reference, build_trust, check_labels, link_options
from station.sections import MB, FolderSection, Section

# In what a broker's port answers: nothing there understood our TLS, or nothing there would talk without it.
NO_TLS_THERE = ("Connection reset", "WRONG_VERSION_NUMBER", "EOF")
TLS_THERE = ("no answer",)


def check(settings: Settings) -> bool:
    """Prints everything; True when the station can inspect with these settings."""
    console = Console(soft_wrap=True, highlight=False)
    for text in resolved(settings):
        console.print(text, style="bold" if text.startswith("[") else "", markup=False)
    console.print()
    able = True
    told: set[str] = set()
    line = (_template, _trust, _model, recipes, _source, camera, ports, modbus, _data_dir, _ledger, _files)
    for look in (*line, _broker, _http, redis, access, tls):
        for finding in look(settings):
            able = able and (finding.works or not finding.needed)
            if not finding.works and finding.seen in told:
                continue  # a template that is missing is the model's trouble too, and one thing to mend
            told.add(finding.seen)
            mark, style = (
                ("ok  ", "green") if finding.works else ("FAIL", "red") if finding.needed else ("warn", "yellow")
            )
            console.print(Text.assemble((mark, style), f"  {finding.part}: {finding.seen}"))
    return able


def _template(settings: Settings) -> Iterator[Finding]:
    for part, own in recipes_of(settings):
        try:
            reference = build_reference(_without_trust(own))
        except ConfigError as error:
            yield Finding(f"template{part}", works=False, seen=str(error))
            continue
        if reference is not None:
            yield Finding(f"template{part}", works=True, seen=reference.description)


def _trust(settings: Settings) -> Iterator[Finding]:
    for part, own in recipes_of(settings):
        try:
            limits = build_trust(own)
        except ConfigError as error:
            yield Finding(f"trust{part}", works=False, seen=str(error))
            continue
        if limits is not None:
            seen = f"{own.recipe.trust}: {limits.width}x{limits.height}"
            if limits.max_shift_px is not None and own.recipe.template is None:
                seen += "; max_shift_px is not looked at without [recipe] template"
            yield Finding(f"trust{part}", works=True, seen=seen)


def _without_trust(settings: Settings) -> Settings:
    """The same, for who would stumble over a trust file that has its own finding."""
    return settings.model_copy(update={"recipe": settings.recipe.model_copy(update={"trust": None})})


def _model(settings: Settings) -> Iterator[Finding]:
    began_s = time.perf_counter()
    try:
        detector = build_judge(_without_trust(settings)).detector
    except (ModelError, ConfigError) as error:
        yield Finding("model", works=False, seen=str(error))
        return
    loaded_s = time.perf_counter() - began_s
    yield Finding("model", works=True, seen=f"{detector.description}, ready in {loaded_s:.2f} s")
    for part, own in recipes_of(settings):
        trouble = _labels_trouble(own, detector.labels)
        if trouble is not None:
            yield Finding(f"recipe{part}", works=False, seen=trouble)


def _labels_trouble(settings: Settings, labels: tuple[str, ...]) -> str | None:
    try:
        check_labels(settings, labels)
    except ConfigError as error:
        return str(error)
    return None


def _source(settings: Settings) -> Iterator[Finding]:
    wanted = settings.source
    if not isinstance(wanted, FolderSection):
        return
    yield _inbox(wanted)
    try:
        check_apart(settings.station.data_dir, wanted.path)
    except ConfigError as error:
        yield Finding("source", works=False, seen=str(error))
    choosing = [name for name, recipe in settings.recipes.items() if recipe.serial_pattern]
    if choosing and not wanted.serial_pattern:
        seen = (
            f"[recipes.{choosing[0]}] goes by serials, and this folder's boards have none: set [source] serial_pattern"
        )
        yield Finding("source", works=False, needed=False, seen=seen)


def _inbox(wanted: FolderSection) -> Finding:
    path = wanted.path
    finding = _folder("source", path, needs_write=wanted.after == "move")
    if not finding.works:
        return finding
    if not path.exists():  # a start makes it, and nobody would bring boards to one that is misspelt
        seen = f"{path} is not there, and will be made at the first start: is [source] path spelled right?"
        return Finding("source", works=False, needed=False, seen=seen)
    try:
        held = lock_inbox(path)
    except ConfigError:
        seen = f"{path}: a station that runs takes boards from it: this one, or another"
        return Finding("source", works=False, needed=False, seen=seen)
    if held is not None:
        os.close(held)  # at once: a station may be starting
    return finding


def _data_dir(settings: Settings) -> Iterator[Finding]:
    data_dir = settings.station.data_dir
    finding = _folder("data_dir", data_dir, needs_write=True)
    yield finding
    if finding.works:
        free_mb = free_bytes(_nearest(data_dir)) / MB
        floor_mb = settings.ledger.stop_below_mb
        yield Finding("disk", works=free_mb >= floor_mb, seen=f"{free_mb:.0f} MB free, {floor_mb:g} MB needed")


def _ledger(settings: Settings) -> Iterator[Finding]:
    path = settings.station.data_dir / "ledger.db"
    if not path.exists():
        if _folder("data_dir", path.parent, needs_write=True).works:
            yield Finding("ledger", works=True, seen=f"{path} will be made at the first start")
        return
    try:
        damage = examine(path)
    except LedgerError as error:
        yield Finding("ledger", works=False, seen=str(error))
        return
    seen = "whole" if damage is None else f"damaged ({damage}): the next start sets it aside and saves what reads"
    yield Finding("ledger", works=damage is None, needed=False, seen=f"{path}: {seen}")


def _broker(settings: Settings) -> Iterator[Finding]:
    if not settings.mqtt.enabled:
        yield Finding("broker", works=True, seen="[mqtt] enabled = false: events wait in the ledger")
        return
    if any(one.needed and not one.works for one in _files(settings)):
        return  # said already, and the broker would be blamed for it
    where = f"{settings.mqtt.host}:{settings.mqtt.port}"
    try:
        seen = probe(link_options(settings))
    except LinkError as error:  # away, it is waited for; but a login that is refused stays refused
        seen = f"{where}: {error}{_tls_hint(str(error), tls=settings.mqtt.tls)}; events wait on disk"
        yield Finding("broker", works=False, needed=isinstance(error, RefusedError), seen=seen)
        return
    yield Finding("broker", works=True, seen=f"{where}: {seen}")


def _tls_hint(trouble: str, *, tls: bool) -> str:
    """What *trouble* with the broker may come of, when one of the two speaks TLS and the other does not."""
    if not any(one in trouble for one in (NO_TLS_THERE if tls else TLS_THERE)):
        return ""
    return f": perhaps {'no TLS' if tls else 'only TLS'} is spoken at this port ([mqtt] tls, port)"


def _files(settings: Settings) -> Iterator[Finding]:
    """What ``[mqtt]`` names must be there: the broker would be blamed for it otherwise."""
    wanted = settings.mqtt
    for key in ("password_file", "ca_file", "cert_file", "key_file"):
        path = getattr(wanted, key)
        if wanted.enabled and path is not None:
            trouble = _try(lambda path=path: path.read_bytes())  # type: ignore[misc]  # mypy cannot infer this lambda
            if trouble is not None:
                yield Finding("broker", works=False, seen=f"[mqtt] {key} = {path} {trouble}")
            elif key in {"password_file", "key_file"} and path.stat().st_mode & 0o077:
                seen = f"[mqtt] {key} = {path} can be read by others: chmod 600 {path}"
                yield Finding("broker", works=False, needed=False, seen=seen)


def _http(settings: Settings) -> Iterator[Finding]:
    if not settings.http.enabled:
        return
    where = (settings.http.host, settings.http.port)
    with socket.socket(socket.AF_INET6 if ":" in where[0] else socket.AF_INET) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(where)
        except OSError as error:
            yield Finding("http", works=False, needed=False, seen=f"{where[0]}:{where[1]} {_bind_trouble(error)}")
            return
    yield Finding("http", works=True, seen=f"{where[0]}:{where[1]} can be used")


def _bind_trouble(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "is in use: by this station, if it runs, else by another station or program ([http] port)"
    return f"cannot be used: {error.strerror} ([http] host, port)"


def _folder(part: str, path: Path, *, needs_write: bool) -> Finding:
    if not path.exists():
        parent = _nearest(path)
        if _try(lambda: _write_in(parent)) is None:  # asked for: /proc is writable for root, and takes nothing
            return Finding(part, works=True, seen=f"{path} will be made at the first start")
        seen = f"{path} cannot be made: {parent} is no folder that this user may write in"
        return Finding(part, works=False, seen=seen)
    if not path.is_dir():
        return Finding(part, works=False, seen=f"{path} is not a folder")
    trouble = _try(lambda: list(os.scandir(path)))
    if trouble is None and needs_write:
        trouble = _try(lambda: _write_in(path))
    return Finding(part, works=trouble is None, seen=f"{path} {trouble or 'can be used'}")


def _write_in(folder: Path) -> None:
    """Leaves nothing behind. Raises OSError."""
    tempfile.TemporaryFile(dir=folder, prefix=".station-check-").close()


def _nearest(path: Path) -> Path:
    """*path*, or the folder above it that is there already: where it would be made."""
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())


def _try(act: Callable[[], object]) -> str | None:
    try:
        act()
    except OSError as error:
        return f"cannot be used by this user: {error.strerror}"
    return None


def resolved(settings: Settings) -> Iterator[str]:
    """All settings as the lines of a station.toml; what is not set is a comment."""
    tables = {name: table for name, table in settings if name != "recipes"}
    tables |= {f"recipes.{name}": recipe for name, recipe in settings.recipes.items()}
    for name, table in tables.items():
        yield f"[{name}]"
        for key, value in table:
            yield f"# {key} is not set" if value is None else f"{key} = {_toml(value)}"


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case Section():
            return _toml(dict(value))
        case dict():
            return (
                "{"
                + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items() if one is not None)
                + "}"
            )
        case list() | tuple() | set() | frozenset():
            return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(str(value), ensure_ascii=False)
