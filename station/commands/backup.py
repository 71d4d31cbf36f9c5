"""``station backup`` and ``restore``: all that a station is, but its pictures, into one archive and back."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from station import __version__
from station.backup import Archive, Manifest, open_archive, write_archive
from station.config import PREFIX, Settings, find, load
from station.detectors.store import DAMAGED, IMPORTING
from station.disk import sync_directory
from station.durable import DRAFT, adopt
from station.errors import BackupError, ConfigError
from station.events import utc_text
from station.folders import LOCK, lock_folder
from station.ledger_copy import copy_ledger, renew
from station.parts import CREDENTIAL, model_store
from station.sections import FolderSection
from station.sources.names import numbered
from station.terminal import shown

CONFIG, LEDGER, MODELS, FILES = "station.toml", "ledger.db", "models", "files"
CONFIG_BYTES = 1_000_000
# Keys whose files may be read by everybody, and those that may not: they stay where they are unless somebody asks.
SECRET_FILES = (
    *("mqtt.password_file", "mqtt.key_file", "source.password_file"),
    *("http.key_file", "http.jwt_secret_file", "http.redis_password_file"),
)
PLAIN_FILES = (
    *("mqtt.ca_file", "mqtt.cert_file", "recipe.template", "recipe.trust"),
    *("http.cert_file", "http.jwt_public_key_file"),
)
RECIPE_FILES = ("template", "trust")  # of each [recipes.NAME] too
OF_RECIPE = re.compile(rf"{FILES}/recipes\.[^/]+\.({'|'.join(RECIPE_FILES)})")
PLACES = (Path("/etc/station"), Path("/var/lib/station"))  # of scripts/install, and images; not where the program lies
RUNS = {".env", ".py", ".pth", ".so", ".sh", ".conf", ".service", ".toml"}  # by its suffix, what somebody runs or obeys
# Beside the ledger: the keys' hashes, and the recipe that a command chose. What tokens are signed with is a secret.
# Proofs of challenge boards stay here: on another machine they are due again.
OWN, OWN_SECRET = ("keys.json", "recipe.json"), "jwt-secret"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that a station needs and its backup does not hold: what, and where it has to be put back."""

    what: str
    where: str


def back_up(
    settings: Settings, config: Path | None, target: Path, *, secrets: bool, force: bool, console: Console
) -> None:
    """
    Writes configuration, ledger, models and the files that the configuration names into *target*; the station may run.

    With *secrets* also passwords, private keys, and what tokens are signed with. Raises BackupError, LedgerError and
    ModelError.
    """
    found = find(config)
    if found is None:
        raise ConfigError("no configuration file to back up: give it with -c FILE")
    data_dir = settings.station.data_dir
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=_there(data_dir)) as folder:
        copy = Path(folder) / LEDGER
        files: dict[str, Path] = {CONFIG: found}
        if (data_dir / LEDGER).exists():
            copy_ledger(data_dir / LEDGER, copy)
            files[LEDGER] = copy
        files.update({one: data_dir / one for one in OWN if (data_dir / one).exists()})
        if secrets and (data_dir / OWN_SECRET).exists():
            files[OWN_SECRET] = data_dir / OWN_SECRET
        files.update(_models(model_store(settings).folder))
        named, left_out = _named_files(settings, secrets=secrets)
        files.update({f"{FILES}/{key}": path for key, path in named.items()})
        about = {
            "made_at": utc_text(datetime.now(timezone.utc)),
            "station": settings.station.name,
            "version": __version__,
            "config": str(found.absolute()),
            "left_out": [{"what": one.what, "where": one.where} for one in left_out],
        }
        manifest = write_archive(target, files, about=about, replace=force)
    size_mb = target.stat().st_size / 1e6
    console.print(f"{target}: {len(manifest.files)} files, {size_mb:.1f} MB", markup=False)
    if secrets:
        console.print("It holds secrets: keep it where nobody else can read it.", style="yellow")
    for one in left_out:
        console.print(f"left out: {one.what} ({one.where})", markup=False)


def restore(source: Path, *, config: Path | None, data_dir: Path | None, force: bool, console: Console) -> None:
    """
    Puts a backup onto this machine: all of it, or nothing is changed.

    *config*: where the configuration goes, if not where it was; *data_dir*: where ledger and models go, if not where
    that says. What is there already is refused or, with *force*, moved aside. Raises BackupError and ConfigError.
    """
    with open_archive(source) as archive:
        text = archive.read_next(CONFIG, most_bytes=CONFIG_BYTES)
        _refuse_strangers(archive.manifest, source)
        if config is None:
            config = Path(str(archive.manifest.about.get("config", "")))
            if not config.name:
                raise BackupError(f"{source} does not say where its configuration was: say it with -c FILE")
            _refuse_foreign(config, "-c FILE", source)
        settings = _settings_of(text, source)
        if data_dir is None:
            data_dir = settings.station.data_dir
            _refuse_foreign(data_dir, "--data-dir DIR", source)
        targets = _targets(settings, config=config, data_dir=data_dir)
        in_the_way = [path for path in _in_the_way(archive.manifest, targets, data_dir) if os.path.lexists(path)]
        if in_the_way and not force:
            there = ", ".join(map(str, in_the_way))
            raise BackupError(f"{there}: there already; --force moves it aside and restores the backup in its place")
        _make(data_dir, "--data-dir DIR")
        _make(config.absolute().parent, "-c FILE")
        with _locked(data_dir), tempfile.TemporaryDirectory(prefix=".restoring-", dir=data_dir) as folder:
            staged = Path(folder)
            (staged / CONFIG).write_bytes(text)
            archive.extract_rest(staged, after=1)
            ledger = renew(staged / LEDGER) if (staged / LEDGER).exists() else None
            aside = _move_aside(in_the_way, data_dir)
            _put(staged, targets, data_dir)
    _report(archive, text, settings, config=config, data_dir=data_dir, ledger=ledger, aside=aside, console=console)


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Holds *data_dir*. A restore that fails has changed nothing: it leaves no lock behind where there was none."""
    new = not (data_dir / LOCK).exists()
    with lock_folder(data_dir):
        try:
            yield
        except BaseException:
            if new:
                (data_dir / LOCK).unlink(missing_ok=True)
            raise


def _there(data_dir: Path) -> Path | None:
    """Where to put the ledger's copy: beside it, where there is room for it; anywhere when there is no ledger yet."""
    return data_dir if (data_dir / LEDGER).exists() else None


def _models(store: Path) -> Iterator[tuple[str, Path]]:
    """The store's files by their name in the archive; not what is being written at the moment, nor what is damaged."""
    for path in sorted(store.rglob("*")) if store.is_dir() else ():
        parts = path.relative_to(store).parts
        written = path.suffix == ".part" or path.name.startswith(DRAFT)
        if path.is_file() and not written and not parts[0].startswith((IMPORTING, DAMAGED)):
            yield "/".join((MODELS, *parts)), path


def _named_files(settings: Settings, *, secrets: bool) -> tuple[dict[str, Path], list[LeftOut]]:
    """The files that the configuration names, by its key, and what is left out."""
    paths = list(_paths(settings))
    taken = {key: path for key, path in paths if (secrets or key not in SECRET_FILES) and path.is_file()}
    left = [LeftOut(key, str(path)) for key, path in paths if key not in taken]
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if settings.mqtt.username and settings.mqtt.password_file is None:
        where = f"/etc/station/NAME.{CREDENTIAL}, as scripts/install made it" if credentials is None else credentials
        left.append(LeftOut("the broker's password", where))
    names = sorted(one for one in os.environ if one.startswith(PREFIX) and one != "STATION_CONFIG")
    left += [LeftOut(f"the environment variable {name}", "it overrides the configuration here") for name in names]
    if Path(".env").exists():
        left.append(LeftOut(".env", str(Path(".env").absolute())))
    inbox = f" and {settings.source.path}" if isinstance(settings.source, FolderSection) else ""
    left.append(LeftOut("pictures", f"{settings.station.data_dir / 'evidence'}{inbox}"))
    return taken, left


def _paths(settings: Settings) -> Iterator[tuple[str, Path]]:
    for key in (*PLAIN_FILES, *SECRET_FILES):
        section, _, name = key.partition(".")
        path = getattr(getattr(settings, section), name, None)  # not every kind of a section has it
        if path is not None:
            yield key, path
    told = {getattr(settings.recipe, key) for key in RECIPE_FILES}  # what recipes share is one file
    for name, recipe in settings.recipes.items():
        for key in RECIPE_FILES:
            path = getattr(recipe, key)
            if path is not None and path not in told:
                told.add(path)
                yield f"recipes.{name}.{key}", path
    model = settings.detector.model
    if Path(model).suffix in {".onnx", ".pt"} or "/" in model:
        yield "detector.model", Path(model)


def _refuse_strangers(manifest: Manifest, source: Path) -> None:
    for one in manifest.files:
        known = {
            CONFIG,
            LEDGER,
            *OWN,
            OWN_SECRET,
            *(f"{FILES}/{key}" for key in (*PLAIN_FILES, *SECRET_FILES, "detector.model")),
        }
        ours = one.name in known or one.name.startswith(f"{MODELS}/") or OF_RECIPE.fullmatch(one.name)
        if not ours:
            raise BackupError(f"{source} holds {one.name}, which this station does not know: update it, then restore")


def _refuse_foreign(path: Path, option: str, source: Path) -> None:
    """
    An archive's own word is good for the places of a station. Anywhere else a person has to say it.

    Else whoever makes an archive could have root write what they like to /etc/cron.d.
    """
    if not any(_lies_in(path, place) for place in _places()):
        raise BackupError(f"{source} wants to be restored to {path}: if you want that, too, say it with {option}")


def _places() -> Iterator[Path]:
    """
    The folders that an archive may choose from: a station's own, and the folder that a user stands in.

    Not where root stands: that is mostly /root, whose .profile runs at the next login, or /, below which all else lies.
    """
    yield from PLACES
    here = Path.cwd()
    if os.geteuid() != 0 and not any(here in place.parents for place in PLACES):
        yield here


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether *path* lies below *folder*, wherever links lead, and not in a hidden part of it, as ``.ssh`` is."""
    real, home = path.absolute().resolve(), folder.resolve()
    return home in real.parents and not any(part.startswith(".") for part in real.relative_to(home).parts)


def _settings_of(text: bytes, source: Path) -> Settings:
    """The archived configuration, as this machine's environment changes it."""
    with tempfile.TemporaryDirectory(prefix="station-restore-") as folder:
        path = Path(folder) / CONFIG
        path.write_bytes(text)
        try:
            return load(path)
        except ConfigError as error:
            raise BackupError(f"{source}: its configuration is not accepted: {error}") from None


def _targets(settings: Settings, *, config: Path, data_dir: Path) -> dict[str, Path]:
    """
    Where each part of an archive goes.

    A file that the configuration names goes to where it is named, if that is in the configuration's folder or the data
    folder, and its name is none that something runs. Anywhere else an archive must not write: such a file goes to
    ``DATA_DIR/restored``, to be moved by hand.
    """
    homes = [config.absolute().parent, data_dir.absolute()]
    targets = {CONFIG: config, **{one: data_dir / one for one in (LEDGER, MODELS, *OWN, OWN_SECRET)}}
    for key, path in _paths(settings):
        harmless = path.suffix not in RUNS or (key.endswith(".trust") and path.suffix == ".toml")
        at_home = harmless and any(_lies_in(path, home) for home in homes)
        # Recipes have a folder each: template.png is what each of them may call its own.
        apart = Path(key.rpartition(".")[0]) if key.startswith("recipes.") else Path()
        targets[f"{FILES}/{key}"] = path if at_home else data_dir / "restored" / apart / path.name
    return targets


def _in_the_way(manifest: Manifest, targets: Mapping[str, Path], data_dir: Path) -> list[Path]:
    parts = {one.name if not one.name.startswith(f"{MODELS}/") else MODELS for one in manifest.files}
    wal = [data_dir / f"{LEDGER}-wal", data_dir / f"{LEDGER}-shm"]  # of another ledger: never to be met by ours
    return [targets[part] for part in targets if part in parts] + wal


def _move_aside(paths: Iterable[Path], data_dir: Path) -> Path | None:
    there = [path for path in paths if os.path.lexists(path)]
    if not there:
        return None
    folder = Path(
        tempfile.mkdtemp(prefix=datetime.now(timezone.utc).strftime("replaced-%Y-%m-%dT%H%M%SZ-"), dir=data_dir)
    )
    for path in there:
        names = (folder / numbered(path.name, number) for number in itertools.count(1))  # of two folders, perhaps
        shutil.move(path, next(one for one in names if not os.path.lexists(one)))
    sync_directory(folder)
    return folder


def _put(staged: Path, targets: Mapping[str, Path], data_dir: Path) -> None:
    """Moves what is staged into its place; the configuration last: without it nothing starts."""
    for name, target in sorted(targets.items(), key=lambda one: one[0] == CONFIG):
        made = staged / name
        if not made.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == CONFIG:
            made.chmod(0o640)  # as scripts/install makes it: its folder's group reads it
        for path in (made, *(made.rglob("*") if made.is_dir() else ())):
            adopt(path, like=target.parent if name == CONFIG else data_dir)
        if made.is_dir():
            made.rename(target)
        else:
            shutil.move(made, target)
        sync_directory(target.parent)


def _make(folder: Path, option: str) -> None:
    """*folder*, there and writable, before anything is put anywhere; *option* says where to choose another."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BackupError(
            f"{folder} cannot be written ({error.strerror}): run as a user who may, or choose another with {option}"
        ) from None


def _report(
    archive: Archive,
    text: bytes,
    settings: Settings,
    *,
    config: Path,
    data_dir: Path,
    ledger: str | None,
    aside: Path | None,
    console: Console,
) -> None:
    about = archive.manifest.about
    console.print(f"{about.get('station')}, backed up {about.get('made_at')}: restored into {data_dir}", markup=False)
    if ledger is not None:
        console.print(f"Its ledger goes on as {ledger}: boards inspected after the backup are not in it.", markup=False)
    if aside is not None:
        console.print(f"What was there lies in {aside}.", markup=False)
    moved = data_dir / "restored"
    if moved.exists():
        console.print(f"Files that the configuration names elsewhere lie in {moved}: move them there.", markup=False)
    left_out = about.get("left_out")
    for one in left_out if isinstance(left_out, list) else []:
        said = f"still to be put back by you: {one.get('what')} ({one.get('where')})"
        console.print(said, style="yellow", markup=False)
    if data_dir.absolute() == settings.station.data_dir.absolute():
        console.print(f"Then: station check -c {config}", markup=False)
        return
    # Until it is changed even `station check` looks at the old folder, which may be that of a station that runs.
    for line in _to_change(text, settings, config=config, data_dir=data_dir):
        console.print(line, style="yellow", markup=False)
    console.print(f"Only then: station check -c {config}", markup=False)


def _to_change(text: bytes, settings: Settings, *, config: Path, data_dir: Path) -> Iterator[str]:
    """What a configuration still names, though its station was restored into *data_dir*, and which lines to change."""
    inbox = settings.source.path if isinstance(settings.source, FolderSection) else None
    old = f"data_dir {settings.station.data_dir.absolute()}"
    old += "" if inbox is None else f" and inbox {inbox.absolute()}"
    yield f"DO NOT START IT YET: {config} still names {old}: it would use what is there."
    where = _place(text, "station", "data_dir")
    change = "set, in its section [station]" if where is None else f"change {where} to"
    yield f"In {config} {change}: data_dir = {json.dumps(str(data_dir.absolute()), ensure_ascii=False)}"
    if inbox is not None:
        where = _place(text, "source", "path") or "[source] path"
        yield f"Unless it is to take the pictures of that inbox, change {where} too, to an inbox of its own."


def _place(text: bytes, section: str, key: str) -> str | None:
    """Where *key* is set, with its line as it is; None: nowhere, or in a form that only TOML itself could find."""
    inside = ""
    for number, line in enumerate(text.decode(errors="replace").splitlines(), start=1):
        if heading := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            inside = heading[1]
        elif inside == section and re.match(rf"\s*{key}\s*=", line):
            return f"line {number} ({shown(line.strip())})"
    return None
