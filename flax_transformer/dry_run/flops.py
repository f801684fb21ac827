"""Floating point operations of a training step: those of the formula, and those of the program."""

import math
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from flax_transformer.config import Config, RecurrentConfig, TransformerConfig
from flax_transformer.ops.attention_cudnn import BACKWARD_CALL, FORWARD_CALL

_VECTORS = ("bias", "scale", "b1", "b2", "vector", "coverage")
_OF_SOURCE = ("key", "value", "matrix")
"""What attention to the source multiplies the encoder's output by, once for all of the target."""

_CUDNN_PRODUCTS = {FORWARD_CALL: 2, BACKWARD_CALL: 5}
"""Products of cuDNN's attention, each over every pair of a query and a key. Its forward pass has
scores and weighted sum; its backward pass the scores again, and the gradients of weights, queries,
keys and values."""


class ModelFlops(NamedTuple):
    """Operations per step over all rows, forward and backward; padding is counted like tokens."""

    matrices: float
    """6 for every number of a matrix and every position that it multiplies: one product forward
    and two backward, each a multiplication and an addition."""
    scores: float
    """12 d for every pair of a query and a key in every attention: scores and weighted sum. Where
    heads were pruned, 12 times the width of those left."""


def model_flops(config: Config, params: Any) -> ModelFlops:
    """Returns what `config`'s model needs by definition, whatever is computed twice.

    Chowdhery et al. 2022, appendix B, count 6N + 12LHQT for a token of a decoder: N parameters, L
    layers of H heads of width Q, T positions. `matrices` stands for 6N, `scores` for 12LHQT, each
    over all tokens of a step. Both together are theirs, but our utilisation (roofline.py) leaves
    `scores` out, so that it is the lower one. The terms differ, as there is a source and a target:

    - Encoder matrices multiply every source position, decoder matrices every target position, but
      for what attention makes of the source.
    - N is matrices alone: the shared table once, as the output matrix, at target positions.
      Looking up an embedding, norms and biases are left out.
    - LT is pairs of a query and a key, over encoder, decoder and attention between them; HQ is d.
    """
    batch = config.batch
    source, target = batch.rows * batch.source_length, batch.rows * batch.target_length
    products = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [entry.key for entry in path]
        if names[0] in ("encoder", "decoder") and names[-1] not in _VECTORS:
            products += leaf.size * (source if _multiplies_source(names) else target)
        elif names[-1] == "table":
            products += leaf.size * target
    attended = _attended_numbers(config.model, batch.source_length, batch.target_length)
    return ModelFlops(6.0 * products, 12.0 * batch.rows * attended)


def step_numbers(params: Any) -> int:
    """Returns how many numbers of matrices a position of the target multiplies.

    Those are the decoder's, but for what attention makes of the source, and the output matrix.
    """
    numbers = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [entry.key for entry in path]
        of_decoder = names[0] == "decoder" and names[-1] not in _VECTORS
        if names[-1] == "table" or (of_decoder and not _multiplies_source(names)):
            numbers += leaf.size
    return numbers


def _multiplies_source(names: list[str]) -> bool:
    """Returns whether the matrix at `names` in the parameters multiplies the source."""
    # A recurrent decoder's only attention is the one to the source.
    looks_at_source = {"cross_attention", "attention"} & {*names}
    return names[0] == "encoder" or bool(looks_at_source and names[-1] in _OF_SOURCE)


def _attended_numbers(model: TransformerConfig | RecurrentConfig, source: int, target: int) -> int:
    """Returns how often a number of a query meets one of a key in a row of `source` and `target`
    tokens: d times for every pair of them, less where heads were pruned.

    All layers count, and masked pairs too.
    """
    if isinstance(model, RecurrentConfig):
        return source * target * model.d_model if model.attends_to_source else 0
    encoder = source * source * (model.encoder_heads or model.num_heads)
    decoder = target * target * (model.decoder_heads or model.num_heads)
    cross = target * source * (model.cross_heads or model.num_heads)
    of_heads = model.num_encoder_layers * encoder + model.num_decoder_layers * (decoder + cross)
    return model.d_model // model.num_heads * of_heads


def traced_flops(jaxpr: ClosedJaxpr | Jaxpr) -> float:
    """Returns the operations of all matrix products of a traced program, over all devices.

    Those inside cuDNN's attention are not in the trace: they follow from its arrays. Every turn of
    a loop counts, as does what remat computes again. Of branches the dearest counts; a loop of
    unknown length counts once, and a kernel that holds one with what it says of itself.
    """
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: JaxprEqn) -> float:
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left: Any = equation.invars[0].aval
        result: Any = equation.outvars[0].aval
        return 2.0 * math.prod(result.shape) * math.prod(left.shape[axis] for axis in contracted)
    if products := _CUDNN_PRODUCTS.get(equation.primitive.name):
        query, key = _shapes(equation)[:2]  # (b,t,h,k), (b,s,h,k)
        return 2.0 * products * math.prod(query) * key[1]
    inner = [
        traced_flops(value)
        for value in jax.tree.leaves(list(equation.params.values()))
        if isinstance(value, ClosedJaxpr | Jaxpr)
    ]
    if equation.primitive.name == "cond":
        return max(inner)
    found = _turns(equation) * sum(inner)
    estimate = equation.params.get("cost_estimate")
    return max(found, estimate.flops) if found and estimate else found


def _shapes(equation: JaxprEqn) -> list[tuple[int, ...]]:
    operands: list[Any] = list(equation.invars)
    return [operand.aval.shape for operand in operands]


def _turns(equation: JaxprEqn) -> int:
    """Returns how often all devices together run what is inside an equation."""
    if equation.primitive.name == "scan":
        return equation.params["length"]
    if equation.primitive.name == "shard_map":
        return equation.params["mesh"].size
    if equation.primitive.name == "pallas_call":
        return math.prod(equation.params["grid_mapping"].grid)
    return 1
