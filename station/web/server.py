"""Serves the HTTP port from a thread of its own."""

from __future__ import annotations

import socket
import threading

import uvicorn
from starlette.types import ASGIApp

from station.errors import ConfigError
from station.web.connections import BACKLOG, BoundedConnection, HttpConfig
from station.web.tls import ServerTls


class WebServer:
    """uvicorn in a thread. ``start`` returns when the port answers; raises ConfigError when it cannot be had."""

    def __init__(self, api: ASGIApp, *, host: str, port: int, tls: ServerTls | None = None) -> None:
        self._host = host
        self._port = port
        config = HttpConfig(
            api,
            http=BoundedConnection,
            ws="none",
            backlog=BACKLOG,
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,  # whom to believe is ours to say
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        config.load()
        if tls is not None:
            config.tls = tls.context
        self._server = uvicorn.Server(config)
        self._tls = tls
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        bound = bind(self._host, self._port)
        self._thread = threading.Thread(target=self._server.run, args=([bound],), name="web", daemon=True)
        self._thread.start()
        if self._tls is not None:
            self._tls.watch()

    def stop(self, *, within_s: float) -> None:
        self._server.should_exit = True
        if self._tls is not None:
            self._tls.stop()
        if self._thread is not None:
            self._thread.join(within_s)


def bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Said to be TCP: asyncio sets TCP_NODELAY only then, and without it each answer waits 40 ms for an acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"[http] port: {host}:{port} cannot be used ({error.strerror}): choose another port, "
            "or stop the program that has it"
        ) from None
    return bound
