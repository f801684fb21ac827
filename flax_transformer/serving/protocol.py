"""HTTP/1.1 as uvicorn speaks it, with limits for clients that send slowly, nothing, or no HTTP."""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from flax_transformer.serving.limits import Limits


def limited_protocol(limits: Limits) -> type[H11Protocol]:
    """Returns the protocol of one connection under `limits`."""
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits})


class _LimitedProtocol(H11Protocol):
    limits: Limits
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = self.limits.connections
        if len(self.connections) > most:
            self._end(503, f"{most:,} connections are open, which is the most: try again later")
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._forget_timer()

    def on_response_complete(self) -> None:
        self._expect_head()
        super().on_response_complete()
        if self._is_answering():  # a request that was there already
            self._forget_timer()

    def send_400_response(self, msg: str) -> None:
        self._end(400, f"{msg.rstrip('.')}: send HTTP/1.1")

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # of an answer that nobody reads
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        """Gives the client a time for the head of its next request, however many bytes come."""
        self._forget_timer()
        self._head_timer = self.loop.call_later(self.limits.read_seconds, self._give_up)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        seconds = self.limits.read_seconds
        self._end(408, f"the head of a request did not come within {seconds:g} s: send it faster")

    def _end(self, status: int, message: str) -> None:
        """Answers, where an answer may still be given, and closes the connection."""
        body = json.dumps({"error": message}).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        events = (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        try:
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:  # an answer has been given, or is being given
            pass
        if self.cycle is not None:  # what works on an answer learns that it can give none
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()
