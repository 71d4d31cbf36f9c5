"""Real servers with the files of deploy/, in which only ports, addresses and folders are replaced."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

from tests.daemon import PATIENCE_S, Daemon
from tests.mosquitto import WHERE
from tests.waiting import until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def program(name: str) -> str:
    """Where *name* is. Without it the test is skipped on a laptop, and fails in CI."""
    found = shutil.which(name, path=WHERE)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{name} is missing, and in CI it must be there")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """*text* with each of *changes*. What is not there is an error: the file has changed, and the test must know."""
    for old, new in changes.items():
        assert old in text, f"{old} does not stand in the file any more"
        text = text.replace(old, new)
    return text


def documents(path: Path) -> list[Any]:
    """The YAML documents in *path*."""
    return list(yaml.safe_load_all(path.read_text()))


def run(*command: str | Path, within_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=within_s, check=False)


def listens(port: int, *, host: str = "127.0.0.1") -> bool:
    with socket.socket() as sock:
        sock.settimeout(5.0)
        return sock.connect_ex((host, port)) == 0


@contextmanager
def started(
    command: Sequence[str | Path],
    *,
    port: int,
    log: Path,
    host: str = "127.0.0.1",
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """*command*, answering on *port*, its group gone at the end. What it says goes to *log*."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=environment
        )
    try:
        until(
            lambda: process.poll() is not None or listens(port, host=host),
            within_s=PATIENCE_S,
            what=f"port {port} of {command[0]} ({log.read_text(errors='replace')[-2000:]})",
        )
        assert process.poll() is None, f"{command[0]} ended: {log.read_text(errors='replace')[-2000:]}"
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end, and all that it started; after a while nobody is asked any more."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_S)


@contextmanager
def serving(daemon: Daemon, *, workers: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """``station serve`` on *daemon*'s configuration, ready."""
    command = daemon.command("serve", "--workers", str(workers))
    log = daemon.folder / "serve.log"
    with started(command, port=daemon.http_port, log=log, environment=daemon.environment()) as process:
        until(lambda: daemon.status("/readyz") == httpx.codes.OK, within_s=PATIENCE_S, what=f"/readyz of {command}")
        yield process


def throw_away_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    made = run(
        *(program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-subj", "/CN=localhost", "-addext", names, "-keyout", key, "-out", cert),
    )
    assert made.returncode == 0, made.stderr
    return cert, key


def trusting(cert: Path) -> ssl.SSLContext:
    """What a client needs that trusts *cert* and nobody else."""
    return ssl.create_default_context(cafile=str(cert))
