"""Requests that nobody should send: malformed, huge, slow, and cut off, drawn from a seed.

    python -m benchmarks.serve.malformed --workdir runs/quickstart

Each must be answered by a status below 500, or by none where the client left or sent no whole
request, and the server must go on; what it answers must be JSON with an "error".
"""

import json
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import tyro

from benchmarks.recording import RECORDS, Recorded, append_record
from benchmarks.serve.servers import OURS, running

PATHS = ("/translate", "/score", "/attention", "/explore", "/health", "/metrics", "/", "/nothing")
METHODS = ("POST", "POST", "POST", "GET", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, 10**400, -(10**30), 1e308, "", " ", "a\nb", "\x00", "\ud800",
    "\u202e", "😀" * 50, "a" * 5000, "<script>", "../../etc/passwd", [], [[]], [None], {}, {"a": 1},
    ["a"] * 300, ["The cat sleeps."], [["The cat"]], "The cat sleeps.",
)  # fmt: skip
NAMES = (
    "lines", "n_best", "beam_size", "prefixes", "sources", "references", "source", "target",
    "prefix", "", "__proto__", "LINES", "\ud800",
)  # fmt: skip


FAULT = "fault"
"""How the verdict on an answer begins that should not have been given."""


class Malformed(NamedTuple):
    """A request as bytes.

    kind:   what is wrong with it
    parts:  sent one after the other, with a `pause` in seconds after each
    leaves: whether the client is gone before the answer
    """

    kind: str
    parts: list[bytes]
    pause: float = 0.0
    leaves: bool = False


def requests(seed: int, pause: float) -> Iterator[Malformed]:
    """Yields requests without end; `pause`: of slow ones."""
    draw = random.Random(seed)
    makers: tuple[Callable[[random.Random, float], Malformed], ...] = (
        _values, _values, _values, _no_json, _bytes, _heads, _lengths, _chunks, _huge, _slow,
        _cut_off, _several,
    )  # fmt: skip
    while True:
        for make in makers:
            yield make(draw, pause)


def _post(draw: random.Random, body: bytes, path: str | None = None, more: str = "") -> bytes:
    path = path or draw.choice(PATHS[:4])
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _values(draw: random.Random, pause: float) -> Malformed:
    values = {draw.choice(NAMES): draw.choice(VALUES) for _ in range(draw.randint(0, 4))}
    value = draw.choice([values, values, values, *VALUES])
    return Malformed("wrong values", [_post(draw, json.dumps(value).encode())])


def _no_json(draw: random.Random, pause: float) -> Malformed:
    depth = draw.choice([10, 1000, 100_000])
    body = draw.choice(
        [
            b"", b"{", b'{"lines": [NaN]}', b'{"lines": [Infinity]}', b"\xff\xfe{}",
            b"\xef\xbb\xbf{}", b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth,
            b'{"n_best": ' + b"9" * draw.choice([10, 5000, 100_000]) + b"}",
            b'{"n_best": 1e' + b"9" * draw.choice([1, 3, 9]) + b', "lines": ["a"]}',
            b'{"lines": ["a"], "lines": ["b"]}', b'{"lines": ["\\ud800"]}', b"'lines'",
            b'{"lines": ["\\u0000"]}', b"\x00" * 9, b'"' + b"a" * 99,
        ]
    )  # fmt: skip
    return Malformed("no JSON", [_post(draw, body)])


def _bytes(draw: random.Random, pause: float) -> Malformed:
    return Malformed("random bytes", [draw.randbytes(draw.choice([1, 10, 1000])) + b"\r\n\r\n"])


def _heads(draw: random.Random, pause: float) -> Malformed:
    odd = ("/%00", "/..%2f..", "//", "/translate?x=" + "y" * 99, "*", "/\\", "/%ff")
    path = draw.choice([*PATHS, *odd])
    more = draw.choice(
        [
            "", "Host: evil.example\r\n", "X: " + "y" * 100_000 + "\r\n", "X: y\r\n" * 2000,
            "X\r\n",
            ": y\r\n", "X: \x01\r\n", "Expect: 100-continue\r\n", "Connection: close\r\n",
            "Upgrade: websocket\r\nConnection: Upgrade\r\n", "Content-Type: text/plain\r\n",
            "Content-Encoding: gzip\r\n", "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
        ]
    )  # fmt: skip
    version = draw.choice([*["HTTP/1.1"] * 15, "HTTP/1.0", "HTTP/2", "HTTP/9.9", "", "HTTPS"])
    host = draw.choice([*["localhost"] * 9, "127.0.0.1", "evil.example", "", "a" * 5000])
    head = f"{draw.choice(METHODS)} {path} {version}\r\nHost: {host}\r\n{more}\r\n"
    return Malformed("wrong heads", [head.encode("latin-1")])


def _lengths(draw: random.Random, pause: float) -> Malformed:
    length = draw.choice(["-1", "nine", "1e3", "99999999999999999999", "0", "1", "5, 6", "", "+2"])
    head = "POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += draw.choice(["", "Content-Length: 2\r\n", "Transfer-Encoding: chunked\r\n"])
    return Malformed("wrong lengths", [f"{head}Content-Length: {length}\r\n\r\n{{}}".encode()])


def _chunks(draw: random.Random, pause: float) -> Malformed:
    head = b"POST /translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunks = draw.choice(
        [b"2\r\n{}\r\n0\r\n\r\n", b"zz\r\n{}\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n{}",
         b"2\r\n{}}}\r\n", b"0\r\n\r\n", b"2;x=" + b"y" * 99 + b"\r\n{}\r\n0\r\nX: y\r\n\r\n"]
    )  # fmt: skip
    return Malformed("wrong chunks", [head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks])


def _huge(draw: random.Random, pause: float) -> Malformed:
    size = draw.choice([100_000, 999_900, 1_000_001, 5_000_000])
    line = draw.choice(["a", "The cat sleeps. ", "😀", "\\u0000"])
    body = b'{"lines": ["' + (line * (size // len(line.encode()))).encode() + b'"]}'
    return Malformed("huge", [_post(draw, body, "/translate")])


def _slow(draw: random.Random, pause: float) -> Malformed:
    whole = _post(draw, json.dumps({"lines": ["The cat sleeps."]}).encode())
    places = sorted(draw.sample(range(1, len(whole)), draw.randint(1, 8)))
    parts = [whole[i:j] for i, j in zip([0, *places], [*places, len(whole)], strict=True)]
    return Malformed("slow", parts, pause)


def _cut_off(draw: random.Random, pause: float) -> Malformed:
    whole = _post(draw, json.dumps({"lines": ["The cat sleeps."] * 50}).encode(), "/translate")
    cut = whole[: draw.randint(1, len(whole))]
    return Malformed("cut off", [cut], leaves=draw.random() < 0.9)


def _several(draw: random.Random, pause: float) -> Malformed:
    good = _post(draw, b'{"lines": ["The cat sleeps."]}', "/translate")
    others = [_values(draw, pause).parts[0], _heads(draw, pause).parts[0], good]
    return Malformed("several at once", [good + b"".join(draw.choices(others, k=3))])


def send(address: tuple[str, int], request: Malformed, patience: float) -> bytes:
    """Returns the first answer, or what there is of it when the connection is closed."""
    received = b""
    with socket.create_connection(address, timeout=patience) as connection:
        try:
            for part in request.parts:
                connection.sendall(part)
                time.sleep(request.pause)
            while not request.leaves and not _is_whole(received):
                if not (block := connection.recv(1 << 16)):
                    break
                received += block
        except OSError:  # the server has closed it
            pass
    return received


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    return bool(end) and len(body) >= _length(head)


def _length(head: bytes) -> int:
    return int(dict(_fields(head)).get(b"content-length", b"0"))


def judge(answer: bytes) -> str:
    """Returns the status of the first answer, "none", or what is wrong with it."""
    if not answer:
        return "none"
    head, _, body = answer.partition(b"\r\n\r\n")
    first = head.split(b"\r\n")[0].split(b" ")
    if len(first) < 2 or not first[1].isdigit():
        return f"{FAULT}: no HTTP"
    status = int(first[1])
    if status >= 500 and status != 503:
        return f"{FAULT} {status}"
    if status >= 400 and body and json.loads(body[: _length(head)]).keys() != {"error"}:
        return f"{FAULT}: {status} without error"
    return str(status)


def _fields(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        yield name.lower(), value.strip()


@dataclass(frozen=True, kw_only=True)
class Arguments(Recorded):
    """Sends malformed requests to a server."""

    workdir: Path
    """Folder of a run."""
    requests: int = 1000
    """How many are sent, 16 at a time."""
    seed: int = 0
    """From which they are drawn."""
    record: Path = RECORDS / "serve_malformed.json"


def main(arguments: Arguments) -> None:
    found: Counter[str] = Counter()
    drawn = requests(arguments.seed, pause=0.3)
    patience = "--limits.read-seconds", "2"
    with running(OURS, arguments.workdir, *patience) as server, ThreadPoolExecutor(16) as pool:
        place = urlsplit(server.url)
        address = (place.hostname or "", place.port or 0)

        def judged(request: Malformed) -> str:
            return f"{request.kind}: {judge(send(address, request, 60.0))}"

        before = server.resident_mib()
        found.update(pool.map(judged, (next(drawn) for _ in range(arguments.requests))))
        after = server.resident_mib()
    for name, count in sorted(found.items()):
        print(f"{count:>6,}  {name}")
    figures = {
        "requests": arguments.requests,
        "seed": arguments.seed,
        "answers": dict(sorted(found.items())),
        "faults": sum(count for name, count in found.items() if FAULT in name),
        "resident_mib": [round(before), round(after)],
    }
    append_record(arguments, ("starlette", "uvicorn", "h11"), figures)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
