"""A paho client with the station's login and TLS: for the link, for ``station watch`` and for ``station check``."""

from __future__ import annotations

import ssl

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from station.errors import ConfigError, LinkError
from station.mqtt_options import LinkOptions, tls_context
from station.mqtt_protocol import Protocol

WRONG_PROTOCOL = 0x84  # CONNACK of MQTT 5; paho says it of 3.1.1's 0x01, too


def new_client(options: LinkOptions, *, client_id: str, protocol: Protocol, reconnects: bool = False) -> paho.Client:
    """
    A client for one clean session, not connected yet. *reconnects*: paho connects it again by itself.

    Raises LinkError naming the file (password, certificate, key) that cannot be used.
    """
    try:
        password = options.password() if options.username is not None else None
    except ConfigError as error:
        raise LinkError(str(error)) from None
    tls = None if options.tls is None else tls_context(options.tls)
    # Only now: of a client that was made and is not used the sockets stay open until the garbage is collected.
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=paho.MQTTv5 if protocol == "5" else paho.MQTTv311,
        clean_session=None if protocol == "5" else True,
        reconnect_on_failure=reconnects,
    )
    client.connect_timeout = options.connect_timeout_s
    if options.username is not None:
        client.username_pw_set(options.username, password)
    if tls is not None:
        client.tls_set_context(tls)
    return client


def close_client(client: paho.Client) -> None:
    """Ends the TCP connection as a vanished client would, so that the broker publishes the will where one is due."""
    client.on_connect = client.on_disconnect = client.on_publish = None
    client._reset_sockets()  # noqa: SLF001  # else its pair of waking sockets stays open until the garbage is collected


def network_reason(error: Exception) -> str:
    """Why the broker was not reached, for a person."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    return str(getattr(error, "strerror", None) or error)
