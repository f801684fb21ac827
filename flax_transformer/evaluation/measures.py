"""What an evaluation measures, and the measuring."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from flax_transformer.config import BleuTokenizer
from flax_transformer.evaluation import comet, compounds, scores
from flax_transformer.evaluation.report import TestSet
from flax_transformer.evaluation.significance import compare
from flax_transformer.evaluation.source_length import bleu_by_source_length


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measures:
    """What an evaluation measures.

    metrics:        scores to compute
    lowercase:      BLEU takes capitals for small letters
    tokenize:       how BLEU splits words; "auto" as in the run's validations
    confidence:     an interval for each of `metrics`
    by_length:      also BLEU of short and of long sources apart
    compound_split: also the measure of the paper's tables
    comet_model:    the model of COMET, where COMET is to be computed too
    comet_command:  what computes it
    """

    metrics: Sequence[scores.Metric] = scores.METRICS
    lowercase: bool = False
    tokenize: BleuTokenizer = "auto"
    confidence: bool = False
    by_length: bool = False
    compound_split: bool = False
    comet_model: str | None = None
    comet_command: str = "comet-score"

    def require_installed(self) -> None:
        """Raises `UserError` where something that they take is not there."""
        if self.compound_split:
            compounds.require_moses()
        if self.comet_model is not None:
            comet.require_comet(self.comet_command)


SACREBLEU = Measures()
"""All of sacreBLEU's metrics, and nothing else."""


def measure(
    hypotheses: Sequence[str], test_set: TestSet, measures: Measures, tokenize: str
) -> dict[str, Any]:
    """Returns what `measures` asks for, of translations of `test_set`.

    tokenize: one of sacreBLEU's tokenizers, in place of "auto"
    """
    extra = test_set.extra_references
    taken: dict[str, Any] = {"lowercase": measures.lowercase, "tokenize": tokenize}
    record = scores.score(
        hypotheses,
        test_set.references,
        extra_references=extra,
        metrics=measures.metrics,
        confidence=measures.confidence,
        processes=os.cpu_count() or 1,
        progress=test_set.name,
        **taken,
    )
    if measures.compound_split:
        value, signature = compounds.compound_split_bleu(hypotheses, test_set.references)
        record |= {"compound_split_bleu": value, "compound_split_bleu_signature": signature}
    if measures.comet_model is not None:
        value, signature = comet.comet_score(
            test_set.sources,
            hypotheses,
            test_set.references,
            command=measures.comet_command,
            model=measures.comet_model,
        )
        record |= {"comet": value, "comet_signature": signature}
    if measures.by_length:
        bins = bleu_by_source_length(
            test_set.sources, hypotheses, test_set.references, extra_references=extra, **taken
        )
        record["bleu_by_source_length"] = [
            {"words": one.name, "sentences": one.sentences, "bleu": one.bleu} for one in bins
        ]
    if test_set.baseline is not None:
        references = [test_set.references, *extra]
        compared = compare(
            hypotheses, test_set.baseline, references, metrics=measures.metrics, **taken
        )
        record["baseline"] = compared
    return record
