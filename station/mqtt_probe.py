"""Tries the broker once, for people: ``station check``."""

from __future__ import annotations

from queue import Empty, SimpleQueue

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from station.errors import LinkError, RefusedError
from station.mqtt import WRONG_PROTOCOL, close_client, network_reason
from station.mqtt_options import LinkOptions, tls_context
from station.mqtt_protocol import REFUSED_HINT, login_refused


def probe(options: LinkOptions) -> str:
    """
    Connects once under another client id, disconnects, and says what was found; publishes nothing.

    Raises LinkError with the reason when the broker cannot be used, RefusedError when it does not let us in.
    """
    problems: list[str] = []
    for protocol in ("5", "3.1.1") if options.protocol == "auto" else (options.protocol,):
        answer: SimpleQueue[ReasonCode] = SimpleQueue()
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"{options.client_id}-check",
            protocol=paho.MQTTv5 if protocol == "5" else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.connect_timeout = options.connect_timeout_s
        client.on_connect = lambda _client, _data, _flags, code, _given: answer.put(code)  # noqa: B023  # used at once
        try:
            if options.username is not None:
                client.username_pw_set(options.username, options.password())
            if options.tls is not None:
                client.tls_set_context(tls_context(options.tls))
            client.connect(options.host, options.port, keepalive=options.keepalive_s)
            for _ in range(int(options.connect_timeout_s * 10)):
                if client.loop(0.1) is not MQTTErrorCode.MQTT_ERR_SUCCESS or not answer.empty():
                    break
            code = answer.get_nowait()
        except (OSError, ValueError) as error:
            raise LinkError(network_reason(error)) from None
        except Empty:
            problems.append(f"no answer to MQTT {protocol}")
            continue
        finally:
            close_client(client)
        if not code.is_failure:
            return f"answers, MQTT {protocol}"
        problems.append(f"MQTT {protocol}: {code}")
        if login_refused(code.value) and (code.value != WRONG_PROTOCOL or options.protocol != "auto"):
            raise RefusedError(f"refuses the connection: {problems[-1]}: {REFUSED_HINT}")
    raise LinkError("; ".join(problems))
