"""``station backup`` and ``restore``: onto an empty machine, and it inspects a board."""

from __future__ import annotations

import io
import sqlite3
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console

from station.commands.backup import _models, restore
from station.config import load
from station.errors import BackupError, ConfigError
from station.folders import lock_folder
from tests.daemon import Daemon, drop, encoded, picture
from tests.waiting import until

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def quiet() -> Console:
    return Console(quiet=True)


def put_back(archive: Path, machine: Path, *, force: bool = False) -> None:
    config, data_dir = machine / "etc" / "station.toml", machine / "data"
    restore(archive, config=config, data_dir=data_dir, force=force, console=quiet())


def ledger_uuid(data_dir: Path) -> str:
    with closing(sqlite3.connect(data_dir / "ledger.db")) as db:
        return str(db.execute("SELECT value FROM meta WHERE key = 'uuid'").fetchone()[0])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The backup of a station that has inspected one board with a model of its store, made while it runs."""
    with Daemon(tmp_path / "old") as old:
        old.configure({"detector": {"model": "store", "backend": "onnxruntime"}, "mqtt": {"username": "aoi"}})
        assert old.call("model", "import", str(old.folder / "tiny.onnx"), "--name", "line-3").returncode == 0
        assert old.call("model", "use", "line-3").returncode == 0
        old.start()
        drop(old.inbox, "board.png", encoded(picture(1)))
        until(lambda: old.files("done"), what="the board")
        target = tmp_path / "aoi-1.tar.gz"
        done = old.call("backup", str(target))
        assert done.returncode == 0, done.stderr
        assert "left out: the broker's password" in done.stdout
        again = old.call("backup", str(target))
        assert (again.returncode, "--force" in again.stderr) == (1, True)
    return target


def test_a_backup_restored_onto_an_empty_machine_inspects_a_board(tmp_path: Path, archive: Path) -> None:
    assert archive.stat().st_mode & 0o777 == 0o600
    with Daemon(tmp_path / "new") as new:
        config = new.config.read_text()
        new.config.unlink()
        done = new.call("restore", str(archive), "--data-dir", str(new.data_dir))
        assert done.returncode == 0, done.stderr
        assert "still to be put back by you: the broker's password" in done.stdout
        assert new.config.exists()
        assert (new.data_dir / "ledger.db").stat().st_mode & 0o777 == 0o600
        assert ledger_uuid(new.data_dir) != ledger_uuid(tmp_path / "old" / "data")
        # The machine's own folders and ports; model, ledger and all else are the restored ones.
        assert 'model = "store"' in new.config.read_text()
        new.config.write_text(config)
        new.configure({"detector": {"model": "store", "backend": "onnxruntime"}})
        new.start()
        drop(new.inbox, "board.png", encoded(picture(2)))
        until(lambda: new.files("done"), what="the board")
        (said,) = new.log("station ready")
        assert said["model"] == "line-3"
        new.stop()
    with closing(sqlite3.connect(new.data_dir / "ledger.db")) as db:
        rows = db.execute("SELECT seq, verdict FROM inspections ORDER BY seq").fetchall()
        owed = db.execute("SELECT count(*) FROM outbox WHERE state = 'owed' AND seq IS NOT NULL").fetchone()[0]
    assert rows == [(1, "fail"), (2, "fail")]
    assert owed == 2  # what the old machine owed is owed by the new one


def test_what_is_there_is_refused_and_with_force_moved_aside(tmp_path: Path, archive: Path) -> None:
    machine = tmp_path / "machine"
    put_back(archive, machine)
    first = ledger_uuid(machine / "data")
    with pytest.raises(BackupError, match=r"ledger\.db.*--force"):
        put_back(archive, machine)
    assert ledger_uuid(machine / "data") == first
    put_back(archive, machine, force=True)
    assert ledger_uuid(machine / "data") != first
    (aside,) = (machine / "data").glob("replaced-*")
    assert {one.name for one in aside.iterdir()} == {"ledger.db", "models", "station.toml"}
    assert ledger_uuid(aside) == first


def test_a_damaged_backup_changes_nothing(tmp_path: Path, archive: Path) -> None:
    machine = tmp_path / "machine"
    put_back(archive, machine)
    before = sorted(one for one in machine.rglob("*"))
    data = bytearray(archive.read_bytes())
    archive.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(BackupError):
        put_back(archive, machine, force=True)
    assert sorted(one for one in machine.rglob("*")) == before
    with pytest.raises(BackupError):
        put_back(archive, tmp_path / "empty")
    assert not [one for one in (tmp_path / "empty").rglob("*") if one.is_file()]


def test_a_folder_that_a_station_uses_is_not_restored_into(tmp_path: Path, archive: Path) -> None:
    machine = tmp_path / "machine"
    (machine / "data").mkdir(parents=True)
    with lock_folder(machine / "data"), pytest.raises(ConfigError, match="another station"):
        put_back(archive, machine)
    assert not (machine / "etc" / "station.toml").exists()


def test_no_secret_is_in_a_backup_unless_it_is_asked_for(tmp_path: Path) -> None:
    with Daemon(tmp_path / "old") as old:
        password = old.folder / "password"
        password.write_text("hush")
        trust = old.folder / "trust.toml"
        trust.write_text(
            "width = 64\nheight = 64\nmin_brightness = 0\nmax_brightness = 255\nmin_contrast = 0\nmin_sharpness = 0\n"
        )
        old.configure(
            {
                "mqtt": {"username": "aoi", "password_file": str(password)},
                "http": {"auth": "required"},
                "recipe": {"trust": str(trust)},
            }
        )
        assert old.call("key", "create", "line-2", "--scope", "read").returncode == 0
        assert old.call("token", "create", "x", "--scope", "read").returncode == 0
        assert old.call("backup", "plain.tar.gz").returncode == 0
        assert old.call("backup", "secret.tar.gz", "--secrets").returncode == 0
    with tarfile.open(old.folder / "plain.tar.gz") as plain, tarfile.open(old.folder / "secret.tar.gz") as secret:
        assert set(secret.getnames()) - set(plain.getnames()) == {"files/mqtt.password_file", "jwt-secret"}
        assert {"keys.json", "files/recipe.trust"} <= set(plain.getnames())
        assert "files/detector.model" in plain.getnames()  # a model that is configured as a file belongs to it


def test_a_file_that_belongs_elsewhere_is_not_written_there(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with Daemon(tmp_path / "old") as old:
        model = (old.folder / "tiny.onnx").rename(elsewhere / "tiny.onnx")
        old.configure({"detector": {"model": str(model)}})
        assert old.call("backup", "b.tar.gz").returncode == 0
    model.unlink()
    machine = tmp_path / "machine"
    put_back(old.folder / "b.tar.gz", machine)
    assert not model.exists()
    assert (machine / "data" / "restored" / "tiny.onnx").exists()


@pytest.mark.parametrize("at_home", [True, False])
def test_a_spare_has_the_files_of_each_recipe(tmp_path: Path, at_home: bool) -> None:
    """At home, in the configuration's folder, they come back to where they are named."""
    machine = tmp_path / "machine"
    home = machine / "etc" if at_home else tmp_path / "elsewhere"
    names = ("plain.png", "b/template.png", "c/template.png", "b/trust.toml")
    for name in names:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name)
    plain, of_b, of_c, trust = (home / name for name in names)
    with Daemon(tmp_path / "old") as old:
        old.configure(
            {
                "recipe": {"template": str(plain)},
                "recipes.b": {"serial_pattern": "^B", "template": str(of_b), "trust": str(trust)},
                "recipes.c": {"serial_pattern": "^C", "template": str(of_c), "trust": str(trust)},
                "recipes.d": {"serial_pattern": "^D"},
            }
        )
        done = old.call("backup", "b.tar.gz")
    assert (done.returncode, "recipe" in done.stdout) == (0, False), done.stdout
    with tarfile.open(old.folder / "b.tar.gz") as made:
        assert {one for one in made.getnames() if "recipe" in one} == {
            *("files/recipe.template", "files/recipes.b.template", "files/recipes.c.template", "files/recipes.b.trust")
        }
    for name in names:
        (home / name).write_text("of the spare")
    put_back(old.folder / "b.tar.gz", machine, force=at_home)
    if at_home:
        places = [home / name for name in names]
        (aside,) = (machine / "data").glob("replaced-*")
        assert [one.read_text() for one in sorted(aside.iterdir())] == ["of the spare"] * len(names)
    else:
        apart = ("plain.png", "recipes.b/template.png", "recipes.c/template.png", "recipes.b/trust.toml")
        places = [machine / "data" / "restored" / name for name in apart]
    assert [one.read_text() for one in places] == list(names)


def test_what_is_damaged_of_the_store_is_left_out(tmp_path: Path) -> None:
    with Daemon(tmp_path / "old") as old:
        for name in (".damaged-line-3-1", "line-3"):
            (old.data_dir / "models" / name).mkdir(parents=True)
            (old.data_dir / "models" / name / "model.onnx").write_bytes(b"weights")
        assert old.call("backup", "b.tar.gz").returncode == 0
    with tarfile.open(old.folder / "b.tar.gz") as made:
        assert [one for one in made.getnames() if one.startswith("models/")] == ["models/line-3/model.onnx"]


def told(archive: Path, config: Path, data_dir: Path) -> list[str]:
    """What ``restore`` prints."""
    out = io.StringIO()
    restore(archive, config=config, data_dir=data_dir, force=False, console=Console(file=out, soft_wrap=True))
    return out.getvalue().splitlines()


def test_a_restored_file_that_still_names_the_old_folders_is_not_to_be_started(tmp_path: Path) -> None:
    with Daemon(tmp_path / "old") as old:
        assert old.call("backup", "b.tar.gz").returncode == 0
        archive = old.folder / "b.tar.gz"
    config, data_dir = tmp_path / "new" / "aoi.toml", tmp_path / "new" / "data"
    *_, warning, change, inbox, check = told(archive, config, data_dir)
    assert warning.startswith(
        f"DO NOT START IT YET: {config} still names data_dir {old.data_dir} and inbox {old.inbox}"
    )
    line = next(one for one in enumerate(config.read_text().splitlines(), 1) if one[1].startswith("data_dir"))
    assert change == f'In {config} change line {line[0]} ({line[1]}) to: data_dir = "{data_dir}"'
    assert f'(path = "{old.inbox}")' in inbox
    assert check == f"Only then: station check -c {config}"
    changed = config.read_text().replace(line[1], change.partition(" to: ")[2])
    config.write_text(changed)
    assert load(config).station.data_dir == data_dir


def test_a_restored_file_that_names_its_folder_is_to_be_checked_at_once(tmp_path: Path) -> None:
    with Daemon(tmp_path / "old") as old:
        assert old.call("backup", "b.tar.gz").returncode == 0
        (old.folder / "b.tar.gz").rename(tmp_path / "b.tar.gz")
        (old.folder / "tiny.onnx").unlink()
        lines = told(tmp_path / "b.tar.gz", tmp_path / "aoi.toml", old.data_dir)
    assert lines[-1] == f"Then: station check -c {tmp_path / 'aoi.toml'}"
    assert not any("DO NOT START" in one for one in lines)


def test_a_folder_that_the_restored_file_does_not_set_is_to_be_set(tmp_path: Path) -> None:
    with Daemon(tmp_path / "old") as old:
        old.config.write_text("[source]\nkind = 'camera'\ndevice = '/dev/video0'\n")
        assert old.call("backup", str(tmp_path / "b.tar.gz")).returncode == 0
    data_dir = tmp_path / 'new "one"'
    *_, warning, change, check = told(tmp_path / "b.tar.gz", tmp_path / "aoi.toml", data_dir)
    assert "inbox" not in warning
    assert change.partition(": ")[0] == f"In {tmp_path / 'aoi.toml'} set, in its section [station]"
    assert tomllib.loads(change.partition(": ")[2])["data_dir"] == str(data_dir)
    assert check.startswith("Only then: ")


def test_what_is_being_written_into_the_store_is_not_backed_up(tmp_path: Path) -> None:
    for name in ("line/model.onnx", ".importing-x/model/model.onnx", ".part-y", ".converted/.part-z", "current.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [name for name, _ in _models(tmp_path)] == ["models/current.json", "models/line/model.onnx"]
