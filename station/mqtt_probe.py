"""Tries the broker once, for people: ``station check``."""

from __future__ import annotations

from queue import Empty, SimpleQueue

from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from station.errors import LinkError, RefusedError
from station.mqtt_client import WRONG_PROTOCOL, close_client, network_reason, new_client
from station.mqtt_options import LinkOptions
from station.mqtt_protocol import REFUSED_HINT, Protocol, login_refused


def probe(options: LinkOptions) -> str:
    """
    Connects once under another client id, disconnects, and says what was found; publishes nothing.

    Raises LinkError with the reason when the broker cannot be used, RefusedError when it does not let us in.
    """
    problems: list[str] = []
    protocols: tuple[Protocol, ...] = ("5", "3.1.1") if options.protocol == "auto" else (options.protocol,)
    for protocol in protocols:
        answer: SimpleQueue[ReasonCode] = SimpleQueue()
        client = new_client(options, client_id=f"{options.client_id}-check", protocol=protocol)
        client.on_connect = lambda _client, _data, _flags, code, _given: answer.put(code)  # noqa: B023  # used at once
        try:
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
