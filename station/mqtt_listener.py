"""Listening to the broker, for people: ``station watch``."""

from __future__ import annotations

from collections.abc import Callable

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from station.errors import LinkError, RefusedError
from station.mqtt_client import new_client
from station.mqtt_options import LinkOptions
from station.mqtt_protocol import REFUSED_HINT, login_refused
from station.types import Stop

TURN_S = 0.2  # how soon a refusal or the stop is noticed


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

    *on_link* hears (connected, why). Listens by MQTT 3.1.1, which every broker speaks. Raises RefusedError when the
    broker does not let us in, LinkError when it cannot be tried as configured.
    """
    where = f"{options.host}:{options.port}"
    client = new_client(options, client_id=client_id, protocol="3.1.1", reconnects=True)
    refusals: list[ReasonCode] = []

    def on_connect(client: paho.Client, _data: object, _flags: object, code: ReasonCode, _given: object) -> None:
        if login_refused(code.value):
            refusals.append(code)
        elif code.is_failure:
            on_link(False, f"{where}: {code}; trying on")
        else:
            client.subscribe(f"{options.topic}/#", qos=1)
            on_link(True, f"{where}, topics below {options.topic}")

    def on_disconnect(_client: paho.Client, _data: object, _flags: object, _code: object, _given: object) -> None:
        if not stop.is_set() and not refusals:  # of a loss paho knows only "Unspecified error"
            on_link(False, f"{where}: the connection was lost; trying on")

    client.reconnect_delay_set(1, 10)
    client.on_connect = on_connect
    client.on_connect_fail = lambda *_: on_link(False, f"{where} is not reached; trying on")
    client.on_disconnect = on_disconnect
    client.on_message = lambda _client, _data, message: on_message(
        message.topic, bytes(message.payload), message.retain
    )
    try:
        client.connect_async(options.host, options.port, keepalive=options.keepalive_s)
    except ValueError as error:
        raise LinkError(f"[mqtt]: {error}") from None
    client.loop_start()
    try:
        while not stop.wait(TURN_S):
            if refusals:
                raise RefusedError(f"{where} refuses the connection: {refusals[0]}: {REFUSED_HINT}")
    finally:
        client.disconnect()
        client.loop_stop()
