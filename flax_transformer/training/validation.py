"""How well a model does on the validation split while it is trained."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax

from flax_transformer.batch import Batch
from flax_transformer.data.pairs import Pair
from flax_transformer.evaluation.scores import bleu_only
from flax_transformer.runtime.program import Program
from flax_transformer.training.metrics import RunningMeans
from flax_transformer.training.step import jit_validation_step
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.translation.translator import Translator

if TYPE_CHECKING:
    from flax_transformer.training.run import Run


class Validation:
    """Measures parameters on the validation split of `run`; compiles each program once.

    All methods raise `InterruptedRunError` when the run is asked to stop meanwhile.
    """

    def __init__(self, run: Run):
        self._run = run
        self.program = Program(jit_validation_step(run.config, run.mesh))
        # Validation looks at progress, for which greedy search is enough.
        greedy = dataclasses.replace(run.config.decoding, beam_size=1)
        config = dataclasses.replace(run.config, decoding=greedy)
        self.translator = Translator(config, run.data.tokenizer, run.mesh, run.data.trained_lengths)

    def measure(self, params: Any) -> dict[str, float]:
        """Returns loss, perplexity and accuracy of the split, the BLEU of its first sentences, and
        the seconds that it took."""
        started = time.perf_counter()
        training = self._run.config.training
        values = self.mean_loss(params, self._run.data.validation.once(self._run.own_rows))
        pairs, hypotheses = self.translate(params, training.validation_sentences)
        texts = [best.text for best in hypotheses]
        references = [target for _, target in pairs]
        values["bleu"] = bleu_only(texts, references, training.bleu_tokenizer)
        values["seconds"] = time.perf_counter() - started
        return values

    def mean_loss(self, params: Any, batches: Iterable[Batch]) -> dict[str, float]:
        """Returns loss, perplexity and accuracy without dropout of `batches`, of each the rows that
        this process makes."""
        means = RunningMeans()
        for own in batches:
            self._run.interruption.poll()
            batch = self._run.place(own)
            self.program.compile(self._run.interruption, params, batch)
            means.add(jax.device_get(self.program(params, batch))._asdict())
        return means.means()

    def translate(self, params: Any, most: int) -> tuple[list[Pair], list[Hypothesis]]:
        """Returns up to `most` pairs of the split, and what greedy search makes of each."""
        corpus = self._run.corpus
        pairs = corpus.split(corpus.validation)[:most]
        lines = self.translator.translate(
            params,
            [source for source, _ in pairs],
            progress="Validation",
            interruption=self._run.interruption,
        )
        return pairs, [hypotheses[0] for hypotheses in lines]
