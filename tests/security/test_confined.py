"""The real service under the unit's own system-call filter, without capabilities, on a read-only system."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import httpx
import pytest

from tests.daemon import PATIENCE_S, Daemon, Overrides, drop, encoded, picture
from tests.deploy.servers import ROOT, program, serving
from tests.mosquitto import Mosquitto
from tests.plc import Plc
from tests.security.confined import DEVICES, allowed_calls, may_mount
from tests.security.processes import with_children
from tests.test_systemd import tool
from tests.waiting import until

CONFINED = ("-m", "tests.security.confined")
NEVER = (
    *("ptrace", "process_vm_readv", "mount", "umount2", "pivot_root", "chroot", "kexec_load", "bpf", "perf_event_open"),
    *("init_module", "finit_module", "delete_module", "reboot", "swapon", "settimeofday", "clock_settime", "iopl"),
    *(
        "ioperm",
        "acct",
        "setuid",
        "setgid",
        "keyctl",
        "add_key",
        "process_vm_writev",
        "sched_setscheduler",
        "setpriority",
    ),
)


@pytest.fixture(scope="module", autouse=True)
def _systemd() -> None:
    tool("systemd-analyze")


@pytest.fixture
def confined(tmp_path: Path) -> dict[str, str]:
    """The environment for a station in tmp_path/station. Who may not mount gets the filter alone."""
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    if may_mount():
        folders = [tmp_path / "station" / one for one in ("data", "inbox")]
        for one in folders:
            one.mkdir(parents=True)
        environment |= {"WRITABLE": ":".join(map(str, folders)), "TMPDIR": "/var/tmp"}  # noqa: S108  # a private one
    return environment


def test_a_folder_station_works_in_confinement(tmp_path: Path, confined: dict[str, str]) -> None:
    with (
        Mosquitto(tmp_path / "broker") as broker,
        Daemon(
            tmp_path / "station",
            broker_port=broker.port,
            changes={"evidence": {"keep": "all"}, "detector": {"threads": 0}},
            environment=confined,
            program=CONFINED,
        ) as station,
    ):
        station.start()
        for number in range(5):
            drop(station.inbox, f"{number}.png", encoded(picture(number)))
        drop(station.inbox, "broken.jpg", b"\xff\xd8\xff" + b"x" * 100)
        until(lambda: len(station.files("done")) == 5, within_s=PATIENCE_S, what="five boards")
        until(lambda: station.metric('station_mqtt_publishes_total{outcome="acked"}') >= 5, within_s=PATIENCE_S)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{station.http_port}", timeout=PATIENCE_S, trust_env=False
        ) as http:
            for path in ("/", "/docs", "/openapi.json", "/metrics", "/health", "/page/page.js"):
                assert http.get(path).status_code == httpx.codes.OK, path
            event_id = http.get("/boards").json()["boards"][0]["event_id"]
            assert http.get(f"/boards/{event_id}/image").status_code == httpx.codes.OK
            sent = http.post("/predict-image", files={"file": ("a.png", encoded(picture(9)))})
            assert sent.status_code == httpx.codes.OK
        assert station.call("ledger", "status").returncode == 0
        assert station.call("check").returncode == 0
        assert station.stop() == 0
        untroubled(station)


@pytest.mark.parametrize("kind", [pytest.param("folder", marks=pytest.mark.long), "film"])
def test_a_line_with_camera_and_serial_ports_works_in_confinement(
    tmp_path: Path, confined: dict[str, str], kind: str
) -> None:
    camera = tmp_path / "camera"
    camera.mkdir()
    cv2.imwrite(str(camera / "0.png"), picture(1))
    if kind == "film":
        camera = camera / "film.avi"
        film = cv2.VideoWriter(str(camera), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 64))
        for number in range(5):
            film.write(picture(number))
        film.release()
    with Plc(tmp_path) as plc:
        changes: Overrides = {
            "mqtt": {"enabled": False},
            "source": {"kind": "camera", "device": str(camera), "frozen_s": 0, "path": None, "scan_s": None},
            "trigger": {"kind": "serial", "answer_ms": 20_000},
            "gate": {"kind": "serial", "heartbeat_s": 0.2},
            "serial": {"port": str(plc.port)},
        }
        with Daemon(tmp_path / "station", changes=changes, environment=confined, program=CONFINED) as station:
            station.start()
            plc.wait_for("READY")
            for number in range(1, 4):
                plc.say(b"T%d\r" % number)
                until(lambda: any(text == f"F{number}" for text in plc.texts()), within_s=PATIENCE_S, what="an answer")  # noqa: B023  # waited for in this turn
            assert station.stop() == 0
            untroubled(station)


def test_openvino_works_in_confinement(tmp_path: Path, confined: dict[str, str]) -> None:
    pytest.importorskip("openvino")
    changes: Overrides = {"mqtt": {"enabled": False}, "detector": {"backend": "openvino", "threads": 0}}
    with Daemon(tmp_path / "station", changes=changes, environment=confined, program=CONFINED) as station:
        station.start()
        drop(station.inbox, "board.png", encoded(picture(1)))
        until(lambda: station.files("done"), within_s=PATIENCE_S, what="the board")
        assert station.stop() == 0
        untroubled(station)


def test_serve_works_in_confinement(tmp_path: Path, confined: dict[str, str]) -> None:
    daemon = Daemon(tmp_path / "station", changes={"mqtt": {"enabled": False}}, environment=confined, program=CONFINED)
    with serving(daemon, workers=2):
        url = f"http://127.0.0.1:{daemon.http_port}/predict"
        for number in range(4):
            said = httpx.post(
                url, files={"file": ("a.png", encoded(picture(number)))}, timeout=PATIENCE_S, trust_env=False
            )
            assert said.status_code == httpx.codes.OK


def untroubled(station: Daemon) -> None:
    troubled = [line for line in station.log() if line["level"] in {"error", "critical"}]
    assert not [line for line in troubled if "broken.jpg" not in str(line)], troubled


def test_what_a_station_never_needs_is_refused(confined: dict[str, str]) -> None:
    tries = f"""
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
seccomp = ctypes.CDLL("libseccomp.so.2")
said = {{}}
for name in {NEVER!r}:
    number = seccomp.seccomp_syscall_resolve_name(name.encode())
    said[name] = None if libc.syscall(number, -1, -1, -1, -1, -1) != -1 else errno.errorcode[ctypes.get_errno()]
for family in ("AF_NETLINK", "AF_PACKET", "AF_ALG", "AF_VSOCK"):
    try:
        socket.socket(getattr(socket, family), socket.SOCK_RAW).close()
        said[family] = None
    except OSError as error:
        said[family] = errno.errorcode[error.errno]
for path in ("/etc/station-was-here", "/usr/station-was-here"):
    try:
        open(path, "w").close()
        os.unlink(path)
        said[path] = None
    except OSError as error:
        said[path] = errno.errorcode[error.errno]
said["devices"] = sorted(set(os.listdir("/dev")) - {{*{DEVICES!r}, "pts", "shm", "fd", "ptmx"}})
said["capabilities"] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")][0]
print(json.dumps(said))
"""
    done = subprocess.run(
        [sys.executable, *CONFINED, "-c", tries],
        env={**os.environ, **confined},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    devices, capabilities = said.pop("devices"), said.pop("capabilities")
    files = [said.pop(path) for path in ("/etc/station-was-here", "/usr/station-was-here")]
    assert {name: code for name, code in said.items() if code != "EPERM"} == {}
    if "WRITABLE" in confined:
        assert (devices, int(capabilities, 16), files) == ([], 0, ["EROFS", "EROFS"])


REFUSED_KNOWINGLY = {
    *("sched_setaffinity", "sched_setscheduler", "set_mempolicy", "mbind"),  # libraries pin threads where they may
    "clock_adjtime",  # station/clock.py asks it first, then systemd's mark, then systemd
    "fchown",  # SQLite, when root runs it
}


def test_every_system_call_of_a_station_is_in_the_units_filter(tmp_path: Path) -> None:
    """What is refused may be missed only years later, in some corner of a library: so nothing unknown is."""
    counts = tmp_path / "calls"
    with Daemon(tmp_path / "station", changes={"mqtt": {"enabled": False}, "detector": {"threads": 0}}) as station:
        traced = [program("strace"), "-f", "-qq", "-c", "-U", "name,calls", "-o", str(counts)]
        with (tmp_path / "log").open("wb") as out:
            process = subprocess.Popen(
                [*traced, *station.command("run")],
                cwd=station.folder,
                env=station.environment(),
                stdout=out,
                stderr=out,
            )
        try:
            until(lambda: station.status("/readyz") == httpx.codes.OK, within_s=2 * PATIENCE_S, what="/readyz")
            drop(station.inbox, "board.png", encoded(picture(1)))
            until(lambda: station.files("done"), within_s=PATIENCE_S, what="the board")
            os.kill(with_children(process.pid)[1], signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            if process.poll() is None:
                for one in reversed(with_children(process.pid)):
                    os.kill(one, signal.SIGKILL)
                process.wait(PATIENCE_S)
    words = [line.split() for line in counts.read_text().splitlines()]
    made = {one[0] for one in words if len(one) == 2 and one[1].isdigit()} - {"total"}
    assert len(made) > 50, counts.read_text()
    assert made - allowed_calls() - REFUSED_KNOWINGLY == set()
    assert not set(NEVER) & allowed_calls()
