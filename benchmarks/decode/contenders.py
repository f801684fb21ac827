"""What takes turns in translating: our search with a cache and without, and CTranslate2."""

import ctypes
import importlib
import os
import types
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.decode import full_pass
from benchmarks.decode.arguments import Arguments
from benchmarks.decode.batches import Batch
from flax_transformer.config import Config
from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.loop import stages
from flax_transformer.decoding.scoring import Scoring
from flax_transformer.errors import UserError, require
from flax_transformer.models import build_model
from flax_transformer.models.family import STEP_WEIGHTS
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID
from flax_transformer.text.vocabulary_file import load_tokenizer
from flax_transformer.workdir import TOKENIZER_FILE

Translate = Callable[[Batch], int]
"""Translates a batch; returns the number of target tokens, end symbols included."""


class Contender(NamedTuple):
    """Something that translates, and the numbers of the `batches` that it gets."""

    translate: Translate
    batches: list[int]


def contenders_of(arguments: Arguments, params: Any, batches: int) -> dict[str, Contender]:
    """Makes everything that is timed; `batches`: how many there are."""
    config, every = arguments.settings, list(range(batches))
    found = {"cache": Contender(ours(config, params, with_cache=True), every)}
    if some := min(arguments.full_pass_batches, batches):
        spaced = [(2 * i + 1) * batches // (2 * some) for i in range(some)]
        found["full pass"] = Contender(ours(config, params, with_cache=False), spaced)
    if arguments.peer == "ctranslate2":
        maps = {"": None}
        if arguments.vocabulary_map is not None:
            maps[" with map"] = _vocabulary_map(arguments)
        on_gpu = jax.default_backend() == "gpu"
        for compute_type in ("bfloat16", "int8_bfloat16") if on_gpu else ("float32", "int8"):
            for name, candidates in maps.items():
                translate = _ctranslate2(config, params, compute_type, candidates)
                found[f"ctranslate2 {compute_type}{name}"] = Contender(translate, every)
    return found


def check_peer(config: Config) -> None:
    """Raises `UserError` where the peer is missing or cannot run this model."""
    try:
        missing = missing_library(importlib.import_module("ctranslate2"))
    except ImportError as error:
        raise UserError(f"--peer ctranslate2: {error}; pip install ctranslate2") from None
    require(missing is None, f"--peer ctranslate2: {missing}")
    if config.model.norm != "post" or config.model.positions != "sinusoidal":
        raise UserError("--peer ctranslate2 runs the paper's model: norm post, sinusoidal")
    if {config.model.encoder_heads, config.model.decoder_heads, config.model.cross_heads} != {None}:
        raise UserError("--peer ctranslate2 runs no pruned model: name one with all its heads")


def missing_library(ctranslate2: types.ModuleType) -> str | None:
    """Returns what CTranslate2 lacks where there is a GPU, and the remedy."""
    if not ctranslate2.get_cuda_device_count():
        return None
    try:
        ctypes.CDLL("libcublas.so.12")
    except OSError as error:
        return f"{error}; pip install nvidia-cublas-cu12, its lib folder in LD_LIBRARY_PATH"
    return None


def ours(config: Config, params: Any, *, with_cache: bool) -> Translate:
    """Our search, compiled at the first batch of each shape."""
    compiled = jax.jit(partial(search, config, with_cache))

    def translate(batch: Batch) -> int:
        found = compiled(params, batch.ids, jnp.int32(batch.longest))
        return int(np.count_nonzero(np.asarray(found.ids[:, 0]) != PAD_ID))

    return translate


def search(
    config: Config, with_cache: bool, params: Any, ids: jax.Array, longest: jax.Array
) -> Hypotheses:
    """Searches as the translator does, for `longest` () tokens at most, with a cache or without."""
    model, decoding = build_model(config.model, config.tokenizer.vocabulary_size), config.decoding
    apply = partial(model.apply, {"params": params})
    segments = (ids != PAD_ID).astype(jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1], dtype=jnp.int32)[None], ids.shape)
    memory = apply(ids, segments, positions, method="encode")
    max_steps = ids.shape[1] + decoding.extra_length
    room = (memory, segments, stages(max_steps)[0], decoding.beam_size)
    weights: dict[str, Any] = {"params": params, STEP_WEIGHTS: apply(method="step_weights")}
    return beam_search(
        partial(model.apply, weights, method="decode_step")
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


def _ctranslate2(
    config: Config, params: Any, compute_type: str, candidates: dict[Any, list[int]] | None
) -> Translate:
    # The library is only there for the comparison.
    from benchmarks.decode.peers.ctranslate2 import CTranslate2Model

    threads = len(os.sched_getaffinity(0))
    model = CTranslate2Model(config, params, compute_type, threads, candidates)

    def translate(batch: Batch) -> int:
        sources = [[index for index in row if index != PAD_ID] for row in batch.ids.tolist()]
        fixed = batch.shortest == batch.longest
        # It does not count end symbols, which come after the shortest of free lengths.
        shortest = batch.shortest if fixed else batch.shortest - 1
        found = model.translate(sources, config.decoding.beam_size, shortest, batch.longest)
        return sum(len(ids) + (not fixed) for ids in found)

    return translate


def _vocabulary_map(arguments: Arguments) -> Any:
    from benchmarks.decode.peers.ctranslate2 import candidates_of

    assert arguments.workdir is not None and arguments.vocabulary_map is not None
    tokenizer = load_tokenizer(arguments.workdir / TOKENIZER_FILE)
    sides = [path.read_text(encoding="utf-8").split("\n") for path in arguments.vocabulary_map]
    return candidates_of(zip(*map(tokenizer.encode, sides), strict=True))
