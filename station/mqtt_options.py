"""How to reach the broker: where it is, who we are, and what makes it trusted."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from station.errors import LinkError


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificate files, PEM. *ca_file* None: the system's authorities. *cert_file*, *key_file*: ours, both or none."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """
    Where the broker is and who we are. *password* is asked at every connection, so that it can be changed, and raises
    ConfigError when it cannot be read.
    """

    host: str
    port: int
    client_id: str
    topic: str
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    username: str | None = None
    password: Callable[[], str | None] = lambda: None
    tls: Tls | None = None
    window: int = 20
    keepalive_s: int = 20
    ack_timeout_s: float = 20.0
    connect_timeout_s: float = 5.0
    commands: tuple[str, ...] = ()  # which are listened to, below TOPIC/command/


def tls_context(tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or newer with the broker's name checked. Raises LinkError naming the file that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=None if tls.ca_file is None else str(tls.ca_file))
    except OSError as error:
        raise LinkError(f"[mqtt] ca_file {tls.ca_file} cannot be used: {error}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.cert_file is not None:
            # The empty password: an encrypted key is an error, and no question on a terminal that nobody sees.
            context.load_cert_chain(
                str(tls.cert_file), None if tls.key_file is None else str(tls.key_file), password=""
            )
    except OSError as error:
        raise LinkError(
            f"[mqtt] cert_file {tls.cert_file} with key_file {tls.key_file} cannot be used: {error}"
        ) from None
    return context
