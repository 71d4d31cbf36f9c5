"""TLS for the HTTP port: the certificate is read again when it was renewed, without a restart."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import structlog

from station.errors import ConfigError

log = structlog.get_logger(__name__)

LOOK_S = 10.0


class ServerTls:
    """
    *context* is uvicorn's. Raises ConfigError for files that are away, damaged, expired, or do not belong together.

    It is never changed while it serves: OpenSSL would take the new certificate before its key, and whoever shakes hands
    in between is turned away. It hands each connection on to the newest context instead.
    """

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._files = (cert_file, key_file)
        self._seen = self._stamp()
        self.context, self.expired = self._read()
        self._newest = self.context
        if self.expired is not None:  # who asks will not like it; but the line must not stand still for it
            log.error("certificate expired", reason=self.expired)
        self.context.sni_callback = self._hand_on  # called without a name, too
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, *, every_s: float = LOOK_S, renewed: Callable[[], None] = lambda: None) -> None:
        """Looks for renewed files now and then, in a thread of its own, until ``stop``; *renewed* hears of them."""
        self._thread = threading.Thread(target=self._run, args=(every_s, renewed), name="tls", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2)

    def _run(self, every_s: float, renewed: Callable[[], None]) -> None:
        while not self._stop.wait(every_s):
            stamp = self._stamp()
            if stamp == self._seen:
                continue
            try:
                self._newest, self.expired = self._read()
            except ConfigError as error:  # half renewed: the old one serves on, and it is looked at again
                log.warning("certificate not renewed", reason=str(error))
            else:
                self._seen = stamp
                log.info("certificate renewed", file=str(self._files[0]))
                renewed()

    def _hand_on(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest

    def _read(self) -> tuple[ssl.SSLContext, str | None]:
        """The pair, and what is to be said of its age, if anything."""
        from cryptography import x509  # late: most stations have no certificate, and it takes 8 MB

        cert_file, key_file = self._files
        where = f"[http] cert_file = {cert_file}, key_file = {key_file}"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(cert_file, key_file, password=_no_password)
            expires_at = x509.load_pem_x509_certificates(cert_file.read_bytes())[0].not_valid_after_utc
        except ssl.SSLError as error:
            raise ConfigError(f"{where}: they are damaged, or do not belong together ({error.reason})") from None
        except OSError as error:
            raise ConfigError(f"{where}: cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
        over = expires_at < datetime.now(timezone.utc)
        return context, f"{where}: the certificate has expired on {expires_at:%Y-%m-%d}: renew it" if over else None

    def _stamp(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_stamp_of(one) for one in self._files)


def _stamp_of(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def _no_password() -> str:
    raise ValueError("the key is encrypted: a service can type no password. Store it without one, mode 0600")
