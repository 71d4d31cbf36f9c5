"""The image without a container engine: its recipe is read, its entry is run, and its steps are done by hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from station.config import load
from tests.daemon import PATIENCE_S, encoded, picture
from tests.deploy.servers import DEPLOY, ROOT, end, listens, run, throw_away_certificate, trusting
from tests.detectors.models import save_seeing
from tests.mosquitto import free_port
from tests.waiting import until

ENTRY = DEPLOY / "container-entry"
NOBODY = ["setpriv", "--reuid=10001", "--regid=10001", "--clear-groups"]
KEY = re.compile(r"^    (st_\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Step:
    word: str
    rest: str


def recipe() -> list[Step]:
    """The Dockerfile's instructions, each in one line."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return [Step(*line.split(" ", 1)) for line in lines]


def variables() -> dict[str, str]:
    """What the image's environment sets, without what belongs to Python and the shell."""
    (said,) = [one.rest for one in recipe()[last_stage() :] if one.word == "ENV"]
    return dict(pair.split("=", 1) for pair in said.split())


def last_stage() -> int:
    return max(number for number, one in enumerate(recipe()) if one.word == "FROM")


def let_through(path: str) -> bool:
    """Whether .dockerignore gives *path* to the build: it shuts everything out, and opens what it names."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    opened = [line[1:] for line in rules if line.startswith("!")]
    return any(path == one or path.startswith(f"{one}/") for one in opened)


def test_both_stages_stand_on_one_slim_base_of_a_named_version() -> None:
    bases = [one.rest.split()[0] for one in recipe() if one.word == "FROM"]
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", bases[0])


def test_the_image_runs_as_a_numbered_user_who_is_not_root() -> None:
    words = [one.word for one in recipe()]
    (user,) = [one.rest for one in recipe() if one.word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)  # by number: Kubernetes cannot tell what a name means
    assert words.index("USER") > max(number for number, word in enumerate(words) if word in {"RUN", "COPY"})


def test_the_image_says_how_it_is_asked_for_its_health_where_it_listens_and_what_it_writes() -> None:
    said = {one.word: one.rest for one in recipe()[last_stage() :]}
    assert said["HEALTHCHECK"].endswith('CMD ["container-entry", "healthcheck"]')
    assert json.loads(said["ENTRYPOINT"]) == ["container-entry"]  # no shell between: signals reach the station
    assert json.loads(said["CMD"]) == ["serve"]
    assert said["EXPOSE"] == "8000"
    assert json.loads(said["VOLUME"]) == [variables()["STATION_STATION__DATA_DIR"], "/tmp"]  # noqa: S108  # the image's own
    assert said["WORKDIR"] == variables()["STATION_STATION__DATA_DIR"]


def test_no_secret_gets_into_the_image() -> None:
    said = [one for one in recipe() if one.word in {"ENV", "ARG", "LABEL"}]
    assert not [one for one in said if re.search(r"SECRET|PASSWORD|TOKEN|_KEY|CREDENTIAL", one.rest)]
    for path in (".env", "deploy/secrets/station/mqtt-password", ".git/config", "data/keys.json", "tests/conftest.py"):
        assert not let_through(path)


def test_what_is_installed_is_what_was_locked() -> None:
    for one in recipe():
        if one.word != "RUN":
            assert one.word != "ADD"
            continue
        assert not re.search(r"curl|wget|chmod 777|sudo|--upgrade", one.rest)
        for install in re.findall(r"pip install [^&]*", one.rest):
            assert "--require-hashes" in install or "--no-deps" in install
        if "apt-get install" in one.rest:
            assert "--no-install-recommends" in one.rest
            assert "rm -rf /var/lib/apt/lists/*" in one.rest


def test_everything_that_is_copied_is_there_and_let_through() -> None:
    for one in recipe():
        if one.word != "COPY" or "--from" in one.rest:
            continue
        *sources, _ = [word for word in one.rest.split() if not word.startswith("--")]
        for source in sources:
            assert (ROOT / source).exists(), source
            assert let_through(source), source


def test_the_images_own_settings_are_accepted_and_open_it_only_to_who_has_a_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in variables().items():
        if name.startswith("STATION_") and name != "STATION_CONFIG":
            monkeypatch.setenv(name, value)
    settings = load(DEPLOY / "container.toml")
    assert (settings.http.host, settings.http.port, settings.http.auth) == ("0.0.0.0", 8000, "required")  # noqa: S104  # so it is meant
    assert settings.station.data_dir == Path("/var/lib/station")


# --- the entry, as the image runs it


class Container:
    """container-entry with the image's environment; its data lies in *data*."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.data = folder / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        keep = {key: value for key, value in os.environ.items() if key in {"PATH", "LANG", "HOME"}}
        path = f"{ROOT}/.venv/bin:{keep.pop('PATH')}"
        self.environment = (
            keep
            | variables()
            | {
                "PATH": path,
                "STATION_CONFIG": str(DEPLOY / "container.toml"),
                "STATION_STATION__DATA_DIR": str(self.data),
                "STATION_DETECTOR__MODEL": str(save_seeing(folder / "tiny.onnx")),
                "STATION_DETECTOR__BACKEND": "onnxruntime",
                "PORT": str(self.port),
                **environment,
            }
        )

    @contextmanager
    def started(self) -> Iterator[Container]:
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [str(ENTRY), "serve"],
                cwd=self.data,
                env=self.environment,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            until(self.is_ready, within_s=PATIENCE_S, what=f"the container to be ready ({self.said()})")
            yield self
        finally:
            end(self._process)

    def is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.said()
        return listens(self.port) and self.call("healthcheck").returncode == 0

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(ENTRY), *words],
            cwd=self.data,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def predict(self, key: str | None) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{self.port}/predict",
            files={"file": ("board.png", encoded(picture(1)))},
            headers={} if key is None else {"X-API-Key": key},
            timeout=30.0,
            trust_env=False,
        )


def test_the_first_start_makes_a_key_and_says_it_once_and_strangers_stay_outside(tmp_path: Path) -> None:
    container = Container(tmp_path)
    assert container.call("healthcheck").returncode == 1  # nobody there yet
    with container.started():
        (key,) = KEY.findall(container.said())
        assert container.predict(key).json()["verdict"] == "fail"
        assert container.predict(None).status_code == httpx.codes.UNAUTHORIZED
    kept = container.data / "keys.json"
    assert key not in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0
    with container.started():
        assert container.said().count(key) == 1
        assert container.predict(key).status_code == httpx.codes.OK
    assert container.said().count("this is the API key") == 1


def test_with_a_secret_for_tokens_no_key_is_made(tmp_path: Path) -> None:
    container = Container(tmp_path, SECRET_KEY="7d0f3c5c0b6f4d0bb9c1a7d2a0f6e4b3c2d1e0f9a8b7c6d5")
    with container.started():
        made = container.call("token", "create", "somebody", "--scope", "predict")
        assert made.returncode == 0, made.stderr
        answer = httpx.post(
            f"http://127.0.0.1:{container.port}/predict",
            files={"file": ("board.png", encoded(picture(1)))},
            headers={"Authorization": f"Bearer {made.stdout.strip()}"},
            timeout=30.0,
            trust_env=False,
        )
        assert answer.status_code == httpx.codes.OK
    assert not (container.data / "keys.json").exists()
    assert "7d0f3c5c" not in container.said()


def test_the_health_check_speaks_tls_where_the_station_does(tmp_path: Path) -> None:
    cert, key = throw_away_certificate(tmp_path)
    container = Container(tmp_path, STATION_HTTP__CERT_FILE=str(cert), STATION_HTTP__KEY_FILE=str(key))
    with container.started():
        assert (
            httpx.get(f"https://127.0.0.1:{container.port}/livez", verify=trusting(cert), trust_env=False).text
            == "ok\n"
        )


def test_the_guides_own_secret_is_refused(tmp_path: Path) -> None:
    done = Container(tmp_path, SECRET_KEY="your-secret-key-here").call("serve")
    assert done.returncode == 2
    assert "stands in a public guide" in done.stderr


def test_a_volume_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path) -> None:
    container = Container(tmp_path)
    container.data.chmod(0o555)
    command = [*(NOBODY if os.geteuid() == 0 else []), "sh", "-s", "serve"]
    with ENTRY.open() as script:
        done = subprocess.run(
            command, stdin=script, cwd="/", env=container.environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 2
    assert f"{container.data} cannot be written by user" in done.stderr
    assert "chown" in done.stderr


# --- the steps, done by hand


def context(folder: Path) -> Path:
    """What the build gets to see."""
    for path in (ROOT / ".dockerignore").read_text().splitlines():
        if path.startswith("!"):
            source, target = ROOT / path[1:], folder / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
    return folder


@pytest.fixture(scope="module")
def by_hand() -> Iterator[Path]:
    """A folder outside /tmp, open to every user, in which the build stage was done as the Dockerfile says."""
    folder = Path(tempfile.mkdtemp(prefix="station-image-", dir="/var/tmp"))  # /tmp will be a tmpfs
    folder.chmod(0o755)
    found = run("bash", "-c", f"source {ROOT}/scripts/lib.sh; find_python system")
    assert found.returncode == 0, found.stderr
    python = found.stdout.strip()
    build = context(folder / "build")
    for step in recipe()[: last_stage()]:
        if step.word == "RUN":
            command = step.rest.replace("python -m venv", f"{python} -m venv")
            command = command.replace("/opt/station", f"{folder}/opt").replace("/build/", f"{build}/")
            done = subprocess.run(
                ["sh", "-euc", command], cwd=build, capture_output=True, text=True, timeout=1200, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    shutil.rmtree(build / "tools")
    yield folder
    shutil.rmtree(folder)


def confined(folder: Path, script: str) -> list[str]:
    """*script* as the container's user on a read-only root file system, with ``data`` and /tmp alone to write to."""
    if os.geteuid() != 0:
        return ["sh", "-euc", script]
    shut = (
        f"mount --bind {folder}/data {folder}/data; mount -t tmpfs tmpfs /tmp; mount -o remount,bind,ro /; "
        f"if touch {folder}/probe 2>/dev/null; then echo the root file system can be written; exit 9; fi; "
    )
    return ["unshare", "--mount", "sh", "-euc", f"{shut} exec {' '.join(NOBODY)} sh -euc '{script}'"]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", ["serve --workers 2", "run"])
def test_what_the_image_installs_works_as_another_user_on_a_read_only_file_system(by_hand: Path, command: str) -> None:
    data = by_hand / "data"
    shutil.rmtree(data, ignore_errors=True)
    (data / "inbox").mkdir(parents=True)
    for one in (data, data / "inbox") if os.geteuid() == 0 else ():
        os.chown(one, 10001, 10001)
    port = free_port()
    environment = variables() | {
        "PATH": f"{by_hand}/opt/venv/bin:/usr/bin:/bin",
        "HOME": str(data),
        "STATION_CONFIG": str(by_hand / "build" / "deploy" / "container.toml"),
        "STATION_STATION__DATA_DIR": str(data),
        "STATION_SOURCE__PATH": str(data / "inbox"),
        "PORT": str(port),
    }
    log = by_hand / f"log-{command[:3]}"
    script = f"cd {by_hand}; exec {by_hand}/build/deploy/container-entry {command}"
    with log.open("ab") as out:
        process = subprocess.Popen(
            confined(by_hand, script), env=environment, stdout=out, stderr=out, start_new_session=True
        )

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        return listens(port) and httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).is_success

    try:
        until(ready, within_s=PATIENCE_S, what="the installed station to be ready")
        (key,) = KEY.findall(log.read_text())
        board = (ROOT / "station" / "assets" / "samples").glob("*.jpg")
        answer = httpx.post(
            f"http://127.0.0.1:{port}/predict",
            files={"file": ("board.jpg", next(board).read_bytes())},
            headers={"X-API-Key": key},
            timeout=60.0,
            trust_env=False,
        )
        assert answer.status_code == httpx.codes.OK, answer.text
        assert answer.json()["verdict"] in {"pass", "fail"}
    finally:
        end(process)
    assert process.returncode == 0, log.read_text()
