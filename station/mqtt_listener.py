"""Listening to the broker, for people: ``station watch``. The other file that may import paho."""

from __future__ import annotations

import threading
from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from station.errors import LinkError
from station.mqtt_options import LinkOptions, tls_context
from station.types import Stop


def listen(
    options: LinkOptions,
    *,
    client_id: str,
    on_message: Callable[[str, bytes, bool], None],
    on_link: Callable[[bool, str], None],
    stop: Stop,
) -> None:
    """
    Calls *on_message* (topic, payload, retained) for all below the station's topic until *stop*; reconnects by itself.

    *on_link* hears (connected, why). Listens by MQTT 3.1.1, which every broker speaks. Raises LinkError when it
    cannot be tried as configured.
    """
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv311)
    refused = threading.Event()

    def on_connect(client: paho.Client, _data: object, _flags: object, code: object, _given: object) -> None:
        if getattr(code, "is_failure", False):
            refused.set()
            on_link(False, str(code))
            return
        client.subscribe(f"{options.topic}/#", qos=1)
        on_link(True, f"{options.host}:{options.port}, topics below {options.topic}")

    def on_disconnect(_client: paho.Client, _data: object, _flags: object, code: object, _given: object) -> None:
        if not stop.is_set():
            on_link(False, str(code))

    client.on_connect = on_connect
    client.on_connect_fail = lambda *_: on_link(False, f"{options.host}:{options.port} is not reached; trying on")
    client.on_disconnect = on_disconnect
    client.on_message = lambda _client, _data, message: on_message(
        message.topic, bytes(message.payload), message.retain
    )
    try:
        if options.username is not None:
            client.username_pw_set(options.username, options.password())
        if options.tls is not None:
            client.tls_set_context(tls_context(options.tls))
        client.reconnect_delay_set(1, 10)
        client.connect_async(options.host, options.port, keepalive=options.keepalive_s)
    except (OSError, ValueError) as error:
        raise LinkError(f"[mqtt]: {error}") from None
    client.loop_start()
    try:
        stop.wait()
    finally:
        client.disconnect()
        client.loop_stop()
