"""Requests that are answered with a message instead of what they ask for."""

from collections.abc import Mapping


class RefusedError(Exception):
    """A request is refused; the message names the thing, its value and the remedy.

    status:  of HTTP, 400 to 599
    headers: of the answer, such as Retry-After
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


CLOSE = {"Connection": "close"}
"""Of an answer to a request that was not read to its end: what follows would be taken for the next
one."""
