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
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer

_SHORTEST = 16

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
    source_ids = [*tokenizer.encode([source])[0], EOS_ID]
    target_ids = [*tokenizer.target.encode([target])[0], EOS_ID]
    return attend_ids(config, params, tokenizer, source_ids, target_ids)


def attend_ids(
    config: Config,
    params: Any,
    tokenizer: Tokenizer,
    source_ids: list[int],
    target_ids: list[int],
) -> Attention:
    """Returns the weights for ids that end with EOS, such as those that a search read and wrote."""
    inputs = [BOS_ID, *target_ids[:-1]]
    length = padded_length(max(len(source_ids), len(target_ids)))
    weights = _padded_weights(config, params, length, source_ids, inputs, target_ids)
    found = {
        name: array[:, 0, :, : len(rows), : len(columns)]
        for name, rows, columns in (
            ("encoder", source_ids, source_ids),
            ("decoder", inputs, inputs),
            ("cross", inputs, source_ids),
        )
        if (array := weights.get(name)) is not None
    }
    return Attention(
        source=tuple(tokenizer.pieces(source_ids)),
        target=tuple(tokenizer.target.pieces(target_ids)),
        inputs=tuple(tokenizer.target.pieces(inputs)),
        **{name: found.get(name) for name in ("encoder", "decoder", "cross")},
    )


def padded_length(length: int) -> int:
    """Returns the power of two that `length` tokens are padded to: few programs are compiled."""
    return max(1 << (length - 1).bit_length(), _SHORTEST)


def attend_ahead(config: Config, params: Any, length: int) -> None:
    """Compiles and runs what `attend` needs for texts that are padded to `length`."""
    _padded_weights(config, params, length, [EOS_ID], [BOS_ID], [EOS_ID])


def _padded_weights(
    config: Config, params: Any, length: int, *ids: list[int]
) -> dict[str, np.ndarray]:
    batch = jax.device_put(_one_row(length, *ids))
    return jax.device_get(_compile(config)(params, batch))


@cache  # of which jit keeps a program for every length
def _compile(config: Config) -> Any:
    return jax.jit(partial(attention_weights, config))


def _one_row(length: int, source_ids: list[int], inputs: list[int], outputs: list[int]) -> Batch:
    """The pair as a batch of one row, padded to `length`."""

    def row(ids: Any) -> np.ndarray:
        values = np.full((1, length), PAD_ID, np.int32)  # positions and segments are 0 there, too
        values[0, : len(ids)] = ids
        return values

    return Batch(
        source_ids=row(source_ids),
        source_segments=row([1] * len(source_ids)),
        source_positions=row(range(len(source_ids))),
        target_inputs=row(inputs),
        target_outputs=row(outputs),
        target_segments=row([1] * len(inputs)),
        target_positions=row(range(len(inputs))),
    )
