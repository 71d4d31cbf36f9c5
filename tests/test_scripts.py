"""The scripts, the locks, and what an installation leaves on disk."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    one for one in [*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run"] if one.is_file() and one.suffix != ".py"
)
LOCKS = {name: ROOT / "requirements" / f"{name}.lock" for name in ("run", "demo", "dev", "build")}
# A Python, a processor: what a lock must serve. 3.10 is locked but not tested by us.
MACHINES = [
    {"python_version": version, "python_full_version": f"{version}.1", "platform_machine": machine}
    for version in ("3.10", "3.11", "3.12", "3.13")
    for machine in ("x86_64", "aarch64")
]


def run(
    *command: str | Path, cwd: Path = ROOT, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    env = os.environ | (environment or {})
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=250, cwd=cwd, env=env)


# --- scripts


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_bash_can_read_every_script(script: Path) -> None:
    done = run("bash", "-n", script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", [one for one in SCRIPTS if one.suffix != ".sh"], ids=lambda script: script.name)
def test_every_script_is_executable_and_stops_at_the_first_error(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert "\nset -euo pipefail\n" in script.read_text()


@pytest.mark.parametrize("name", ["install", "uninstall", "test", "check", "lock"])
def test_help_shows_an_example_and_does_nothing_else(name: str, tmp_path: Path) -> None:
    done = run(ROOT / "scripts" / name, "--help", environment={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^  .*scripts/{name}\b", done.stdout, re.MULTILINE)
    assert not list(tmp_path.iterdir())


def bash(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs *code* with the functions of scripts/lib.sh, as the scripts do."""
    return run("bash", "-c", f"set -euo pipefail; source {ROOT}/scripts/lib.sh; {code}", environment=environment)


def fake(folder: Path, name: str, code: str) -> None:
    """A program *name* in *folder* that does *code*."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{code}\n")
    (folder / name).chmod(0o755)


def test_an_old_python_is_passed_over(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "old", "exit 1")
    found = bash("find_python", PYTHON=f"{tmp_path}/bin/old {sys.executable}")
    assert found.stdout.strip() == sys.executable, found.stderr


def test_a_missing_program_that_cannot_be_installed_is_named_with_the_command_for_it(tmp_path: Path) -> None:
    fake(tmp_path / "bin", "apt-get", "echo no network; exit 100")
    fake(tmp_path / "bin", "sudo", "exit 1")
    done = bash(
        "ensure_command no-such-program some-package 'the tests need it'",
        PATH=f"{tmp_path}/bin:{os.environ['PATH']}",
    )
    assert done.returncode == 1
    assert "no-such-program is missing: the tests need it. Install it: sudo apt install some-package" in done.stderr


def test_a_missing_program_is_installed_after_the_package_list_was_fetched(tmp_path: Path) -> None:
    told = tmp_path / "told"
    install = (
        f'[ -e {told} ] && printf "#!/bin/sh\\n" >{tmp_path}/bin/new-program && chmod +x {tmp_path}/bin/new-program'
    )
    fake(tmp_path / "bin", "apt-get", f'case "$*" in *update*) touch {told} ;; *install*) {install} ;; esac')
    fake(tmp_path / "bin", "sudo", 'if [ "$1" = -n ]; then shift; fi; exec "$@"')
    done = bash(
        "ensure_command new-program some-package 'the tests need it'", PATH=f"{tmp_path}/bin:{os.environ['PATH']}"
    )
    assert done.returncode == 0, done.stderr
    assert "installing some-package with apt" in done.stderr


def test_what_pip_said_is_shown_when_it_fails(tmp_path: Path) -> None:
    fake(tmp_path, "python", "echo Collecting numpy; echo 'ERROR: no such host'; exit 1")
    done = bash(f"pip_install {tmp_path}/python 'installing the packages' numpy; echo went on")
    assert done.returncode == 1
    assert "ERROR: no such host" in done.stderr
    assert "went on" not in done.stdout


# --- locks


def locked(name: str) -> dict[str, list[Requirement]]:
    """What the lock holds, by canonical name: more than one where Pythons differ."""
    found: dict[str, list[Requirement]] = {}
    for line in LOCKS[name].read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.rstrip("\\ "))
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def on(machine: dict[str, str], requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"sys_platform": "linux"} | machine)


def wanted(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(("name", "extras"), [("run", []), ("demo", ["demo"]), ("dev", ["demo", "dev"])])
def test_the_lock_answers_everything_that_pyproject_asks_for(name: str, extras: list[str]) -> None:
    pins = locked(name)
    for machine in MACHINES:
        for need in wanted(*extras):
            if not on(machine, need):
                continue
            here = [pin for pin in pins.get(canonicalize_name(need.name), []) if on(machine, pin)]
            assert len(here) == 1, f"{need} on {machine}: {here}; run scripts/lock"
            version = str(here[0].specifier).removeprefix("==")
            assert need.specifier.contains(version, prereleases=True), f"{here[0]} is not {need}; run scripts/lock"


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_is_pinned_and_has_a_hash(name: str) -> None:
    entries = re.split(r"\n(?=\S)", LOCKS[name].read_text().strip())
    assert entries
    for entry in entries:
        assert "==" in entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_brings_torch_or_the_station_itself(name: str) -> None:
    assert not {"torch", "torchvision", "ultralytics", "station"} & set(locked(name))


@pytest.mark.parametrize("name", LOCKS)
def test_no_lock_names_an_index_or_a_folder(name: str) -> None:
    text = LOCKS[name].read_text()
    assert not re.search(r"://|(?m:^-)|--(index|extra|find|trusted)|\s/|@", text)


def test_the_small_locks_hold_what_was_tested_with_the_large_one() -> None:
    def versions(name: str) -> set[str]:  # which Pythons need it may differ: more needs it in the large one
        return {str(pin).partition(";")[0] for pins in locked(name).values() for pin in pins}

    for name in ("run", "demo"):
        assert versions(name) <= versions("dev")


# --- the first configuration

FIRST_CONFIG = runpy.run_path(str(ROOT / "scripts" / "first_config.py"))  # scripts/ is no package
with_value, value_of, free_port = (FIRST_CONFIG[name] for name in ("with_value", "value_of", "free_port"))

SAMPLE = """\
# path = "not this"
[station]
name = "aoi-1"   # shown on the page
topic = "factory/line1/aoi-1"
#data_dir = "data"

[source]
kind = "folder"
path = 'inbox'  # pictures fall in here

[source.more]
path = "nor this"

[http]
port = 8000
"""


def test_a_value_is_set_in_its_section_and_the_comment_stays() -> None:
    changed = with_value(SAMPLE, '/srv/in "box"', section="source", key="path")
    assert tomllib.loads(changed)["source"] == {
        "kind": "folder",
        "path": '/srv/in "box"',
        "more": {"path": "nor this"},
    }
    assert "# pictures fall in here" in changed
    assert '# path = "not this"' in changed


@pytest.mark.parametrize(("section", "key"), [("station", "data_dir"), ("mqtt", "host")])
def test_a_key_or_section_that_is_not_there_is_added(section: str, key: str) -> None:
    changed = tomllib.loads(with_value(SAMPLE, "new", section=section, key=key))
    assert changed[section][key] == "new"
    assert changed["source"]["path"] == "inbox"


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("station", "name", "aoi-1"),
        ("source", "path", "inbox"),
        ("http", "port", "8000"),
        ("station", "data_dir", None),
    ],
)
def test_a_value_is_read_from_its_section_only(section: str, key: str, value: str | None) -> None:
    assert value_of(SAMPLE, section=section, key=key) == value


def test_a_second_instance_gets_a_port_of_its_own() -> None:
    assert free_port(SAMPLE, others=[]) == 8000
    assert free_port(SAMPLE, others=[SAMPLE, "[http]\nport = 8001\n"]) == 8002
    assert free_port(SAMPLE, others=["[station]\n"]) == 8001  # 8000 is the default where nothing is said


# --- install and uninstall, below a folder


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what installing needs, with a configuration that does not depend on the shipped one's wording."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("scripts", "systemd", "requirements"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "configs").mkdir()
    (copy / "configs" / "station.toml").write_text(SAMPLE)
    return copy


def install(tree: Path, prefix: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run(tree / "scripts" / "install", "--prefix", prefix, "--venv", sys.prefix, *options, cwd=tree)


def contents(folder: Path) -> dict[str, str]:
    return {
        str(one.relative_to(folder)): str(one.readlink()) if one.is_symlink() else one.read_text()
        for one in folder.rglob("*")
        if one.is_symlink() or one.is_file()
    }


def test_an_installation_has_program_unit_configuration_and_an_open_inbox(tree: Path, tmp_path: Path) -> None:
    done = install(tree, tmp_path, "--name", "aoi-7", "--inbox", "/srv/in box")
    assert done.returncode == 0, done.stderr
    made = contents(tmp_path)
    assert made["opt/station/venv"] == sys.prefix
    assert made["usr/local/bin/station"] == "/opt/station/venv/bin/station"
    assert made["etc/systemd/system/station@.service"] == (ROOT / "systemd" / "station@.service").read_text()
    assert 'ReadWritePaths="-/srv/in box"' in made["etc/systemd/system/station@aoi-7.service.d/inbox.conf"]
    config = tomllib.loads(made["etc/station/aoi-7.toml"])
    assert config["station"] == {
        "name": "aoi-7",
        "topic": "factory/line1/aoi-7",
        "data_dir": "/var/lib/station/aoi-7",
    }
    assert config["source"]["path"] == "/srv/in box"
    assert oct((tmp_path / "srv" / "in box").stat().st_mode & 0o2070) == oct(0o2070)
    assert list((tmp_path / "srv" / "in box").iterdir()) == []
    assert (tmp_path / "etc" / "station" / "aoi-7.toml").stat().st_mode & 0o777 == 0o640


def test_installing_again_changes_nothing_and_keeps_what_a_person_wrote(tree: Path, tmp_path: Path) -> None:
    assert install(tree, tmp_path, "--inbox", "/srv/inbox").returncode == 0
    config = tmp_path / "etc" / "station" / "aoi-1.toml"
    config.write_text("# mine\n")
    own = tmp_path / "etc" / "systemd" / "system" / "station@aoi-1.service.d" / "own.conf"
    own.write_text("[Service]\nNice=5\n")
    before = contents(tmp_path)
    done = install(tree, tmp_path, "--inbox", "/srv/inbox")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path) == before
    assert "stays as it is" in done.stderr
    assert '[source] path = "/srv/inbox"' in done.stderr  # it was asked for, and the person's file does not say it


def test_an_upgrade_takes_the_place_of_an_old_layout_and_of_an_old_unit(tree: Path, tmp_path: Path) -> None:
    unit = tmp_path / "etc" / "systemd" / "system" / "station@.service"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Service]\nExecStart=/old\n")
    old = tmp_path / "opt" / "station" / "venv" / "bin"
    old.mkdir(parents=True)
    done = install(tree, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "opt" / "station" / "venv").readlink() == Path(sys.prefix)
    assert unit.read_text() == (ROOT / "systemd" / "station@.service").read_text()


def test_an_inbox_at_home_is_bound_into_the_sandbox(tree: Path, tmp_path: Path) -> None:
    assert install(tree, tmp_path, "--inbox", "/home/ann/100 %").returncode == 0
    drop_in = (tmp_path / "etc" / "systemd" / "system" / "station@aoi-1.service.d" / "inbox.conf").read_text()
    assert 'ProtectHome=tmpfs\nBindPaths="-/home/ann/100 %%"' in drop_in


def test_a_second_instance_has_its_own_port_topic_and_data(tree: Path, tmp_path: Path) -> None:
    for name in ("aoi-1", "aoi-2"):
        assert install(tree, tmp_path, "--name", name).returncode == 0
    one, two = (
        tomllib.loads((tmp_path / "etc" / "station" / f"{name}.toml").read_text()) for name in ("aoi-1", "aoi-2")
    )
    assert one["http"]["port"] != two["http"]["port"]
    assert one["station"]["topic"] != two["station"]["topic"]
    assert one["station"]["data_dir"] != two["station"]["data_dir"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name", "../etc"], "letters, digits"),
        (["--inbox", "/etc"], "belongs to the system"),
        (["--inbox", "/"], "belongs to the system"),
        (["--inbox", "/var/tmp/boards"], "PrivateTmp"),  # noqa: S108  # the point is that it is refused
        (["--inbox", '/srv/a"b'], "quote"),
        (["--inbox"], "needs a value"),
        (["--wheel", "/no/such.whl"], "no such wheel"),
        (["--frobnicate"], "unknown option"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_written(
    tree: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    done = install(tree, tmp_path, *options)
    assert done.returncode == 1
    assert said in done.stderr
    assert contents(tmp_path) == {}


def test_uninstalling_leaves_configuration_and_data_and_says_where_they_are(tree: Path, tmp_path: Path) -> None:
    assert install(tree, tmp_path, "--inbox", "/srv/inbox").returncode == 0
    data = tmp_path / "var" / "lib" / "station" / "aoi-1" / "ledger.sqlite"
    data.parent.mkdir(parents=True)
    data.write_text("owed")
    board = tmp_path / "srv" / "inbox" / "board.jpg"
    board.write_text("picture")
    done = run(tree / "scripts" / "uninstall", "--prefix", tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(contents(tmp_path)) == {
        "etc/station/aoi-1.toml",
        "etc/systemd/system/station@aoi-1.service.d/inbox.conf",
        "srv/inbox/board.jpg",
        "var/lib/station/aoi-1/ledger.sqlite",
    }
    for kept in ("etc/station", "var/lib/station"):
        assert str(tmp_path / kept) in done.stderr
    assert Path(sys.prefix, "bin", "python").exists()  # the link was removed, not what it led to
    again = run(tree / "scripts" / "uninstall", "--prefix", tmp_path)
    assert again.returncode == 0, again.stderr


def test_the_shipped_configuration_becomes_an_instance(tmp_path: Path) -> None:
    done = install(ROOT, tmp_path, "--name", "aoi-3", "--inbox", "/srv/boards")
    assert done.returncode == 0, done.stderr
    config = tomllib.loads((tmp_path / "etc" / "station" / "aoi-3.toml").read_text())
    assert config["station"]["name"] == "aoi-3"
    assert config["station"]["data_dir"] == "/var/lib/station/aoi-3"
    assert config["source"]["path"] == "/srv/boards"
