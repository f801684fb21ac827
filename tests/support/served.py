"""Servers in a thread of the tests, and clients that know no HTTP."""

import socket
import threading
import time

import jax

from flax_transformer.serving.listener import allowed_hosts, listen, url_of
from flax_transformer.serving.server import Server
from flax_transformer.serving.service import Service


def until(condition, seconds=20) -> None:
    end = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < end
        time.sleep(0.002)


class Started:
    """A server in a thread."""

    def __init__(self, service: Service, hosts=()):
        self.service = service
        self.listener = listen("127.0.0.1", 0)
        self.server = Server(service, allowed_hosts(self.listener, hosts))
        self.url = url_of(self.listener)
        self.address = self.listener.getsockname()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        try:
            self.server.run_service(self.listener)
        except BaseException as error:
            self.error = error

    def stop(self):
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def wait_until_warm(self):
        until(lambda: self.service.is_warm or not self.thread.is_alive(), 300)
        assert self.thread.is_alive()


class Compilations:
    """How many programs this process has compiled, or found compiled, so far."""

    def __init__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._see)

    def _see(self, name: str, seconds: float, **_):
        self.count += name == "/jax/core/compile/backend_compile_duration"


def send(started, *parts: bytes, pause: float = 0.0) -> bytes:
    """What the server answers to raw bytes until it closes the connection."""
    with socket.create_connection(started.address, timeout=10) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        except OSError:
            pass
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    """What comes until the connection is closed, with what the client has sent read or unread."""
    received = b""
    try:
        while block := connection.recv(65536):
            received += block
    except ConnectionResetError:
        pass
    return received


def dribble(connection, parts):
    try:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.1)
    except OSError:
        pass
