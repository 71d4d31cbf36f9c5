"""The connections of the HTTP port: how many there are, and how long each may take to ask, to send and to listen."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256  # of 1024 descriptors that a service may have by custom: the line needs some dozens
BACKLOG = 128  # asyncio accepts so many at one go, before it looks at the first of them
ASK_S = 10.0  # until the head of a request is whole
SEND_S = 65.0  # until its body is: a little more than the 60 s after which an upload is told why
GRACE_S = 0.5  # at a stop, for who has connected and not asked yet: the request may be on its way
LISTEN_S = 60.0  # with an answer that its asker does not take


class HttpConfig(uvicorn.Config):
    """uvicorn's settings, with TLS left to the connection: uvicorn's own begins it before it counts a connection."""

    tls: ssl.SSLContext | None = None

    def load(self) -> None:
        super().load()
        self.tls, self.ssl = self.ssl, None


class BoundedConnection(H11Protocol):
    """
    uvicorn's connection, which has no limits of its own, with limits.

    When there are too many, the one that has been silent the longest makes room for the newest. So somebody who opens
    hundreds and sends nothing, or half a TLS handshake, neither shuts others out nor uses up the descriptors that the
    line needs.
    """

    def __init__(self, config: HttpConfig, *arguments: Any, **named: Any) -> None:
        super().__init__(config, *arguments, **named)
        self._tls = config.tls
        self._handshake: asyncio.Task[None] | None = None
        self._early = b""
        self.silent_since_s: float | None = self.loop.time()  # None: a request is under way
        self._has_asked = False
        self._stage = ""
        self._deadline: asyncio.TimerHandle | None = None
        self._listening: asyncio.TimerHandle | None = None
        self._farewell: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        if self._tls is None:
            super().connection_made(transport)
        else:
            self.transport = transport
            self.connections.add(self)
            self._handshake = self.loop.create_task(self._shake_hands(self._tls))
        self._look()
        if len(self.connections) > MAX_CONNECTIONS:
            silent = {
                one.silent_since_s: one
                for one in self.connections
                if isinstance(one, BoundedConnection) and one.silent_since_s is not None
            }
            (silent[min(silent)] if silent else self).end()

    async def _shake_hands(self, tls: ssl.SSLContext) -> None:
        try:
            transport = await self.loop.start_tls(self.transport, self, tls, server_side=True)
        except OSError as failed:  # what is no TLS, or not ours, too
            failed.__traceback__ = None  # a reference cycle: 256 kB would wait for the garbage collector
            transport = None
        self._handshake = None
        if transport is None:
            self.connection_lost(None)
            return
        super().connection_made(transport)
        if self._early:
            self.data_received(self._early)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._listening, self._farewell):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:  # a request on the heels of the handshake, which nobody has been told of yet
            self._early += data
            return
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        self._stage = ""
        super().on_response_complete()
        self._look()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._listening = self.loop.call_later(LISTEN_S, self.end)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._listening is not None:
            self._listening.cancel()

    def send_400_response(self, msg: str) -> None:
        """For a body that turns out to be damaged: whoever is at work on that request must not answer it as well."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.end()
                return
        super().send_400_response(msg)

    def shutdown(self) -> None:
        """At a stop: who has connected and asked nothing yet is waited for, and answered; nobody's farewell is."""
        if not self._has_asked and self._farewell is None:
            self._farewell = self.loop.call_later(GRACE_S, self.shutdown)
            return
        super().shutdown()
        if self._stage == "ask":  # TLS waits for the other end to say goodbye, too
            self._farewell = self.loop.call_later(GRACE_S, self.end)

    def end(self) -> None:
        """Without a farewell: the other end may not even be there."""
        self.connections.discard(self)  # at once: the next one must not choose it again
        self.transport.abort()

    def _look(self) -> None:
        """
        Starts a deadline when a new stage begins. More bytes within a stage do not extend it, so dripping gains no
        time.
        """
        if self.cycle is None or self.cycle.response_complete:
            stage, within_s = "ask", ASK_S
        elif self.cycle.more_body:
            stage, within_s = "send", SEND_S
        else:
            stage, within_s = "answer", None
        if stage == self._stage:
            return
        self._stage = stage
        self.silent_since_s = self.loop.time() if stage == "ask" else None
        self._has_asked = self._has_asked or stage != "ask"
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if within_s is None else self.loop.call_later(within_s, self.end)
