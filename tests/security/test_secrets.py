"""Secrets of every kind are sown, everything that a station writes or shows is gathered, and none may be in it."""

from __future__ import annotations

import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.daemon import PATIENCE_S, Daemon, Overrides, Subscriber
from tests.deploy.servers import program, run, trusting
from tests.mjpeg_server import MjpegServer
from tests.mosquitto import Mosquitto, free_port
from tests.security.processes import with_children
from tests.security.test_broker_tls import Issuer
from tests.waiting import until

WATCHER = "watcher-password"
PATHS = (
    *("/", "/docs", "/redoc", "/openapi.json", "/health", "/metrics"),
    *("/livez?verbose=1", "/readyz?verbose=1", "/boards", "/nowhere"),
)


class Sown:
    """Secrets by what they are for, each in a file of its own in *folder*."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.texts: dict[str, str] = {}

    def file(self, name: str) -> Path:
        self.texts[name] = f"seed-{secrets.token_hex(20)}"
        path = self._folder / name
        path.write_text(self.texts[name] + "\n")
        path.chmod(0o600)
        return path

    def found_in(self, data: bytes) -> list[str]:
        return [name for name, text in self.texts.items() if text.encode() in data]


def processes(pid: int) -> Iterator[tuple[str, bytes]]:
    """What every user of the machine sees of the station and its children, and what its own user sees."""
    for one in with_children(pid):
        for what in ("cmdline", "environ", "comm", "status"):
            yield f"/proc/{one}/{what}", Path(f"/proc/{one}/{what}").read_bytes()


def archived(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            file = tar.extractfile(member)
            yield f"{path.name}: {member.name}", b"" if file is None else file.read()


@pytest.fixture
def sown(tmp_path: Path) -> Sown:
    return Sown(tmp_path / "secrets")


@pytest.fixture
def broker(tmp_path: Path, sown: Sown) -> Iterator[Mosquitto]:
    passwords = tmp_path / "passwords"
    sown.file("mqtt")
    for user, password, more in (("aoi-1", sown.texts["mqtt"], ["-c"]), ("watcher", WATCHER, [])):
        made = run(program("mosquitto_passwd"), "-b", *more, passwords, user, password)
        assert made.returncode == 0, made.stderr
    passwords.chmod(0o600)
    with Mosquitto(tmp_path / "broker", anonymous=False, lines=[f"password_file {passwords}"]) as one:
        yield one


def test_no_secret_is_written_or_shown_anywhere(tmp_path: Path, sown: Sown, broker: Mosquitto) -> None:
    camera_login = sown.file("camera")
    issuer = Issuer(tmp_path / "ca")
    cert_file, key_file = issuer.certify()
    sown.texts["private key"] = "".join(key_file.read_text().splitlines()[1:2])
    with MjpegServer(login=f"station:{sown.texts['camera']}") as camera:
        changes: Overrides = {
            "log": {"level": "debug"},
            "mqtt": {"username": "aoi-1", "password_file": str(tmp_path / "secrets" / "mqtt")},
            "source": {
                "kind": "camera",
                "device": camera.url,
                "username": "station",
                "password_file": str(camera_login),
                "frozen_s": 0,
                "path": None,
                "scan_s": None,
            },
            "trigger": {"kind": "interval", "interval_s": 0.3},
            "http": {
                "auth": "required",
                "jwt_secret_file": str(sown.file("jwt")),
                "redis": f"redis://127.0.0.1:{free_port()}/0",
                "redis_password_file": str(sown.file("redis")),
                "cert_file": str(cert_file),
                "key_file": str(key_file),
            },
        }
        with (
            Subscriber(broker.port, username="watcher", password=WATCHER) as subscriber,
            Daemon(tmp_path / "station", broker_port=broker.port, changes=changes) as station,
        ):
            shown: dict[str, bytes] = {}
            sown.texts["key"] = key = station.call(
                "key", "create", "plc", "--scope", "read", "--scope", "predict"
            ).stdout.strip()
            shown["key list"] = station.call("key", "list").stdout.encode()
            sown.texts["token"] = station.call("token", "create", "plc", "--scope", "read").stdout.strip()
            station.start(wait=False)
            with httpx.Client(
                base_url=f"https://127.0.0.1:{station.http_port}",
                verify=trusting(issuer.file),
                timeout=PATIENCE_S,
                trust_env=False,
            ) as http:
                until(lambda: subscriber.events() and subscriber.below("heartbeat"), within_s=PATIENCE_S, what="boards")
                for token in (key, sown.texts["token"], key[:-1] + "x", sown.texts["token"][:-5], "x"):
                    for path in PATHS:
                        said = http.get(path, headers={"Authorization": f"Bearer {token}"})
                        shown[f"{path} {said.status_code}"] = said.content + str(said.headers).encode()
                answer = http.post("/token", headers={"X-API-Key": key})
                sown.texts["issued token"] = answer.json()["access_token"]
                assert (
                    http.get("/boards", headers={"Authorization": f"Bearer {sown.texts['issued token']}"}).status_code
                    == 200
                )
                http.post("/login", data={"key": key})
                shown["/login with a wrong key"] = http.post("/login", data={"key": "st_wrong"}).content
            shown.update(processes(station.process.pid))
            assert len(with_children(station.process.pid)) > 1, "the camera has a process of its own"
            for command in ("check", "ledger status", "ledger list", "ledger export out.csv", "backup plain.tar.gz"):
                done = station.call(*command.split())
                shown[f"station {command}"] = (done.stdout + done.stderr).encode()
            assert station.call("backup", "--secrets", "whole.tar.gz").returncode == 0
            wrong = station.call("check", "--set", f"source.device=http://station:{sown.texts['camera']}@camera/")
            shown["a login where none belongs"] = (wrong.stdout + wrong.stderr).encode()
            wrong = station.call("check", "--set", f"http.redis=redis://:{sown.texts['redis']}@localhost/0")
            shown["a password where none belongs"] = (wrong.stdout + wrong.stderr).encode()
            broker.kill()
            until(lambda: "broker_away" in station.text(), within_s=PATIENCE_S, what="the fault")
            assert station.stop() == 0
            shown["log"] = station.text().encode()
            shown["broker's log"] = broker.log().encode()
            shown.update({one.topic: one.payload for one in subscriber.messages})
            shown.update(archived(station.folder / "plain.tar.gz"))
            for one in (*station.data_dir.rglob("*"), station.folder / "out.csv", station.config):
                if one.is_file():
                    shown[str(one)] = one.read_bytes()
    assert {where: found for where, data in shown.items() if (found := sown.found_in(data))} == {}
    assert {"/health 200", "/openapi.json 200", "/metrics 200", "/boards 401"} <= set(shown)
    kept = {name for _, data in archived(station.folder / "whole.tar.gz") for name in sown.found_in(data)}
    assert kept == {"mqtt", "camera", "jwt", "redis", "private key"}, "what was looked for can be found"


def test_an_encrypted_key_is_refused_and_its_passphrase_never_asked_for(tmp_path: Path) -> None:
    cert_file, key_file = Issuer(tmp_path / "ca").certify()
    locked = tmp_path / "locked.key"
    made = run(program("openssl"), "pkey", "-in", key_file, "-aes256", "-passout", "pass:not-for-logs", "-out", locked)
    assert made.returncode == 0, made.stderr
    for section, keys in (("http", {}), ("mqtt", {"tls": True})):
        files = {"cert_file": str(cert_file), "key_file": str(locked), **keys}
        with Daemon(tmp_path / section, changes={section: files}) as station:
            done = station.call("check")
            said = done.stdout + done.stderr
            assert str(locked) in said
            assert "not-for-logs" not in said
