"""Whether two systems differ by more than chance: paired tests, as sacreBLEU has them.

Both ask how often a difference as large as that of the scores would come about if the systems were
equally good. The bootstrap (Koehn 2004) draws sentences anew, with replacement; approximate
randomisation (Riezler and Maxwell 2005) swaps the translations of random sentences. The latter
assumes less, and errs less where sentences are few.
"""

from collections.abc import Sequence
from typing import Any

from sacrebleu.significance import PairedTest

from flax_transformer.evaluation.scores import Metric, in_points, make_metric

_TESTS = {"bootstrap": "bs", "randomisation": "ar"}


def compare(
    hypotheses: Sequence[str],
    baseline: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    metrics: Sequence[Metric],
    lowercase: bool = False,
    tokenize: str = "13a",
) -> dict[str, Any]:
    """Returns the score of the `baseline` by each of `metrics`, and two values of p.

    references: one or several of every sentence
    lowercase, tokenize: for BLEU, as in `scores.score`

    For each metric: `score`, in points of 100; `bootstrap_p` and `randomisation_p`, the probability
    of such a difference, or a larger one, among equals; and the signature of each test.
    """
    # sacreBLEU counts larger differences only, so it would call no difference a rare one.
    same = list(hypotheses) == list(baseline)
    found: dict[str, dict[str, Any]] = {}
    for test, code in _TESTS.items():
        paired = PairedTest(
            [("baseline", baseline), ("system", hypotheses)],
            {name: make_metric(name, lowercase, tokenize) for name in metrics},
            list(references),
            test_type=code,
        )
        signatures, results = paired()  # type: tuple[dict, dict[str, Any]]
        del results["System"]
        for name, (title, (before, after)) in zip(metrics, results.items(), strict=True):
            found.setdefault(name, {"score": in_points(name, before.score)})
            found[name][f"{test}_p"] = 1.0 if same else after.p_value
            found[name][f"{test}_signature"] = str(signatures[title])
    return found
