"""Minimum Bayes risk decoding (Eikema and Aziz 2020): of samples the one most like the others.

The most probable translation of a sentence may be unlike all that the model would usually write. Of
`n` samples that it draws, the one is taken whose mean similarity to the others is highest, by a
metric of translations that has each of the others for its reference.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Literal

from sacrebleu.metrics import BLEU, CHRF

from flax_transformer.config import Config
from flax_transformer.errors import require
from flax_transformer.translation.hypotheses import Hypothesis

RiskMetric = Literal["chrf", "bleu"]


def sampling_config(config: Config, n: int) -> Config:
    """Returns `config` with `n` samples of each line in place of its search.

    Batches get smaller as the samples get more. Raises `UserError` for fewer than two samples.
    """
    require(n >= 2, f"--mbr is {n}, but each sample is compared with others: use at least 2")
    before = config.decoding
    tokens = max(before.batch_tokens * before.beam_size // n, 1)
    decoding = dataclasses.replace(
        before, sampling=True, beam_size=n, batch_tokens=min(tokens, before.batch_tokens)
    )
    return dataclasses.replace(config, decoding=decoding)


def rank_by_risk(samples: Sequence[Hypothesis], metric: RiskMetric) -> list[Hypothesis]:
    """Returns the samples of one line, no text twice, those most like the others first.

    Scores are the mean of sacreBLEU's chrF2, or BLEU of effective order, of the sample with each
    other sample for its reference, in points of 100. Of equally good ones the first that was drawn
    comes first. A single sample stays as it is.
    """
    if len(samples) < 2:
        return list(samples)
    make = CHRF if metric == "chrf" else partial(BLEU, effective_order=True)
    counts = Counter(sample.text for sample in samples)
    totals = dict.fromkeys(counts, 0.0)
    for reference, count in counts.items():
        against = make(references=[[reference]])
        for text in counts:
            # A sample is no reference of its own; those that are equal to it are.
            others = count - (text == reference)
            if others:
                totals[text] += others * against.corpus_score([text], None).score
    first = {sample.text: sample for sample in reversed(samples)}
    ranked = [
        dataclasses.replace(first[text], score=total / (len(samples) - 1))
        for text, total in totals.items()
    ]
    return sorted(ranked, key=lambda sample: -sample.score)
