"""TLS on the HTTP port: good files, renewed files, and files that do not do."""

from __future__ import annotations

import os
import re
import socket
import ssl
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from station.errors import ConfigError
from station.web import connections
from station.web.tls import ServerTls
from tests.security.raw import connected, descriptors, is_closed, rest, statuses
from tests.waiting import until
from tests.web.ports import Served


def pair(folder: Path, *, password: bytes | None = None, days: int = 1) -> tuple[Path, Path, int]:
    """A certificate for 127.0.0.1 that signs itself, its key, and its serial number."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "station")])
    now, serial = datetime.now(timezone.utc), x509.random_serial_number()
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), serial, now - timedelta(days=9), now + timedelta(days=days)
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    cert = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    folder.mkdir(exist_ok=True)
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    return *files, serial


def serial_of(url: str) -> int:
    host, _, port = url.removeprefix("https://").partition(":")
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode()).serial_number


def test_the_port_speaks_tls_and_serves_a_renewed_certificate_without_a_restart(tmp_path: Path) -> None:
    cert, key, serial = pair(tmp_path / "now")
    served = Served(tmp_path, cert_file=cert, key_file=key)
    with served.client(verify=ssl.create_default_context(cafile=str(cert))) as client:
        assert client.get("/docs").status_code == 200
        assert serial_of(served.url) == serial
        assert served._tls is not None
        served._tls.stop()
        served._tls._stop.clear()
        served._tls.watch(every_s=0.01)
        new_cert, new_key, new_serial = pair(tmp_path / "new")
        new_cert.replace(cert)  # half renewed: the old pair serves on
        new_key.replace(key)
        until(lambda: serial_of(served.url) == new_serial)


def test_files_that_are_away_damaged_encrypted_or_of_two_pairs_are_named(tmp_path: Path) -> None:
    cert, key, _ = pair(tmp_path / "one")
    other_cert, other_key, _ = pair(tmp_path / "two")
    _, locked_key, _ = pair(tmp_path / "three", password=b"secret")
    for given, said in (
        ((tmp_path / "away.pem", key), "cannot be read"),
        ((cert, other_key), "do not belong together"),
        ((other_cert, key), "do not belong together"),
        ((key, cert), "damaged"),
        ((cert, locked_key), "encrypted"),
    ):
        with pytest.raises(ConfigError, match=said):
            ServerTls(*given)


def test_nobody_is_turned_away_while_a_certificate_is_renewed(tmp_path: Path) -> None:
    pairs = [pair(tmp_path / str(number)) for number in range(20)]
    cert, key, _ = pair(tmp_path / "now")
    served = Served(tmp_path, cert_file=cert, key_file=key)
    with served.client(verify=False):
        assert served._tls is not None
        served._tls.stop()
        served._tls._stop.clear()
        served._tls.watch(every_s=0.001)
        for new_cert, new_key, serial in pairs:
            new_cert.replace(cert)
            new_key.replace(key)
            until(lambda serial=serial: serial_of(served.url) == serial)  # type: ignore[misc]  # no type for a default


def test_a_certificate_that_has_expired_is_told_with_the_day_and_does_not_stop_the_line(tmp_path: Path) -> None:
    cert, key, _ = pair(tmp_path / "old", days=-2)
    with capture_logs() as logs:
        found = ServerTls(cert, key)
    assert re.search(r"has expired on \d{4}-\d\d-\d\d: renew it", str(found.expired))
    assert [one["event"] for one in logs] == ["certificate expired"]


def test_old_versions_of_tls_are_not_spoken(tmp_path: Path) -> None:
    cert, key, _ = pair(tmp_path / "one")
    tls = ServerTls(cert, key)
    assert tls.context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls._newest.minimum_version == ssl.TLSVersion.TLSv1_2


def half_a_handshake(port: int) -> socket.socket:
    sock = connected(port)
    sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # a ClientHello of 512 bytes that never comes
    return sock


def test_handshakes_that_are_begun_and_left_shut_nobody_out(tmp_path: Path) -> None:
    cert, key, _ = pair(tmp_path)
    served = Served(tmp_path, cert_file=cert, key_file=key)
    with ExitStack() as stack, served.client(verify=ssl.create_default_context(cafile=str(cert))) as client:
        port = served.settings.http.port
        horde = [stack.enter_context(half_a_handshake(port)) for _ in range(300)]
        assert client.get("/openapi.json").status_code == 200
        assert sum(map(is_closed, horde)) >= 300 - connections.MAX_CONNECTIONS
        assert descriptors(os.getpid()) < 2 * 300  # both ends of a connection are this process's


@pytest.mark.parametrize("what", ["half of it", "nothing", "noise", "plain HTTP"])
def test_who_does_not_finish_his_handshake_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    monkeypatch.setattr(connections, "ASK_S", 0.5)
    cert, key, _ = pair(tmp_path)
    served = Served(tmp_path, cert_file=cert, key_file=key)
    with served.client(verify=ssl.create_default_context(cafile=str(cert))) as client:
        assert client.get("/openapi.json").status_code == 200
        before = descriptors(os.getpid())
        with connected(served.settings.http.port) as sock:
            sent = {
                "half of it": b"\x16\x03\x01\x02\x00",
                "noise": bytes(range(256)),
                "plain HTTP": b"GET / HTTP/1.1\r\n\r\n",
            }
            sock.sendall(sent.get(what, b""))
            assert statuses(rest(sock)) == []
        assert client.get("/openapi.json").status_code == 200
        until(lambda: descriptors(os.getpid()) <= before, what="the descriptors back")
    assert "Traceback" not in caplog.text


def shaken(connection: ssl.SSLObject) -> bool:
    """Whether the handshake is over; its last words may still have to be sent."""
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def test_a_request_on_the_heels_of_the_handshake_is_answered(tmp_path: Path) -> None:
    cert, key, _ = pair(tmp_path)
    served = Served(tmp_path, cert_file=cert, key_file=key)
    with served.client(verify=False), connected(served.settings.http.port) as sock:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        shaking = ssl.create_default_context(cafile=str(cert)).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        while not shaken(shaking):
            sock.sendall(outgoing.read())
            incoming.write(sock.recv(65536))
        shaking.write(b"GET /openapi.json HTTP/1.1\r\nHost: station\r\nConnection: close\r\n\r\n")
        sock.sendall(outgoing.read())  # the end of the handshake and the request, in one
        incoming.write(rest(sock))
        assert statuses(shaking.read()) == [200]
