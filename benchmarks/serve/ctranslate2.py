"""Our server with CTranslate2 after it, to compare with: the same weights, the same batches of
requests (pip install ctranslate2, no dependency of this project).

    python -m benchmarks.serve.ctranslate2 --workdir runs/quickstart --port 0
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.decode.peers.ctranslate2 import CTranslate2Model
from flax_transformer.checkpoints.loading import load_parameters
from flax_transformer.commands.command_line import parse_decoding_arguments, run_command
from flax_transformer.commands.serve import ServeArguments
from flax_transformer.config import Config, MeshConfig
from flax_transformer.models.initialization import abstract_params
from flax_transformer.ops.compute_dtype import decoding_config
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.serving.listener import allowed_hosts, listen, url_of
from flax_transformer.serving.server import Server
from flax_transformer.serving.service import Service
from flax_transformer.text.tokenizer import EOS_ID
from flax_transformer.text.vocabulary_file import load_tokenizer
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.workdir import TOKENIZER_FILE


class CTranslate2Searcher:
    """Translates lines that are short enough to be translated in one piece."""

    def __init__(self, workdir: Path, config: Config):
        mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
        config = decoding_config(config, jax.devices()[0])
        params = load_parameters(workdir, config, abstract_params(config, mesh)).params
        threads = len(os.sched_getaffinity(0))
        self._model = CTranslate2Model(config, jax.device_get(params), "float32", threads)
        self._tokenizer = load_tokenizer(workdir / TOKENIZER_FILE)
        self._decoding = config.decoding

    def search(
        self,
        lines: Sequence[str],
        *,
        prefixes: Sequence[str] | None = None,
        beam_size: int | None = None,
    ) -> list[list[Hypothesis]]:
        assert prefixes is None
        sources = [[*ids, EOS_ID] for ids in self._tokenizer.encode(lines)]
        longest = max(map(len, sources)) + self._decoding.extra_length
        width = beam_size or self._decoding.beam_size
        found = self._model.translate(sources, width, 1, longest)
        texts = self._tokenizer.decode(found)
        return [
            [Hypothesis(text, 0.0, len(ids) + 1)] for text, ids in zip(texts, found, strict=True)
        ]


class CTranslate2Service(Service):
    """A service whose translations are those of CTranslate2."""

    def __init__(self, workdir: Path, config: Config, *arguments: Any, **options: Any):
        super().__init__(lambda: None, *arguments, **options)  # type: ignore[arg-type]
        self._make = lambda: CTranslate2Searcher(workdir, config)

    def prepare(self) -> Any:
        model = self._make()
        model.search(["warm"])
        return model


def main(words: Sequence[str]) -> None:
    arguments, config = parse_decoding_arguments(ServeArguments, words)
    listener = listen(arguments.host, arguments.port)
    print(f"listening on {url_of(listener)}; loading the model", flush=True)
    service = CTranslate2Service(
        arguments.workdir,
        config,
        arguments.limits,
        [config.decoding.beam_size],
        most_lines=arguments.batch_lines,
        wait_seconds=arguments.batch_wait / 1000,
    )
    server = Server(service, allowed_hosts(listener, ()))
    server.run_service(listener)
    if server.stopped_by is not None:
        signal.raise_signal(server.stopped_by)


if __name__ == "__main__":
    run_command(main)
