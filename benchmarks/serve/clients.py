"""Clients of the server that ask for a line each, as many at a time as there are clients."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Answers:
    """What came back, in the order of the lines; None where nothing did.

    seconds: of each request
    wall:    seconds of all together
    """

    texts: list[str | None]
    seconds: list[float] = field(default_factory=list)
    wall: float = 0.0


def ask(url: str, lines: Sequence[str], clients: int) -> Answers:
    """Asks for the translation of each line by a request of its own, from `clients` connections."""
    answers = Answers([None] * len(lines))

    async def run() -> None:
        numbered = iter(enumerate(lines))
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(_client(url, numbered, answers))

    start = time.perf_counter()
    asyncio.run(run())
    answers.wall = time.perf_counter() - start
    return answers


async def _client(url: str, numbered: Iterator[tuple[int, str]], answers: Answers) -> None:
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    for number, line in numbered:
        start = time.perf_counter()
        body = json.dumps({"lines": [line]}).encode()
        head = (
            f"POST /translate HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        status, answer = await _read(reader)
        if status == 200:
            (answers.texts[number],) = json.loads(answer)["translations"]
        answers.seconds.append(time.perf_counter() - start)
    writer.close()


async def _read(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *fields = head.split("\r\n")
    lengths = [int(each.split(":")[1]) for each in fields if each.lower().startswith("content-len")]
    return int(first.split()[1]), await reader.readexactly(lengths[0])
