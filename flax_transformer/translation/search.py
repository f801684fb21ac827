"""The search that a model translates a batch with.

Letters: b batch, s source length.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_transformer.config import Config, DecodingConfig
from flax_transformer.decoding.beam_search import Lengthen, beam_search
from flax_transformer.decoding.diverse import lengthen_groups
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.lengths import longest_target
from flax_transformer.decoding.loop import stages
from flax_transformer.decoding.prefix import Prefix
from flax_transformer.decoding.required import lengthen_required
from flax_transformer.decoding.rules import Rule, forbid, minimum_length, no_repeated_ngram
from flax_transformer.decoding.sampling import Sampler, number_sentences, sample
from flax_transformer.decoding.scoring import Scoring
from flax_transformer.models.ensemble import Ensemble
from flax_transformer.models.family import STEP_WEIGHTS
from flax_transformer.parallel.sharding import AXES
from flax_transformer.runtime.compiler_options import search_options
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID


def search(
    model: nn.Module | Ensemble,
    config: Config,
    params: Any,
    ids: jax.Array,
    prefix: Prefix | None = None,
    required: jax.Array | None = None,
    *,
    forbidden: Sequence[Sequence[int]] = (),
    record: bool = False,
) -> Hypotheses:
    """Searches for the translations of source `ids` (b,s), each ended by EOS, then PAD; or draws
    them, with `decoding.sampling`.

    A row that holds EOS alone is padding of the batch and has no hypotheses. Hypotheses have up to
    `decoding.extra_length` tokens more than their source, end symbols counted in both, but never
    more than `longest_target`.

    prefix:    what the hypotheses of each row begin with, shorter than they may be
    required:  (b,c,p) int32, tokens of the phrases that those of each row hold, then PAD
    forbidden: tokens of the phrases that they do not hold
    record:    whether they come with a record of the search
    """
    chex.assert_rank(ids, 2)
    chex.assert_type(ids, jnp.int32)
    (b, s), decoding = ids.shape, config.decoding
    segments = (ids != PAD_ID).astype(jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(s, dtype=jnp.int32)[None], (b, s))
    apply = partial(model.apply, {"params": params})
    max_steps = longest_target(config, s)
    memory = apply(ids, segments, positions, method="encode")
    cache = apply(memory, segments, stages(max_steps)[0], decoding.beam_size, method="start_cache")
    lengths = segments.sum(axis=1)
    variables: dict[str, Any] = {"params": params, STEP_WEIGHTS: apply(method="step_weights")}
    apply_step = partial(model.apply, variables)
    max_lengths = jnp.where(lengths > 1, lengths + decoding.extra_length, 0)
    shared: dict[str, Any] = {
        "max_steps": max_steps,
        "bos_id": BOS_ID,
        "eos_id": EOS_ID,
        "pad_id": PAD_ID,
        "grow": partial(apply, method="grow_cache"),
        "prefix": prefix,
        "rules": rules_of(decoding, forbidden),
    }
    if decoding.sampling:
        return sample(
            partial(apply_step, method="decode_step"),
            cache,
            max_lengths,
            number_sentences(ids),
            sampler=Sampler(decoding.temperature, decoding.top_k, decoding.top_p),
            seed=decoding.seed,
            num_samples=decoding.beam_size,
            **shared,
        )
    with_attention = "_with_attention" if decoding.coverage_penalty else ""
    return beam_search(
        partial(apply_step, method=f"decode_step{with_attention}"),
        cache,
        max_lengths,
        segments != 0,
        beam_size=decoding.beam_size,
        scoring=scoring_of(config),
        lengthen=lengthen_required if required is not None else lengthening_of(decoding),
        required=required,
        groups=decoding.diversity_groups,
        record=record,
        **shared,
    )


def jit_search(search: Callable[..., Hypotheses], mesh: Mesh) -> Any:
    """Returns `search` as a jitted function of (params, arrays with a row for each sentence).

    Every device searches for its own rows with whole parameters, whatever axis it is on, and leaves
    the loop when those are done. Devices may exchange nothing inside it: they would wait for one
    that has left. So no axis is left to XLA.
    """
    rows = PartitionSpec(AXES)

    def search_rows(params: Any, arrays: tuple) -> Hypotheses:
        return search(params, *arrays)

    on_devices = jax.shard_map(
        search_rows,
        mesh=mesh,
        in_specs=(PartitionSpec(), rows),
        out_specs=rows,
        axis_names=set(AXES),
        check_vma=False,
    )
    # Every process gets all results, so that each can write them down.
    return jax.jit(
        on_devices,
        out_shardings=NamedSharding(mesh, PartitionSpec()),
        compiler_options=search_options(mesh.devices.flat[0].platform),
    )


def lengthening_of(decoding: DecodingConfig) -> Lengthen | None:
    """Returns how a beam search chooses, where it is not by probability alone."""
    if (groups := decoding.diversity_groups) > 1:
        return partial(lengthen_groups, groups=groups, strength=decoding.diversity_strength)
    return None


def rules_of(decoding: DecodingConfig, forbidden: Sequence[Sequence[int]]) -> list[Rule]:
    """Returns the rules that are asked for; `forbidden` has the tokens of each phrase."""
    rules: list[Rule] = []
    if (least := decoding.min_length) > 1:
        rules.append(partial(minimum_length, least=least, eos_id=EOS_ID))
    if n := decoding.no_repeat_ngram:
        rules.append(partial(no_repeated_ngram, n=n))
    if forbidden:
        rules.append(partial(forbid, phrases=forbidden, pad_id=PAD_ID))
    return rules


def describe_untranslated(count: int, decoding: DecodingConfig) -> str:
    """Says that `count` lines have no translation, by which rules, and what to do."""
    rules = [
        f"{name} {value}" if isinstance(value, int) else name
        for name in ("min_length", "no_repeat_ngram", "forbidden")
        if (value := getattr(decoding, name))
    ]
    if not rules:
        return f"{count:,} line(s) are left empty: the model gives no translation a probability"
    return (
        f"{count:,} line(s) are left empty: {' and '.join(rules)} leave their translations no word "
        f"to go on with; relax {'one of them' if len(rules) > 1 else 'that'}"
    )


def scoring_of(config: Config) -> Scoring:
    """Returns how a search compares hypotheses of different lengths."""
    decoding = config.decoding
    return Scoring(
        decoding.length_normalization, decoding.length_penalty, decoding.coverage_penalty
    )
