"""How fast beam search translates: sentences and target tokens per second, on one device.

    python -m benchmarks.decode
    python -m benchmarks.decode --peer ctranslate2
    python -m benchmarks.decode --config configs/wmt_big.py --decoding.beam-size 1
    python -m benchmarks.decode --workdir runs/wmt_base --source newstest2014.en
    python -m benchmarks.decode --workdir runs/wmt_base --source newstest2014.en \
        --peer ctranslate2 --vocabulary-map train.en train.de --one-at-a-time --sentences 50

Beside the search with its cache runs the same search with a step that does the full forward pass
over the whole prefix for each token. As that takes long, it gets some of the batches only, and the
ratio is of the times for these.

Without --workdir the weights are random and the sentences made up, of about as many tokens as 25
words have. A random model does not end its sentences: every translation of a batch is made as long
as the batch's sources are on average, by all contenders alike. A trained model ends where it ends.

With --peer ctranslate2 the same weights are run by CTranslate2 (pip install ctranslate2, no
dependency of this project) in float32, and in int8 for information, on the same batches, in turn
with ours. Where lengths are free, its hypotheses may differ: it normalises them by its own rule
and its own default. With --vocabulary-map SOURCE TARGET it also runs with a map of which target
tokens may translate a source token, counted in these two aligned texts. --one-at-a-time measures
latency: each sentence is a batch of its own. Nothing else should run on the machine.
"""

import dataclasses
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.decode.arguments import Arguments, parse
from benchmarks.decode.batches import Batch, batches_of, made_up_sources
from benchmarks.decode.contenders import Contender, check_peer, contenders_of
from benchmarks.recording import append_record
from benchmarks.timing import in_turns, total
from flax_transformer.batch import Batch as PackedBatch
from flax_transformer.checkpoints.loading import load_parameters
from flax_transformer.commands.command_line import run_command
from flax_transformer.config import MeshConfig
from flax_transformer.models import build_model
from flax_transformer.models.initialization import abstract_params
from flax_transformer.ops.compute_dtype import decoding_config
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.text.tokenizer import EOS_ID
from flax_transformer.text.vocabulary_file import load_tokenizer
from flax_transformer.workdir import TOKENIZER_FILE


def parameters(arguments: Arguments) -> Any:
    """Loads those of --workdir, or draws random ones."""
    config, mesh = arguments.settings, build_mesh(MeshConfig(data=1), jax.devices()[:1])
    if arguments.workdir is not None:
        return load_parameters(arguments.workdir, config, abstract_params(config, mesh)).params
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    ids = jnp.zeros((1, 1), jnp.int32)
    batch = PackedBatch(*(ids for _ in PackedBatch._fields))
    variables = jax.jit(model.init)(jax.random.key(config.training.seed), batch)
    return nn.unbox(variables)["params"]


def sources_of(arguments: Arguments) -> list[list[int]]:
    """Reads the sentences to translate, or makes them up."""
    if arguments.workdir is None or arguments.source is None:
        return made_up_sources(arguments.settings, arguments.sentences, arguments.source)
    tokenizer = load_tokenizer(arguments.workdir / TOKENIZER_FILE)
    lines = arguments.source.read_text(encoding="utf-8").splitlines()[: arguments.sentences]
    longest = arguments.settings.decoding.max_source_length
    return [[*ids[: longest - 1], EOS_ID] for ids in tokenizer.encode(lines)]


def measure(
    contenders: dict[str, Contender], batches: list[Batch], repeats: int
) -> dict[str, dict[str, Any]]:
    """Lets each contender translate its batches, in turn with the others."""
    tokens: dict[tuple[str, int], int] = {}

    def turn(name: str, index: int) -> None:
        tokens[name, index] = contenders[name].translate(batches[index])

    every = [(name, index) for name, one in contenders.items() for index in one.batches]
    seconds = in_turns({each: partial(turn, *each) for each in every}, repeats)
    results: dict[str, dict[str, Any]] = {}
    for name, contender in contenders.items():
        taken = total(seconds[name, index] for index in contender.batches)
        number = sum(tokens[name, index] for index in contender.batches)
        sentences = sum(len(batches[index].ids) for index in contender.batches)
        results[name] = {
            "sentences_per_second": sentences / taken.median,
            "target_tokens_per_second": number / taken.median,
            "target_tokens": number,
            "seconds_of_repeats": taken.turns,
            "batches": len(contender.batches),
        }
    if "full pass" in contenders:
        same = {
            name: total(seconds[name, index] for index in contenders["full pass"].batches)
            for name in ("full pass", "cache")
        }
        faster = same["full pass"].median / same["cache"].median
        results["full pass"]["cache_is_faster"] = faster
    return results


def report(results: dict[str, dict[str, Any]]) -> None:
    """Prints a line for each contender."""
    for name, result in results.items():
        line = (
            f"{name:<30}{result['sentences_per_second']:>9,.1f} sentences/s"
            f"{result['target_tokens_per_second']:>10,.0f} target tokens/s"
        )
        if "cache_is_faster" in result:
            line += f"; the cache is {result['cache_is_faster']:.1f} times as fast there"
        if name.startswith("ctranslate2"):
            own = results["cache"]["target_tokens_per_second"]
            line += f"; ours is {own / result['target_tokens_per_second']:.2f} times as fast"
        print(line)


def main(words: Sequence[str]) -> None:
    arguments = parse(words)
    settings = decoding_config(arguments.settings, jax.devices()[0])
    arguments = dataclasses.replace(arguments, settings=settings)
    config = arguments.settings
    if arguments.peer:
        check_peer(config)
    params = parameters(arguments)
    sources = sources_of(arguments)
    groups = [[source] for source in sources] if arguments.one_at_a_time else [sources]
    fixed_length = arguments.workdir is None
    batches = [each for group in groups for each in batches_of(config, group, fixed_length)]
    contenders = contenders_of(arguments, params, len(batches))
    results = measure(contenders, batches, arguments.repeats)
    report(results)
    figures = {
        "device": jax.devices()[0].device_kind,
        "load_average": os.getloadavg()[0],
        "model": dataclasses.asdict(config.model),
        "decoding": dataclasses.asdict(config.decoding),
        "vocabulary_size": config.tokenizer.vocabulary_size,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "trained": arguments.workdir is not None,
        "one_at_a_time": arguments.one_at_a_time,
        "source_tokens": int(sum(np.count_nonzero(batch.ids) for batch in batches)),
        "results": results,
    }
    packages = ("jax", "jaxlib", "flax", *((arguments.peer,) if arguments.peer else ()))
    append_record(arguments, packages, figures)


if __name__ == "__main__":
    run_command(main)
