"""How fast beam search translates: sentences and target tokens a second, on one device.

    python benchmarks/decode.py
    python benchmarks/decode.py --peer ctranslate2
    python benchmarks/decode.py --config configs/wmt_big.py --decoding.beam-size 1
    python benchmarks/decode.py --workdir runs/wmt_base --source newstest2014.en
    python benchmarks/decode.py --workdir runs/wmt_base --source newstest2014.en \
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
latency: each sentence is a batch of its own. Appends a record to benchmarks/records/decode.json.
Nothing else should run on the machine.
"""

import argparse
import dataclasses
import importlib
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import flax.linen as nn
import full_pass
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from decode_batches import Batch, batches_of, made_up_sources
from recording import RECORDS, append_record

from flax_transformer.checkpoints.averaging import load_parameters
from flax_transformer.commands.command_line import parse_arguments, run_command
from flax_transformer.config import Config, MeshConfig
from flax_transformer.config.json import load_config
from flax_transformer.config.shipped import load_config_file
from flax_transformer.data.packing import Batch as PackedBatch
from flax_transformer.decoding.beam_search import Hypotheses, Scoring, beam_search, stages
from flax_transformer.errors import ConfigError
from flax_transformer.models import build_model
from flax_transformer.models.initialization import abstract_params
from flax_transformer.ops.compute_dtype import decoding_config
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer
from flax_transformer.workdir import TOKENIZER_FILE


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Times beam search with a cache, without one, and in another library."""

    config: Path | None = None
    """Python file with the settings; by default the paper's base model."""
    workdir: Path | None = None
    """Work directory of a trained model, in place of random weights; needs --source."""
    source: Path | None = None
    """Sentences to translate; with random weights, those of a made-up text's lengths."""
    sentences: int = 1000
    """Most sentences that are translated."""
    full_pass_batches: int = 1
    """Batches, evenly spaced by length, that the search without a cache gets too; 0 for none."""
    peer: Literal["ctranslate2"] | None = None
    """Another library that translates the same with the same weights."""
    vocabulary_map: tuple[Path, Path] | None = None
    """Two aligned texts from which CTranslate2 gets a vocabulary map; needs --workdir."""
    one_at_a_time: bool = False
    """Whether each sentence is translated alone."""
    repeats: int = 3
    """Repeats that count, after one that compiles and warms up; the median is the result."""
    note: str = ""
    """What a reader should know, such as other load on the machine."""
    record: Path = RECORDS / "decode.json"
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


Translate = Callable[[Batch], int]
"""Translates a batch; returns the number of target tokens, end symbols included."""


def parse(words: Sequence[str]) -> Arguments:
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path)
    finder.add_argument("--workdir", type=Path)
    known = finder.parse_known_args(words)[0]
    settings = Config() if known.config is None else load_config_file(known.config)
    if known.workdir is not None:
        settings = load_config(known.workdir / "config.json")
    arguments = parse_arguments(Arguments, words, Arguments(settings=settings))
    if arguments.workdir is not None and arguments.source is None:
        raise ConfigError("--workdir needs --source: a trained model wants real sentences")
    if arguments.vocabulary_map is not None and arguments.workdir is None:
        raise ConfigError("--vocabulary-map needs --workdir: random weights know no words")
    if arguments.settings.decoding.coverage_penalty:
        raise ConfigError(
            "decoding.coverage_penalty needs attention: the benchmark has none, use 0"
        )
    return arguments


def search(
    config: Config, with_cache: bool, params: Any, ids: jax.Array, longest: jax.Array
) -> Hypotheses:
    """As the translator's with `longest` () tokens at most, `with_cache` or without."""
    model, decoding = build_model(config.model, config.tokenizer.vocabulary_size), config.decoding
    apply = partial(model.apply, {"params": params})
    segments = (ids != PAD_ID).astype(jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids.shape)
    memory = apply(ids, segments, positions, method="encode")
    max_steps = ids.shape[1] + decoding.extra_length
    room = (memory, segments, stages(max_steps)[0], decoding.beam_size)
    return beam_search(
        partial(apply, method="decode_step")
        if with_cache
        else partial(full_pass.step, model, params),
        apply(*room, method="start_cache") if with_cache else full_pass.start(*room),
        jnp.full(len(ids), longest),
        segments != 0,
        max_steps=max_steps,
        beam_size=decoding.beam_size,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        pad_id=PAD_ID,
        scoring=Scoring(decoding.length_normalization, decoding.length_penalty),
        grow=partial(apply, method="grow_cache") if with_cache else full_pass.grow,
    )


def ours(config: Config, params: Any, *, with_cache: bool) -> Translate:
    compiled = jax.jit(partial(search, config, with_cache))

    def translate(batch: Batch) -> int:
        found = compiled(params, batch.ids, jnp.int32(batch.longest))
        return int(np.count_nonzero(np.asarray(found.ids[:, 0]) != PAD_ID))

    return translate


def ctranslate2(
    config: Config, params: Any, compute_type: str, candidates: dict[Any, list[int]] | None
) -> Translate:
    from ctranslate2_model import CTranslate2Model  # the library is only there for the comparison

    threads = len(os.sched_getaffinity(0))
    model = CTranslate2Model(config, params, compute_type, threads, candidates)

    def translate(batch: Batch) -> int:
        sources = [[index for index in row if index != PAD_ID] for row in batch.ids.tolist()]
        fixed = batch.shortest == batch.longest
        beam_size = config.decoding.beam_size
        # It does not count end symbols, which come after the shortest of free lengths.
        shortest = batch.shortest if fixed else batch.shortest - 1
        found = model.translate(sources, beam_size, shortest, batch.longest)
        return sum(len(ids) + (not fixed) for ids in found)

    return translate


def check_peer(config: Config) -> None:
    """Raises `ConfigError` where the peer is missing or cannot run this model."""
    try:
        importlib.import_module("ctranslate2")
    except ImportError as error:
        raise ConfigError(f"--peer ctranslate2: {error}; pip install ctranslate2") from None
    if config.model.norm != "post" or config.model.positions != "sinusoidal":
        raise ConfigError("--peer ctranslate2 runs the paper's model: norm post, sinusoidal")


def parameters(arguments: Arguments) -> Any:
    config, mesh = arguments.settings, build_mesh(MeshConfig(data=1), jax.devices()[:1])
    if arguments.workdir is not None:
        return load_parameters(arguments.workdir, config, abstract_params(config, mesh)).params
    model = build_model(config.model, config.tokenizer.vocabulary_size)
    ids = jnp.zeros((1, 1), jnp.int32)
    batch = PackedBatch(*(ids for _ in PackedBatch._fields))
    variables = jax.jit(model.init)(jax.random.key(config.training.seed), batch)
    return nn.unbox(variables)["params"]


def sources_of(arguments: Arguments) -> list[list[int]]:
    if arguments.workdir is None or arguments.source is None:
        return made_up_sources(arguments.settings, arguments.sentences, arguments.source)
    tokenizer = Tokenizer.load(arguments.workdir / TOKENIZER_FILE)
    lines = arguments.source.read_text(encoding="utf-8").splitlines()[: arguments.sentences]
    longest = arguments.settings.decoding.max_source_length
    return [[*ids[: longest - 1], EOS_ID] for ids in tokenizer.encode(lines)]


def measure(
    contenders: dict[str, tuple[Translate, list[int]]], batches: list[Batch], repeats: int
) -> dict[str, Any]:
    """Each contender translates its batches, in turn with the others."""
    seconds: dict[str, list[dict[int, float]]] = {name: [] for name in contenders}
    tokens: dict[str, int] = {}
    for repeat in range(repeats + 1):
        for name, (translate, chosen) in contenders.items():
            tokens[name], taken = 0, {}
            for index in chosen:
                start = time.perf_counter()
                tokens[name] += translate(batches[index])
                taken[index] = time.perf_counter() - start
            if repeat:  # the first compiles
                seconds[name].append(taken)
    results = {}
    for name, (_, chosen) in contenders.items():
        totals = [sum(taken.values()) for taken in seconds[name]]
        median = statistics.median(totals)
        results[name] = {
            "sentences_per_second": sum(len(batches[index].ids) for index in chosen) / median,
            "target_tokens_per_second": tokens[name] / median,
            "target_tokens": tokens[name],
            "seconds_of_repeats": totals,
            "batches": len(chosen),
        }
    if "full pass" in contenders:
        same = [[taken[i] for i in contenders["full pass"][1]] for taken in seconds["cache"]]
        slow = statistics.median(results["full pass"]["seconds_of_repeats"])
        results["full pass"]["cache_is_faster"] = slow / statistics.median(map(sum, same))
    return results


def contenders_of(
    arguments: Arguments, params: Any, batches: list[Batch]
) -> dict[str, tuple[Translate, list[int]]]:
    """Everything that is timed, with the numbers of the batches that it gets."""
    config, every = arguments.settings, list(range(len(batches)))
    found = {"cache": (ours(config, params, with_cache=True), every)}
    if some := min(arguments.full_pass_batches, len(batches)):
        spaced = [(2 * i + 1) * len(batches) // (2 * some) for i in range(some)]
        found["full pass"] = (ours(config, params, with_cache=False), spaced)
    if arguments.peer == "ctranslate2":
        maps = {"": None}
        if arguments.vocabulary_map is not None:
            maps[" with map"] = vocabulary_map(arguments)
        for compute_type in ("float32", "int8"):
            for name, candidates in maps.items():
                translate = ctranslate2(config, params, compute_type, candidates)
                found[f"ctranslate2 {compute_type}{name}"] = (translate, every)
    return found


def vocabulary_map(arguments: Arguments) -> Any:
    from ctranslate2_model import candidates_of

    assert arguments.workdir is not None and arguments.vocabulary_map is not None
    tokenizer = Tokenizer.load(arguments.workdir / TOKENIZER_FILE)
    sides = [path.read_text(encoding="utf-8").split("\n") for path in arguments.vocabulary_map]
    return candidates_of(zip(*map(tokenizer.encode, sides), strict=True))


def report(results: dict[str, Any]) -> None:
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
    results = measure(contenders_of(arguments, params, batches), batches, arguments.repeats)
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
    append_record(arguments.record, packages, arguments.note, figures)


if __name__ == "__main__":
    run_command(main)
