"""The service over HTTP, as an ASGI application.

Starlette, because it is small and nothing but the routes and bodies of ASGI, the standard that any
server for asyncio speaks: requests are checked against the schemas that /openapi.json shows, so a
framework with a validation of its own would be a second one.
"""

import asyncio
import json
import re
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flax_transformer import __version__
from flax_transformer.config.setting_types import shown
from flax_transformer.errors import UserError
from flax_transformer.inspection.explorer import content_security_policy, live_page
from flax_transformer.serving.bodies import read_json
from flax_transformer.serving.refusals import CLOSE, RefusedError
from flax_transformer.serving.schemas import openapi
from flax_transformer.serving.service import RETRY_SECONDS, Service
from flax_transformer.serving.validation import validate

_GONE = 499
"""The status, in metrics alone, of a request whose client has gone before the answer."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Json(Response):
    """JSON as RFC 8259 has it: without NaN."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode()


def application(service: Service, hosts: Sequence[str] | None) -> ASGIApp:
    """Returns the application.

    hosts: that requests may name in their Host header; None allows any
    """
    page = live_page()
    policy = f"{content_security_policy(live=True)}; frame-ancestors 'none'"
    description = openapi(service.operations, __version__)

    async def health(request: Request) -> Response:
        wait = {} if service.is_warm else {"Retry-After": RETRY_SECONDS}
        return Json(service.health(), 200 if service.is_warm else 503, wait)

    async def metrics(request: Request) -> Response:
        text = service.metrics.text(service.batcher.waiting_lines, service.is_warm)
        return Response(text, media_type=service.operations["/metrics"].media_type)

    async def describe(request: Request) -> Response:
        return Json(description)

    async def show(request: Request) -> Response:
        return Response(page, media_type="text/html", headers={_POLICY: policy})

    answers: dict[str, Answer] = {
        "/translate": service.translate,
        "/score": service.score,
        "/attention": service.attention,
        "/explore": service.explore,
    }
    others = {"/health": health, "/metrics": metrics, "/openapi.json": describe, "/": show}
    endpoints = {
        path: _endpoint(service, path, answer) for path, answer in answers.items()
    } | others
    routes = [
        Route(path, _with_defects_told(endpoints[path]), methods=[operation.method])
        for path, operation in service.operations.items()
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: _http_error,
            RefusedError: _refuse,
        },
    )
    app.router.redirect_slashes = False
    return Guard(app, service, hosts)


def _endpoint(service: Service, path: str, answer: Answer) -> Callable:
    schema = service.operations[path].request
    assert schema is not None

    async def endpoint(request: Request) -> Response:
        values = await read_json(request, service.limits)
        validate(values, schema)
        _ = service.model  # refuses as long as there is none
        try:
            return await _unless_gone(request, answer(values))
        except UserError as error:
            raise RefusedError(422, str(error)) from None

    return endpoint


async def _unless_gone(request: Request, answer: Awaitable[dict[str, Any]]) -> Response:
    """Returns the answer, which nobody works on any more once the client has gone."""
    working = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return Response(status_code=_GONE)
        return Json(working.result())
    finally:
        working.cancel()
        leaving.cancel()


def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own errors: a path that is not there, a method that it does not have."""
    assert isinstance(error, HTTPException)
    allowed = dict(error.headers or {})
    if error.status_code == 405:
        message = f"{request.method[:20]} is not for {request.url.path}: use {allowed['Allow']}"
    else:
        message = f"{shown(request.url.path)} is not here: /openapi.json lists what is"
    return Json({"error": message}, error.status_code, allowed)


def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return Json({"error": error.message}, error.status, error.headers)


def _with_defects_told(endpoint: Callable[[Request], Awaitable[Response]]) -> Callable:
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (RefusedError, HTTPException):
            raise
        except Exception as error:
            print("".join(traceback.format_exception(error)), end="", file=sys.stderr, flush=True)
            message = "this is a defect of the server, which has printed more: report it"
            return Json({"error": message}, 500, CLOSE)

    return answer


_POLICY = "Content-Security-Policy"


class Guard:
    """What holds for every request: whom it may be addressed to, which headers its answer has, and
    that it is counted."""

    def __init__(self, app: ASGIApp, service: Service, hosts: Sequence[str] | None):
        self._app, self._metrics = app, service.metrics
        self._hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        start, status = time.perf_counter(), _GONE

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if status == _GONE:  # there is nobody to send it to
                    message = {**message, "status": 400}
                message["headers"] = [*message["headers"], *_missing(message["headers"])]
            await send(message)

        self._metrics.in_progress += 1
        try:
            await self._answer(scope, receive, send_guarded)
        finally:
            self._metrics.in_progress -= 1
            self._metrics.count_request(scope["path"], status, time.perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (message := self._wrong_host(scope)) is not None:
            await Json({"error": message}, 400, CLOSE)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _wrong_host(self, scope: Scope) -> str | None:
        """Returns a message where the request was meant for a host of another name.

        A page of some site may make its name point to this machine (DNS rebinding), so that a
        browser takes what is answered here for that site's.
        """
        if self._hosts is None:
            return None
        named = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        host = re.sub(r":\d*$", "", named[0] if named else "").lower()
        if host in self._hosts:
            return None
        known = ", ".join(sorted(self._hosts))
        return f"Host is {shown(host)}, but must be one of {known}: see --allowed-hosts"


def _missing(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Returns those of `_HEADERS`, and the policy, that an answer does not have yet."""
    there = {name for name, _ in headers}
    wanted = {**_HEADERS, _POLICY: _NOTHING}
    lower = {name.lower().encode(): value.encode() for name, value in wanted.items()}
    return [(name, value) for name, value in lower.items() if name not in there]
