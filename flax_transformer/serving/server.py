"""The application behind a socket: it listens at once, and stops when all is answered."""

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import uvicorn

from flax_transformer.serving.application import application
from flax_transformer.serving.listener import WAITING_CONNECTIONS
from flax_transformer.serving.protocol import limited_protocol
from flax_transformer.serving.service import Service


class Server(uvicorn.Server):
    """Serves a `Service` until a signal, or `should_exit`, ends it.

    stopped_by: the signal that ended it, for the caller to raise once all is said
    """

    def __init__(self, service: Service, hosts: Sequence[str] | None):
        """hosts: that requests may name in their Host header; None allows any"""
        limits = service.limits
        config = uvicorn.Config(
            application(service, hosts),
            http=limited_protocol(limits),
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=WAITING_CONNECTIONS,
            timeout_graceful_shutdown=max(1, round(limits.stop_seconds)),
        )
        super().__init__(config)
        self._service = service
        self.stopped_by: int | None = None

    def run_service(self, listener: socket.socket) -> None:
        """Answers on `listener` until stopped; raises `UserError` where the model cannot be loaded.

        A signal that stops it is in `stopped_by`.
        """
        asyncio.run(self._run(listener))

    async def _run(self, listener: socket.socket) -> None:
        working = asyncio.ensure_future(self._service.run())
        working.add_done_callback(self._stop)
        try:
            await self.serve([listener])
            if working.done():
                working.result()
        finally:
            working.cancel()
            self._service.batcher.close()

    def _stop(self, working: asyncio.Future) -> None:
        """Without the model there is nothing to serve."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stops when all is answered; at the second Ctrl-C at once."""
        self.stopped_by = int(self.stopped_by or sig)
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Has signals that ask the program to end stop the server, and not raise anything."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(each) != signal.SIG_IGN:  # as under nohup
                    before[each] = signal.signal(each, self.handle_exit)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
