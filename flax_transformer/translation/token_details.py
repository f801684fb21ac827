"""What a model has to say of each token of a translation: how probable it was, and what it renders.

Letters: l layers, b batch, h heads, t target length, s source length.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.data.token_cache import TokenizedPairs
from flax_transformer.models.attention_weights import look_at_attention
from flax_transformer.models.ensemble import Ensemble
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.translation.pair_batches import PairFunction
from flax_transformer.translation.pair_scores import PairScorer


class TokenDetails(NamedTuple):
    """The tokens of a translation, one by one.

    source_tokens:     pieces of the line, a tag before them, the end symbol "</s>" last; of a line
                       that was cut, those of all its pieces
    tokens:            pieces of the translation, likewise
    log_probabilities: natural logarithm of each token's probability
    alignment:         of each token the place in `source_tokens`, from 0, of the one that it
                       renders; None from a model without attention
    """

    source_tokens: tuple[str, ...]
    tokens: tuple[str, ...]
    log_probabilities: tuple[float, ...]
    alignment: tuple[int, ...] | None


def aligned_positions(model: nn.Module | Ensemble, params: Any, batch: Batch) -> jax.Array:
    """Returns the source position that each target position looks at while it is written: (b,t).

    It is where the mean over the heads of the last layer has its maximum. Of all heads and layers
    that was found to be the best alignment (docs/probing.md). Of an ensemble it is the mean over
    its models.
    """

    def look(name: str, weights: jax.Array) -> jax.Array:
        return weights.mean(axis=1) if name == "cross" else jnp.zeros(())  # bts of bhts

    together = isinstance(model, Ensemble)
    members: Any = zip(model.models, params, strict=True) if together else [(model, params)]
    looks = [look_at_attention(one, own, batch, look)["cross"][-1] for one, own in members]
    return sum(looks[1:], looks[0]).argmax(axis=-1).astype(jnp.int32)


class TokenExplainer:
    """Tells the details of translations, in batches of few shapes."""

    def __init__(
        self,
        model: nn.Module | Ensemble,
        config: Config,
        tokenizer: Tokenizer,
        mesh: Mesh,
        scorer: PairScorer,
    ):
        self._tokenizer, self._scorer = tokenizer, scorer
        self._align: PairFunction | None = None
        members: Any = model.models if isinstance(model, Ensemble) else [model]
        if all(member.config.attends_to_source for member in members):
            self._align = PairFunction(partial(aligned_positions, model), config, mesh)

    def explain(self, params: Any, hypotheses: Sequence[Hypothesis]) -> list[TokenDetails]:
        """Returns the details of translations that a search has found.

        params: of the model, unboxed
        """
        written = [pair for hypothesis in hypotheses for pair in hypothesis.pairs]
        pairs = TokenizedPairs.of(
            [pair.source for pair in written], [pair.target for pair in written]
        )
        scores = iter(self._scorer.score_ids(params, pairs))
        looks = iter(self._align(params, pairs) if self._align else ())
        sources = (
            tuple(self._tokenizer.pieces(pairs.source[i].tolist())) for i in range(len(pairs))
        )
        found = []
        for hypothesis in hypotheses:
            details = TokenDetails((), (), (), () if self._align else None)
            for _ in hypothesis.pairs:
                score, source = next(scores), next(sources)
                alignment = details.alignment
                if alignment is not None:
                    start = len(details.source_tokens)
                    alignment += tuple(start + place for place in next(looks).tolist())
                details = TokenDetails(
                    details.source_tokens + source,
                    details.tokens + score.tokens,
                    details.log_probabilities + score.log_probabilities,
                    alignment,
                )
            found.append(details)
        return found
