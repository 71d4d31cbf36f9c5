"""Who pretends to be the broker: refused before a word is said, in words that tell a person what to mend."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.daemon import PATIENCE_S, Daemon, drop, encoded, picture
from tests.mosquitto import Mosquitto
from tests.waiting import until

DAY = timedelta(days=1)
NOW = datetime.now(timezone.utc)


class Issuer:
    """A certificate authority whose file is *folder*/ca.pem."""

    def __init__(self, folder: Path, name: str = "plant authority") -> None:
        folder.mkdir()
        self.file = folder / "ca.pem"
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file.write_bytes(self._signed(self._name, self._key, (-DAY, DAY), authority=True))

    def certify(
        self, *, alternative: str = "127.0.0.1", valid: tuple[timedelta, timedelta] = (-DAY, DAY), itself: bool = False
    ) -> tuple[Path, Path]:
        """A certificate for the address *alternative* and its key; *itself*: signed by nobody else."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
        cert_file, key_file = self._folder / "broker.pem", self._folder / "broker.key"
        cert_file.write_bytes(self._signed(name, key, valid, alternative=alternative, signer=key if itself else None))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return cert_file, key_file

    def _signed(
        self,
        name: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        valid: tuple[timedelta, timedelta],
        *,
        alternative: str | None = None,
        signer: ec.EllipticCurvePrivateKey | None = None,
        authority: bool = False,
    ) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name if signer is None else name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + valid[0])
            .not_valid_after(NOW + valid[1])
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if alternative is not None:
            names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(alternative))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(signer or self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "ca")


def broker_with(folder: Path, files: tuple[Path, Path]) -> Mosquitto:
    return Mosquitto(folder, lines=[f"certfile {files[0]}", f"keyfile {files[1]}"])


def refusal(folder: Path, port: int, authority: Issuer | None) -> str:
    """What ``station check`` and the running station's health say of the broker; nothing was delivered to it."""
    mqtt = {"tls": True, **({} if authority is None else {"ca_file": str(authority.file)})}
    with Daemon(folder / "station", broker_port=port, changes={"mqtt": mqtt}) as station:
        checked = station.call("check")
        station.start()
        drop(station.inbox, "board.png", encoded(picture(1)))
        until(lambda: station.files("done"), within_s=PATIENCE_S, what="the board, whatever the broker is")

        def notes() -> list[str]:
            said: list[str] = station.get("/health").json()["notes"]
            return [one for one in said if one.startswith("broker")]

        until(notes, within_s=PATIENCE_S, what="a word about the broker")
        assert station.metric("station_outbox_events") >= 1
        line = next(one for one in checked.stdout.splitlines() if "roker" in one)
        return f"{line}\n{notes()[0]}"


def test_a_broker_with_a_good_certificate_is_believed(tmp_path: Path, issuer: Issuer) -> None:
    mqtt = {"tls": True, "ca_file": str(issuer.file)}
    with (
        broker_with(tmp_path / "broker", issuer.certify()) as broker,
        Daemon(tmp_path / "station", broker_port=broker.port, changes={"mqtt": mqtt}) as station,
    ):
        station.start()
        drop(station.inbox, "board.png", encoded(picture(1)))
        acked = 'station_mqtt_publishes_total{outcome="acked"}'
        until(lambda: station.metric(acked) == 1, within_s=PATIENCE_S, what="the event's acknowledgement")


EXPIRED, EARLY = (-2 * DAY, -DAY), (DAY, 2 * DAY)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"valid": EXPIRED}, "certificate has expired"),
        pytest.param({"valid": EARLY}, "certificate is not yet valid", marks=pytest.mark.long),
        ({"alternative": "127.0.0.2"}, "certificate is not valid for '127.0.0.1'"),
        ({"itself": True}, "self-signed certificate"),
    ],
    ids=["expired", "too early", "wrong name", "self-signed"],
)
def test_a_certificate_that_proves_nothing_is_refused(
    tmp_path: Path, issuer: Issuer, options: dict[str, bool], said: str
) -> None:
    with broker_with(tmp_path / "broker", issuer.certify(**options)) as broker:  # type: ignore[arg-type]  # a table
        words = refusal(tmp_path, broker.port, issuer)
        assert words.count(said) == 2, words
        assert "OK" not in broker.log()


@pytest.mark.long
def test_an_authority_that_nobody_told_us_of_is_refused(tmp_path: Path, issuer: Issuer) -> None:
    with broker_with(tmp_path / "broker", issuer.certify()) as broker:
        words = refusal(tmp_path, broker.port, Issuer(tmp_path / "other", "plant authority"))
        assert "certificate" in words, words


@contextmanager
def old_server(files: tuple[Path, Path], version: ssl.TLSVersion) -> Iterator[int]:
    """Something that speaks nothing newer than *version*, to anybody who will."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(*files)
    with pytest.warns(DeprecationWarning, match="TLS"):
        context.minimum_version = context.maximum_version = version
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                with suppress(OSError):
                    plain, _ = listener.accept()
                    with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                        secured.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stop.set()
            with suppress(OSError), socket.create_connection(listener.getsockname()):
                pass
            thread.join()


@pytest.mark.parametrize(
    "version", [pytest.param(ssl.TLSVersion.TLSv1, marks=pytest.mark.long), ssl.TLSVersion.TLSv1_1], ids=str
)
def test_an_old_tls_is_refused_though_both_ends_could_speak_it(
    tmp_path: Path, issuer: Issuer, version: ssl.TLSVersion
) -> None:
    with old_server(issuer.certify(), version) as port:
        lenient = ssl.create_default_context(cafile=str(issuer.file))
        lenient.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLS"):
            lenient.minimum_version = version
        with socket.create_connection(("127.0.0.1", port)) as plain:
            lenient.wrap_socket(plain, server_hostname="127.0.0.1").close()
        words = refusal(tmp_path, port, issuer)
        assert len(re.findall("(?i)protocol|version", words)) >= 2, words
