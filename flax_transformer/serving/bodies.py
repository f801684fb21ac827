"""From the bytes of a request's body to the values of its JSON, however they come."""

import asyncio
import json
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect, Request

from flax_transformer.serving.limits import Limits
from flax_transformer.serving.refusals import CLOSE, RefusedError

_MOST_DISCARDED = 8
"""Bodies of the largest size that are read beyond it and thrown away: a client that still writes
when its connection is closed does not see the answer."""


async def read_json(request: Request, limits: Limits) -> Any:
    """Returns the values of the body; raises `RefusedError` where it has no JSON."""
    _check_headers(request)
    try:
        async with asyncio.timeout(limits.read_seconds):
            body = await _read(request, limits.body_bytes)
    except TimeoutError:
        message = f"the body did not come within {limits.read_seconds:g} s: send it faster"
        raise RefusedError(408, message, CLOSE) from None
    return parse_json(body)


def _check_headers(request: Request) -> None:
    headers = request.headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    # Browsers ask before they send this type to another site, and are told nothing here.
    if kind != "application/json":
        message = f"Content-Type is {kind[:80]!r}, but must be application/json"
        raise RefusedError(415, message, CLOSE)
    if headers.get("content-encoding", "identity").lower() != "identity":
        message = "Content-Encoding is set, but bodies are not unpacked: send it as it is"
        raise RefusedError(415, message, CLOSE)
    if "content-length" not in headers and "transfer-encoding" not in headers:
        raise RefusedError(411, "there is no body: give one, with its Content-Length", CLOSE)


async def _read(request: Request, most: int) -> bytes:
    body = bytearray()
    try:
        stream = request.stream()
        async for part in stream:
            body += part
            if len(body) > most:
                del body
                await _discard(stream, _MOST_DISCARDED * most)
                message = f"the body has more than {most:,} bytes: divide it into several requests"
                raise RefusedError(413, message, CLOSE)
    except ClientDisconnect:
        raise RefusedError(400, "the body ends before its Content-Length", CLOSE) from None
    return bytes(body)


async def _discard(stream: Any, most: int) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            async for part in stream:
                most -= len(part)
                if most < 0:
                    return


def parse_json(body: bytes) -> Any:
    """Returns the values of `body`; raises `RefusedError` where it is no JSON (RFC 8259)."""
    try:
        return json.loads(
            body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_no_name_twice
        )
    except UnicodeDecodeError as error:
        raise RefusedError(400, f"the body is not UTF-8 from byte {error.start} on") from None
    except RecursionError:
        raise RefusedError(400, "the body has too many lists or objects in each other") from None
    except ValueError as error:  # of JSON, or a number of more digits than Python reads
        raise RefusedError(400, f"the body is no JSON: {error}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has a name twice")
    return values
