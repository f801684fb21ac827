"""Where attention weights can be read (see `attention_weights`)."""

import flax.linen as nn
import jax

from flax_transformer.ops.layer_stack import TAPPED


class Tap(nn.Module):
    """Gives back the attention weights that flow through it, unchanged.

    Who wants to read them intercepts the call.
    """

    def __call__(self, weights: jax.Array) -> jax.Array:
        """`weights`: (b,h,t,s) in float32, which sum to one over s."""
        return weights

    def is_read(self) -> bool:
        """Whether anyone reads; else a loop need not keep the weights of its turns."""
        return self.is_mutable_collection(TAPPED)
