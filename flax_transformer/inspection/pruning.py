"""Which attention heads a trained model can do without.

Heads go one after the other, those first without which the loss rises least.

Letters: l layers, h heads.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from tqdm import tqdm

from flax_transformer.errors import require
from flax_transformer.inspection.heads import (
    HeadImportance,
    MaskedModel,
    Masks,
    each_head,
    without,
)

_TRIES = 2
"""Heads beyond those that can go that are tried in vain: BLEU may rise again."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A model with some of its heads masked, and how good it is on the sentences measured on."""

    masks: Masks
    loss: float
    bleu: float

    @property
    def left(self) -> int:
        """Heads of all layers and attentions."""
        return sum(int(mask.sum()) for mask in self.masks.values())


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """A model with fewer and fewer heads.

    stages  the whole model first
    chosen  the last of them that does what was asked for
    """

    stages: tuple[Stage, ...]
    chosen: Stage


def remove_heads(
    masked: MaskedModel,
    importance: HeadImportance,
    *,
    max_loss: float = 0.5,
    heads: int | None = None,
) -> Pruning:
    """Masks one head after the other, the one worth least first, with a bar on stderr.

    max_loss: stops where more points of BLEU than that are lost
    heads:    stops where so many are left, whatever is lost

    Raises `UserError` for numbers that cannot be, and where no head can go.
    """
    whole = Stage(masks=masked.all, loss=importance.whole_loss, bleu=importance.whole_bleu)
    require(max_loss >= 0, f"max_loss is {max_loss}, but must not be negative")
    require(
        heads is None or 0 < heads < whole.left,
        f"heads is {heads}, but the model has {whole.left}: use 1 to {whole.left - 1}",
    )
    stages = [whole]
    good = whole
    with tqdm(desc="Removing heads", unit=" heads", leave=False, disable=None) as bar:
        for masks, loss in _fewer_and_fewer(masked, importance):
            stage = Stage(masks=masks, loss=loss, bleu=masked.bleu(masks))
            stages.append(stage)
            bar.update()
            if stage.left == heads:
                return Pruning(stages=tuple(stages), chosen=stage)
            if stage.bleu >= whole.bleu - max_loss:
                good = stage
            elif heads is None and good.left - stage.left >= _TRIES:
                break
    require(
        good is not whole,
        f"no head can go for {max_loss:g} BLEU: without the one worth least, "
        f"{whole.bleu - stages[1].bleu:.2f} is lost. Allow more, or say how many heads to leave",
    )
    return Pruning(stages=tuple(stages), chosen=good)


def _fewer_and_fewer(
    masked: MaskedModel, importance: HeadImportance
) -> Iterator[tuple[Masks, float]]:
    """Yields masks with one head less each time, down to a single one, and the loss with them.

    The head that goes is the one without which the loss rises least, those gone before being gone.
    As heads go the others are missed more, so what was measured earlier is too low: a head is
    measured anew once it seems to be the least, and goes if it still is (Minoux 1978).
    """
    masks, loss = masked.all, importance.whole_loss
    heap = [(float(importance.loss[kind][place]), kind, place) for kind, place in each_head(masks)]
    heapq.heapify(heap)
    while len(heap) > 1:
        _, kind, place = heapq.heappop(heap)
        fewer = without(masks, kind, place)
        rise = masked.loss(fewer) - loss
        if rise > heap[0][0]:
            heapq.heappush(heap, (rise, kind, place))
            continue
        masks, loss = fewer, loss + rise
        yield masks, loss
