"""Serves the HTTP port from a thread of its own."""

from __future__ import annotations

import socket
import threading

import uvicorn
from fastapi import FastAPI

from station.errors import ConfigError


class WebServer:
    """uvicorn in a thread. ``start`` returns when the port answers; raises ConfigError when it cannot be had."""

    def __init__(self, api: FastAPI, *, host: str, port: int) -> None:
        self._host = host
        self._port = port
        config = uvicorn.Config(api, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        bound = _bind(self._host, self._port)
        self._thread = threading.Thread(target=self._server.run, args=([bound],), name="web", daemon=True)
        self._thread.start()

    def stop(self, *, within_s: float) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(within_s)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
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
