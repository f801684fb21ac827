"""How well a model does on the validation split while it is trained."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import Mesh

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.data.corpus import Corpus
from flax_transformer.data.pairs import Pair
from flax_transformer.data.training_data import TrainingData
from flax_transformer.evaluation.scores import bleu_only
from flax_transformer.parallel.sharding import own_rows, place_rows
from flax_transformer.runtime.interruption import Interruption
from flax_transformer.runtime.program import Program
from flax_transformer.training.metrics import RunningMeans
from flax_transformer.training.step import jit_validation_step
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.translation.translator import Translator


class Validation:
    """Loss, perplexity and greedy BLEU of parameters; compiles each program once.

    All methods raise `InterruptedRunError` when the `interruption` asks to stop meanwhile.
    """

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        corpus: Corpus,
        data: TrainingData,
        interruption: Interruption,
    ):
        self._config, self._mesh, self._interruption = config, mesh, interruption
        self._corpus, self._data = corpus, data
        self.program = Program(jit_validation_step(config, mesh))
        # Validation looks at progress, for which greedy search is enough.
        greedy = dataclasses.replace(config.decoding, beam_size=1)
        self.translator = Translator(
            dataclasses.replace(config, decoding=greedy), data.tokenizer, mesh, data.trained_lengths
        )

    def measure(self, params: Any) -> dict[str, float]:
        """Loss, perplexity and accuracy of the split, and the BLEU of its first sentences."""
        rows = own_rows(self._mesh, self._config.batch.rows)
        values = self.mean_loss(params, self._data.validation.once(rows))
        pairs, hypotheses = self.translate(params, self._config.training.validation_sentences)
        texts = [best.text for best in hypotheses]
        references = [target for _, target in pairs]
        tokenizer = self._config.training.bleu_tokenizer
        return values | {"bleu": bleu_only(texts, references, tokenizer)}

    def mean_loss(self, params: Any, batches: Iterable[Batch]) -> dict[str, float]:
        """Loss, perplexity and accuracy of `batches`, of each its `own_rows`, without dropout."""
        means = RunningMeans()
        for own in batches:
            self._interruption.poll()
            batch = place_rows(self._mesh, self._config.batch.rows, own)
            self.program.compile(self._interruption, params, batch)
            means.add(jax.device_get(self.program(params, batch))._asdict())
        return means.means()

    def translate(self, params: Any, most: int) -> tuple[list[Pair], list[Hypothesis]]:
        """Up to `most` pairs of the split, and what greedy search makes of each."""
        pairs = self._corpus.split(self._corpus.validation)[:most]
        lines = self.translator.translate(
            params,
            [source for source, _ in pairs],
            progress="Validation",
            interruption=self._interruption,
        )
        return pairs, [hypotheses[0] for hypotheses in lines]
