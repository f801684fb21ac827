"""Where a trained model looks, for one sentence pair: `model.attention("I like cold coffee.")`.

Letters: l layers, h heads, s source position, t target position.
"""

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.models.attention_weights import attention_weights
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, Tokenizer

if TYPE_CHECKING:
    from flax_transformer.inspection.drawing import Picture


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The weights of every attention of every layer and head; each row sums to one.

    source   the s pieces that were read, the end symbol last
    target   the t pieces that were written, the end symbol last
    inputs   the t pieces that the decoder was fed: the beginning symbol, then `target`
    encoder  (l,h,s,s), from source to source
    decoder  (l,h,t,t), from inputs to inputs, of which none looks at what comes later
    cross    (l,h,t,s): row t where it looks when it writes target[t]

    What a model does not have is None: a recurrent one has "cross" at most, in one layer.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    inputs: tuple[str, ...]
    encoder: np.ndarray | None
    decoder: np.ndarray | None
    cross: np.ndarray | None

    def plot(
        self,
        kind: Literal["encoder", "decoder", "cross"] = "cross",
        layer: int | None = None,
        head: int | None = None,
    ) -> "Picture":
        """Returns heat maps of one kind of attention, as a matplotlib Figure.

        layer, head: counted from 1; with both that head large, else all that are left, side by side

        Raises `UserError` where the model has no such attention, layer or head.
        """
        from flax_transformer.inspection.heat_maps import plot_attention

        return plot_attention(self, kind, layer, head)


def attend(
    config: Config, params: Any, tokenizer: Tokenizer, source: str, target: str
) -> Attention:
    """Returns the weights for `source` while the decoder is fed `target`."""
    source_ids, target_ids = ([*ids, EOS_ID] for ids in tokenizer.encode([source, target]))
    inputs = [BOS_ID, *target_ids[:-1]]
    batch = jax.device_put(_one_row(source_ids, inputs, target_ids))
    weights = jax.device_get(_compile(config)(params, batch))
    found = {name: array[:, 0] for name, array in weights.items()}
    return Attention(
        source=tuple(tokenizer.pieces(source_ids)),
        target=tuple(tokenizer.pieces(target_ids)),
        inputs=tuple(tokenizer.pieces(inputs)),
        **{name: found.get(name) for name in ("encoder", "decoder", "cross")},
    )


@cache  # of which jit keeps a program for every pair of lengths
def _compile(config: Config) -> Any:
    return jax.jit(partial(attention_weights, config))


def _one_row(source_ids: list[int], inputs: list[int], outputs: list[int]) -> Batch:
    """The pair as a batch of one row."""

    def row(ids: Any) -> np.ndarray:
        return np.asarray(ids, np.int32)[None]

    return Batch(
        source_ids=row(source_ids),
        source_segments=row([1] * len(source_ids)),
        source_positions=row(range(len(source_ids))),
        target_inputs=row(inputs),
        target_outputs=row(outputs),
        target_segments=row([1] * len(inputs)),
        target_positions=row(range(len(inputs))),
    )
