"""What a decoder's state s_t looks at in the source: the scores of the papers before 2017.

Letters: b batch, w target positions or beams, s source position, d width, u the same width after a
product, h heads, k width of a head. In the papers' symbols: h_i is the encoder's state at
position i, e_ti = score(s_t, h_i), alpha_ti = softmax_i(e_ti) and c_t = sum_i alpha_ti h_i.
"""

from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.config import RecurrentConfig
from flax_transformer.models.parameters import with_axes
from flax_transformer.models.transformer import MultiHeadAttention
from flax_transformer.ops.kernels import Ops, ops_for
from flax_transformer.ops.recurrence import Multiply, Weights

PRODUCTS: dict[str, dict[str, str]] = {
    "none": {},
    "dot": {"keys": "bwd,bsd->bws", "values": "bws,bsd->bwd"},
    "general": {"keys": "bwd,bsd->bws", "values": "bws,bsd->bwd"},
    "concat": {"query": "bwd,du->bwu", "values": "bws,bsd->bwd"},
    "multi_head": {
        "query": "bwd,dhk->bwhk",
        "keys": "bwhk,bshk->bhws",
        "values": "bhws,bshk->bwhk",
        "output": "bwhk,hkd->bwd",
    },
}
"""The products that each kind takes for every s_t.

dot         e_ti = s_t . h_i (Luong et al. 2015, section 3.1)
general     e_ti = s_t^T W h_i (the same section)
concat      `_concat_scores`
multi_head  those of the Transformer's heads
"""


class Attention(nn.Module):
    """The parameters of an attention, and all that depends on the source alone."""

    config: RecurrentConfig

    def setup(self):
        d, kind = self.config.d_model, self.config.attention
        xavier, normal = nn.initializers.xavier_uniform(), nn.initializers.normal(d**-0.5)
        if kind == "general":
            self.matrix = self.param("matrix", with_axes(xavier, "du"), (d, d))
        if kind == "concat":
            self.query = self.param("query", with_axes(xavier, "du"), (d, d))
            self.key = self.param("key", with_axes(xavier, "du"), (d, d))
            self.vector = self.param("vector", with_axes(normal, "u"), (d,))
        if self.config.coverage:
            self.coverage = self.param("coverage", with_axes(normal, "u"), (d,))
        if kind == "multi_head":
            self.heads = MultiHeadAttention(self.config)

    def parameters(self) -> Weights:
        """Returns the parameters that `attend` takes, the same for every source."""
        match self.config.attention:
            case "concat":
                coverage = {"coverage": self.coverage} if self.config.coverage else {}
                return {"query": self.query, "vector": self.vector} | coverage
            case "multi_head":
                return {"query": self.heads.query, "output": self.heads.output}
        return {}

    def attend_init(self, memory: jax.Array) -> Weights:
        """Returns what `attend` takes of the states `memory` (b,s,d): one product for all t."""
        chex.assert_axis_dimension(memory, -1, self.config.d_model)
        einsum = ops_for(self.config).einsum
        match self.config.attention:
            case "general":
                keys = einsum("bsu,du->bsd", memory, self.matrix)
            case "concat":
                keys = einsum("bsd,du->bsu", memory, self.key, out_dtype=jnp.float32)
            case "multi_head":
                keys, memory = self.heads.keys_and_values(memory)
            case _:
                keys = memory
        return {"keys": keys, "values": memory}


def attend(
    config: RecurrentConfig,
    multiply: Multiply,
    constants: Weights,
    state: jax.Array,
    mask: jax.Array,
    coverage: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Looks at the source from the decoder's states s_t.

    multiply   the `PRODUCTS` of the attention's kind
    constants  the arrays of `Attention` that it takes besides
    state      s_t, (b,w,d)
    mask       bool (b,w,s), true where s_t may look
    coverage   (b,w,s), the sum of alpha so far
    results    c_t (b,w,d) and alpha_t (b,h,w,s) of every head (most kinds have one), both float32
    """
    chex.assert_rank([state, mask], 3)
    if config.attention == "multi_head":
        query = multiply("query", state)
        weights = _softmax(multiply("keys", query * query.shape[-1] ** -0.5), mask[:, None])
        return multiply("output", multiply("values", weights)), weights
    if config.attention == "concat":
        # The largest array of all, (b,w,s,u), is computed again for the gradient, not kept.
        ops = ops_for(config)
        score = ops.recompute(partial(_concat_scores, ops))
        scores = score(multiply("query", state), constants, coverage)
    else:
        scores = multiply("keys", state)
    weights = _softmax(scores, mask)
    return multiply("values", weights), weights[:, None]


def _concat_scores(
    ops: Ops, query: jax.Array, constants: Weights, coverage: jax.Array | None
) -> jax.Array:
    """Returns e_ti = v^T tanh(W s_t + U h_i) (Bahdanau et al. 2015, A.1.2).

    With coverage v^T tanh(W s_t + U h_i + w sum_(t'<t) alpha_t'i) (See et al. 2017, equation 11).
    """
    inner = query[:, :, None] + constants["keys"][:, None]
    if coverage is not None:
        inner += coverage[..., None] * constants["coverage"][None, None, None]
    return ops.einsum("bwsu,u->bws", jnp.tanh(inner), constants["vector"], dtype=jnp.float32)


def _softmax(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the softmax over visible positions; finite, if meaningless, where none is visible."""
    scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores, axis=-1)
