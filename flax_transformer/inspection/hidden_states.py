"""What flows between the layers of a Transformer, read where it flows.

Letters: l layers, b batch, s source position, t target position, d width.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.batch import Batch
from flax_transformer.config import Config, TransformerConfig
from flax_transformer.errors import UserError
from flax_transformer.models import build_model
from flax_transformer.models.transformer import Embedding, Residual
from flax_transformer.ops.layer_stack import TAPPED

_LAST = "feed_forward_residual"
"""The module of a layer whose output is the layer's."""
_SEEN = "hidden_states"


def hidden_states(config: Config, params: Any, batch: Batch) -> dict[str, jax.Array]:
    """Returns the vectors at every position: of the embeddings, then after each layer.

    encoder  (1+l,b,s,d)
    decoder  (1+l,b,t,d), fed the true target

    All are float32; with `model.norm` "pre" they are those before the norm after the last layer.
    The model itself knows nothing of it: its calls are intercepted while this function is traced.
    Raises `UserError` for a model without such layers.
    """
    if not isinstance(config.model, TransformerConfig):
        raise UserError(
            f"model.kind is {type(config.model).__name__}, but hidden states are read between the "
            "layers of a Transformer: choose a run of one"
        )
    model = build_model(config.model, config.tokenizer.vocabulary_size)

    def read(call, arguments, keywords, context: nn.module.InterceptorContext):
        output, module = call(*arguments, **keywords), context.module
        ends_layer = isinstance(module, Residual) and module.name == _LAST
        if context.method_name == "__call__" and (ends_layer or isinstance(module, Embedding)):
            module.sow(TAPPED, _SEEN, output.astype(jnp.float32))
        return output

    with nn.intercept_methods(read):
        _, variables = model.apply({"params": params}, batch, mutable=[TAPPED])
    seen: Any = dict(variables)[TAPPED]
    embedded = dict(zip(("encoder", "decoder"), seen["embedding"][_SEEN], strict=True))
    return {
        side: jnp.concatenate([embedded[side][None], *seen[side][_LAST][_SEEN]])
        for side in embedded
    }
