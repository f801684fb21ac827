"""Dropout as a module, which draws its own key."""

import flax.linen as nn
import jax

from flax_transformer.config import RecurrentConfig, TransformerConfig
from flax_transformer.ops.kernels import ops_for


class Dropout(nn.Module):
    """Zeroes a share `config.dropout` of the elements (Section 5.4).

    No "dropout" key, no dropout.
    """

    config: TransformerConfig | RecurrentConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rate = self.config.dropout
        if rate == 0 or not self.has_rng("dropout"):
            return x
        return ops_for(self.config).dropout(x, self.make_rng("dropout"), rate)
