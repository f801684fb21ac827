"""Scores of translations as the field computes them: sacreBLEU, with its signatures."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Literal

from sacrebleu.metrics import BLEU, CHRF, TER
from tqdm import tqdm

_SENTENCES_WORTH_A_PROCESS = 100
_SENTENCES_AT_A_TIME = 10
_SECONDS_BEFORE_A_BAR = 1
_RESAMPLES = 1000

Metric = Literal["bleu", "chrf", "ter"]

METRICS: tuple[Metric, ...] = ("bleu", "chrf", "ter")
"""All of them; TER takes about ten seconds per thousand sentences, and as long for a single one of
two hundred words."""


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    extra_references: Sequence[Sequence[str]] = (),
    metrics: Sequence[Metric] = METRICS,
    lowercase: bool = False,
    tokenize: str = "13a",
    confidence: bool = False,
    processes: int = 1,
    progress: str | None = None,
) -> dict[str, Any]:
    """Returns the chosen `metrics` of `hypotheses` against one reference each, or several.

    extra_references: further texts as long as `references`, each with a reference for every line
    lowercase:  for BLEU alone, as sacreBLEU's flag; its chrF tells capitals apart by default, and
                its TER never does
    tokenize:   one of sacreBLEU's, for BLEU; "none" takes text as it is, which suits text that is
                tokenised already
    confidence: whether to estimate how much chance there is in the choice of sentences
    processes:  started for TER; where they are more than 1, the main module must be importable
                (`if __name__ == "__main__":`)
    progress:   name of what is scored, on a bar for what takes long

    The metrics are BLEU, chrF2 and TER. Each is given under its name in points of 100, and under
    `<name>_signature` how exactly it was taken. With `confidence` there are `<name>_mean` of 1,000
    bootstrap resamples (Koehn 2004) and `<name>_confidence`, half the width of the interval that
    holds 95% of them; TER then takes one process. There must be at least one hypothesis.
    """
    found: dict[str, Any] = {}
    streams = [references, *extra_references]
    for name in (name for name in METRICS if name in metrics):
        if name == "ter" and not confidence:
            found["ter"], found["ter_signature"] = _ter(hypotheses, streams, processes, progress)
            continue
        metric = make_metric(name, lowercase, tokenize)
        taken = metric.corpus_score(hypotheses, streams, _RESAMPLES if confidence else 1)
        found |= {name: in_points(name, taken.score)}
        found |= {f"{name}_signature": str(metric.get_signature())}
        if confidence:
            mean, half_width = in_points(name, float(taken._mean)), float(taken._ci)
            found |= {f"{name}_mean": mean, f"{name}_confidence": half_width}
    return found


def bleu_only(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenize: str = "13a",
    *,
    lowercase: bool = False,
    extra_references: Sequence[Sequence[str]] = (),
) -> float:
    """Returns the BLEU of `score`, in a fraction of the time."""
    # force: on text that is tokenised already this would warn at every validation.
    bleu = BLEU(lowercase=lowercase, tokenize=tokenize, force=True)
    return in_points("bleu", bleu.corpus_score(hypotheses, [references, *extra_references]).score)


def in_points(name: Metric, score: float) -> float:
    """Returns sacreBLEU's `score` without what rounding adds to a perfect one: its BLEU of a text
    against itself is 100.00000000000004. TER may be more than 100."""
    return score if name == "ter" else min(score, 100.0)


def make_metric(name: Metric, lowercase: bool = False, tokenize: str = "13a") -> BLEU | CHRF | TER:
    """Returns sacreBLEU's metric of that name, which has scored nothing yet."""
    match name:
        case "bleu":
            # force: it was the user's choice not to tokenise, so no warning that the text looks
            # tokenised.
            return BLEU(lowercase=lowercase, tokenize=tokenize, force=tokenize == "none")
        case "chrf":
            return CHRF()
        case "ter":
            return TER()


def _ter(
    hypotheses: Sequence[str],
    streams: Sequence[Sequence[str]],
    processes: int,
    progress: str | None,
) -> tuple[float, str]:
    """Returns TER: the edits of all sentences per word of all references, counted in parts.

    streams: one or several references of every sentence
    """
    processes = max(min(processes, len(hypotheses) // _SENTENCES_WORTH_A_PROCESS), 1)
    starts = range(0, len(hypotheses), _SENTENCES_AT_A_TIME)
    parts, *right = (
        [texts[start : start + _SENTENCES_AT_A_TIME] for start in starts]
        for texts in (hypotheses, *streams)
    )
    edits = words = 0.0
    bar = tqdm(
        total=len(hypotheses), desc=f"{progress}: TER", unit=" lines", leave=False,
        disable=None if progress else True, delay=_SECONDS_BEFORE_A_BAR,
    )  # fmt: skip
    with _mapping(processes) as map_parts, bar:
        counted = map_parts(_edits_and_words, parts, *right)
        for part, counts in zip(parts, counted, strict=True):
            edits, words = edits + counts[0], words + counts[1]
            bar.update(len(part))
    ter = TER()
    ter.corpus_score([""], [[""]] * len(streams))  # a signature can only be had after use
    rate = edits / words if words else float(edits > 0)
    return 100 * rate, str(ter.get_signature())


@contextmanager
def _mapping(processes: int) -> Iterator[Any]:
    """Gives a `map` that runs in so many processes."""
    if processes == 1:
        yield map
        return
    # A process forked from one that has run JAX may hang.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield pool.map


def _edits_and_words(hypotheses: Sequence[str], *streams: Sequence[str]) -> tuple[float, float]:
    score = TER().corpus_score(hypotheses, streams)
    return score.num_edits, score.ref_length
