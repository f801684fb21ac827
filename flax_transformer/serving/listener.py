"""The socket that the server listens on, and who may reach it."""

import ipaddress
import socket
from collections.abc import Sequence

from flax_transformer.errors import UserError

WAITING_CONNECTIONS = 128
"""Connections that the system keeps for a server that is busy, or not ready to take them."""

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; raises `UserError` where the address cannot be had.

    port: 0 for any that is free
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(WAITING_CONNECTIONS)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--host {host} --port {port} cannot be listened on: {reason}. Choose another port, or "
            "an address of this machine"
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(listener: socket.socket) -> bool:
    """Returns whether only this machine can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def allowed_hosts(listener: socket.socket, named: Sequence[str]) -> list[str] | None:
    """Returns what requests may have in their Host header; None for anything.

    named: by the user; by default only the names of this machine where it alone is listened to
    """
    if not is_loopback(listener):
        return list(named) or None
    return [*_LOOPBACK_NAMES, listener.getsockname()[0], *named]
