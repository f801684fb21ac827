"""What each attention head of a trained model is worth: the model, with one head masked at a time.

Letters: l layers, h heads.

    masked = MaskedModel(model, sources, references)
    importance = measure_heads(masked)
    importance.loss["cross"]        (l,h): how much worse the model is without each
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flax_transformer.batch import Batch
from flax_transformer.config import Config, TransformerConfig
from flax_transformer.data.packing import PackedRows, select_pairs
from flax_transformer.data.pairs import PairList
from flax_transformer.data.token_cache import tokenize_pairs
from flax_transformer.errors import UserError, require
from flax_transformer.evaluation.evaluation import settle_bleu_tokenizer
from flax_transformer.evaluation.scores import bleu_only
from flax_transformer.files.cache_directory import default_cache_directory
from flax_transformer.models.heads import all_heads, mask_heads
from flax_transformer.ops.cross_entropy import LossSums
from flax_transformer.parallel.rows import place_rows
from flax_transformer.parallel.sharding import on_mesh, replicated
from flax_transformer.training.step import validation_step
from flax_transformer.translation.trained_model import TrainedModel

if TYPE_CHECKING:
    from flax_transformer.inspection.drawing import Picture

Masks = Mapping[str, np.ndarray]
"""By attention (encoder, decoder, cross): (l,h), 1 for heads that stay and 0 for those that go."""


@dataclass(frozen=True, kw_only=True)
class HeadImportance:
    """What each head of a model is worth: arrays (l,h) for encoder, decoder and cross.

    loss         rise of the loss without the head, in nats per target token
    bleu         fall of BLEU without it, in points of 100
    sensitivity  of the loss to fading the head, in nats per target token (Michel et al. 2019,
                 equation 2): cheaper than loss, and only a guess at it
    whole_loss   of the model with all heads
    whole_bleu   likewise
    """

    loss: dict[str, np.ndarray]
    bleu: dict[str, np.ndarray]
    sensitivity: dict[str, np.ndarray]
    whole_loss: float
    whole_bleu: float

    def plot(self) -> "Picture":
        """Returns a picture of `loss`: a heat map for each attention."""
        # Imported here, as matplotlib takes long to load.
        from flax_transformer.inspection.head_report import plot_importance

        return plot_importance(self)


class MaskedModel:
    """A trained model and sentence pairs to measure it on, whichever of its heads are masked.

    all  the masks with which it has all its heads

    Masks are arguments of the compiled programs, so that nothing is compiled twice.
    """

    def __init__(self, model: TrainedModel, sources: Sequence[str], references: Sequence[str]):
        """Raises `UserError` for a recurrent model, and for pairs that cannot be used."""
        self._model, self._sources, self._references = model, list(sources), list(references)
        require(
            len(self._sources) == len(self._references) > 0,
            f"there are {len(self._sources)} sources and {len(self._references)} references: give "
            "one reference for each source, and at least one of both",
        )
        require_transformer(model.config)
        self.all = all_heads(model.params)
        self._tokenizer = settle_bleu_tokenizer(model.config, "auto")
        first: Any = jax.tree.leaves(model.params)[0]
        mesh, whole = first.sharding.mesh, replicated(first.sharding.mesh)
        pairs = PairList(list(zip(sources, references, strict=True)))
        self._rows = list(_batches(model, pairs, mesh.size))
        self._batches = [place_rows(mesh, len(rows.source_ids), rows) for rows in self._rows]
        self._loss = jax.jit(on_mesh(mesh, partial(_masked_loss, model.config)))
        self._slopes = jax.jit(partial(_slopes, model.config), out_shardings=whole)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, model.params)
        self._mask = jax.jit(mask_heads, out_shardings=shardings)

    def loss(self, masks: Masks) -> float:
        """Returns the mean loss of the references, without label smoothing, in nats per token."""
        sums = [self._loss(self._model.params, masks, batch) for batch in self._batches]
        return float(sum(one.loss for one in sums) / sum(one.tokens for one in sums))

    def bleu(self, masks: Masks) -> float:
        """Returns the BLEU of the translations, searched for as `model.config.decoding` says."""
        params = self._mask(self._model.params, masks)
        found = self._model.translator.translate(params, self._sources)
        return bleu_only([best.text for best, *_ in found], self._references, self._tokenizer)

    def sensitivity(self, masks: Masks) -> dict[str, np.ndarray]:
        """Returns how fast the loss changes with each mask, in nats per token.

        That is |A . dL/dA| of each head's output A (Michel et al. 2019, equation 2), of which the
        absolute value is taken in each packed row, and then the mean.
        """
        found = [
            jax.device_get(self._slopes(self._model.params, masks, rows)) for rows in self._rows
        ]
        tokens = sum((rows.target_segments > 0).sum() for rows in self._rows)
        return {kind: sum(slopes[kind] for slopes in found) / tokens for kind in masks}


def require_transformer(config: Config) -> TransformerConfig:
    """Returns the settings of the model; raises `UserError` where it is not a Transformer."""
    if isinstance(config.model, TransformerConfig):
        return config.model
    raise UserError(
        f"the model is recurrent (model.cell {config.model.cell}): only the heads of a Transformer "
        "can be measured and pruned"
    )


def measure_heads(masked: MaskedModel) -> HeadImportance:
    """Measures the model without each of its heads, one after the other, with a bar on stderr."""
    importance = HeadImportance(
        loss={kind: np.zeros_like(mask) for kind, mask in masked.all.items()},
        bleu={kind: np.zeros_like(mask) for kind, mask in masked.all.items()},
        sensitivity=masked.sensitivity(masked.all),
        whole_loss=masked.loss(masked.all),
        whole_bleu=masked.bleu(masked.all),
    )
    heads = list(each_head(masked.all))
    with tqdm(heads, desc="Masking each head", unit=" heads", leave=False, disable=None) as bar:
        for kind, place in bar:
            masks = without(masked.all, kind, place)
            importance.loss[kind][place] = masked.loss(masks) - importance.whole_loss
            importance.bleu[kind][place] = importance.whole_bleu - masked.bleu(masks)
    return importance


def each_head(masks: Masks) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields the attention and the place (layer, head) of every head that is not masked."""
    for kind, mask in masks.items():
        for place in np.argwhere(mask).tolist():
            yield kind, tuple(place)


def without(masks: Masks, kind: str, place: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Returns `masks` in which the head of `kind` at `place` (layer, head) is masked too."""
    mask = masks[kind].copy()
    mask[place] = 0
    return {**masks, kind: mask}


def _batches(model: TrainedModel, pairs: PairList, devices: int) -> Iterator[Batch]:
    """Yields packed rows of `pairs`, so many in a batch as the run has, up to whole `devices`."""
    config = model.config.batch
    config = dataclasses.replace(config, rows=-(-config.rows // devices) * devices)
    cache = default_cache_directory()
    ids = tokenize_pairs(pairs, model.tokenizer, pairs.fingerprint(), cache, "Tokenising")
    kept = select_pairs(ids, config, "the sentences to measure on").kept
    return PackedRows(ids, kept, config, model.config.training.seed).once()


def _masked_loss(config: Config, params: Any, masks: Masks, batch: Batch) -> LossSums:
    """The loss against the true tokens alone: smoothed labels would measure something else."""
    training = dataclasses.replace(config.training, label_smoothing=0.0)
    config = dataclasses.replace(config, training=training)
    return validation_step(config, mask_heads(params, masks), batch)


def _slopes(config: Config, params: Any, masks: Any, batch: Batch) -> Any:
    """The sum over rows of the absolute gradient of the row's loss by each mask (l,h)."""

    def of_row(row: Batch) -> Any:
        one = jax.tree.map(lambda array: array[None], row)
        return jax.grad(lambda masks: _masked_loss(config, params, masks, one).loss)(masks)

    return jax.tree.map(lambda slopes: jnp.abs(slopes).sum(axis=0), jax.lax.map(of_row, batch))
