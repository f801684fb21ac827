"""Translates for others over HTTP: flax-transformer serve --workdir runs/quickstart

A JSON interface and a page to look into the model, on this machine alone unless --host says
otherwise. Ctrl-C ends it once all that was taken in is answered.
"""

import importlib.util
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from flax_transformer.commands.command_line import DecodingArguments, parse_decoding_arguments
from flax_transformer.config import Config
from flax_transformer.errors import UserError, require, require_positive
from flax_transformer.serving.limits import Limits
from flax_transformer.serving.listener import allowed_hosts, is_loopback, listen, url_of

# Libraries that take seconds to load, which --help should not, are imported where they are used.


@dataclass(frozen=True, kw_only=True)
class ServeArguments(DecodingArguments):
    """Serves a trained model over HTTP: translations, scores, attention, and a page to explore it.

    It listens at once, and answers when it has compiled all that requests may need; GET /health
    says when. docs/serve.md describes the interface.
    """

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in. There is no password and no TLS."""
    port: int = 8000
    """Port to listen on; 0 takes any that is free."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names that requests may call the server by, such as that of a proxy before it."""
    beam_sizes: tuple[int, ...] = ()
    """Beam sizes that requests may ask for besides --beam-size; each takes as long to compile."""
    batch_lines: int = 64
    """Most lines that are translated together."""
    batch_wait: float = 5.0
    """Milliseconds for which a model with nothing to do waits for lines to translate together."""
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self):
        require_positive(self, "serve", "batch_lines")
        require(0 <= self.port <= 65535, f"--port is {self.port}, but must be from 0 to 65535")
        wait = self.batch_wait
        require(0 <= wait <= 1000, f"--batch-wait is {wait}, but must be from 0 to 1000")
        for beam_size in self.beam_sizes:
            require(beam_size > 0, f"--beam-sizes has {beam_size}, but all must be greater than 0")


def main(words: Sequence[str]) -> None:
    """Does what `words`, those of the command line, ask for."""
    arguments, config = parse_decoding_arguments(ServeArguments, words)
    for name in ("starlette", "uvicorn"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f"serve needs {name}: pip install 'flax_transformer[serve]'")
    with listen(arguments.host, arguments.port) as listener:
        stopped_by = serve(arguments, config, listener)
    if stopped_by is not None:
        signal.raise_signal(stopped_by)  # which gives the program its exit code


def rows_ahead(most: int) -> list[int]:
    """Returns the numbers of rows that batches of up to `most` lines are compiled for."""
    return [*(rows for rows in (1, 8) if rows < most), most]


def serve(arguments: ServeArguments, config: Config, listener: socket.socket) -> int | None:
    """Serves until stopped; returns the signal that did so."""
    from flax_transformer.api.model import Model
    from flax_transformer.serving.report import Report
    from flax_transformer.serving.server import Server
    from flax_transformer.serving.service import Service

    report = Report(arguments.workdir, url_of(listener), not is_loopback(listener))
    service = Service(
        lambda: Model(arguments.workdir, config, rows_ahead(arguments.batch_lines)),
        arguments.limits,
        list(dict.fromkeys([config.decoding.beam_size, *arguments.beam_sizes])),
        most_lines=arguments.batch_lines,
        wait_seconds=arguments.batch_wait / 1000,
        watcher=report,
    )
    server = Server(service, allowed_hosts(listener, arguments.allowed_hosts))
    server.run_service(listener)
    report.stopped(service.metrics)
    return server.stopped_by
