"""Test sets through a model: translations, scores, and a record of both."""

import dataclasses
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from flax_transformer.config import BleuTokenizer, Config
from flax_transformer.config.json import config_to_dict
from flax_transformer.data.corpus import Corpus
from flax_transformer.data.pairs import Pairs
from flax_transformer.evaluation.bleu_tokenizer import choose_tokenizer, require_tokenizer
from flax_transformer.evaluation.measures import SACREBLEU, Measures, measure
from flax_transformer.evaluation.report import TestSet, make_room, summary, write_report
from flax_transformer.parallel.hosts import is_first_process
from flax_transformer.translation.minimum_risk import RiskMetric
from flax_transformer.translation.trained_model import TrainedModel


def make_test_set(name: str, pairs: Pairs, origin: Mapping[str, Any]) -> TestSet:
    """Returns all of `pairs`, with the hash of their text beside where they come from."""
    sources, references = zip(*pairs, strict=True)
    return TestSet(
        name=name,
        origin={**origin, "sha256": pairs.fingerprint()},
        sources=sources,
        references=references,
    )


def corpus_test_sets(corpus: Corpus, config: Config, split: str | None = None) -> list[TestSet]:
    """Returns the test splits of the run's corpus, or only `split`."""
    described = {"kind": type(config.data).__name__} | config_to_dict(config.data)
    return [
        make_test_set(name, corpus.split(name), {"split": name, "corpus": described})
        for name in ((split,) if split else corpus.test_splits)
    ]


def report_on(
    workdir: Path,
    config: Config,
    test_sets: Iterable[TestSet],
    *,
    samples: int = 3,
    measures: Measures = SACREBLEU,
    others: Sequence[Path] = (),
    risk_metric: RiskMetric | None = None,
    results: Path | None = None,
) -> None:
    """Evaluates the model of `workdir`; prints and writes scores and translations of each set.

    samples: translations of each set that are printed
    others:  work directories of models that translate with that one, as an ensemble
    risk_metric: by which samples are ranked, where such are drawn
    results: folder to write to; by default `workdir`

    Raises `UserError` before the model is loaded if there is nowhere to write, or if something that
    scores is not installed.
    """
    test_sets = list(test_sets)
    results = results or workdir
    make_room(results, test_sets)
    with_bleu = "bleu" in measures.metrics or measures.by_length
    tokenize = settle_bleu_tokenizer(config, measures.tokenize) if with_bleu else "none"
    measures.require_installed()
    model = TrainedModel(workdir, config, others=others, risk_metric=risk_metric)
    if is_first_process():
        print("".join(f"{note}\n" for note in model.notes), end="", flush=True)
    for test_set in test_sets:
        hypotheses, record = evaluate(model, test_set, measures, tokenize)
        if is_first_process():
            paths = write_report(results, test_set, record, hypotheses)
            print(summary(test_set, record, hypotheses, samples))
            print(f"  written     {', '.join(map(str, paths))}\n", flush=True)


def settle_bleu_tokenizer(config: Config, tokenize: BleuTokenizer) -> str:
    """Returns how BLEU splits words: as `tokenize` says; "auto" means as in the run's validations.

    Raises `UserError` where sacreBLEU cannot split so here.
    """

    def note(line: str) -> None:
        if is_first_process():
            print(line, flush=True)

    if tokenize == "auto":
        tokenize = config.training.bleu_tokenizer  # "auto" again where an earlier version wrote
    chosen = choose_tokenizer(tokenize, config.data, note)
    require_tokenizer(chosen, "--tokenize")
    return chosen


def evaluate(
    model: TrainedModel, test_set: TestSet, measures: Measures, tokenize: str
) -> tuple[Sequence[str], dict[str, Any]]:
    """Returns the best translation of each line, and a record of the scores and what they took.

    tokenize: one of sacreBLEU's, for BLEU

    Speed is in target tokens per second of decoding, without compilation.
    """
    hypotheses, taken = _translate(model, test_set)
    return hypotheses, measure(hypotheses, test_set, measures, tokenize) | taken


def _translate(model: TrainedModel, test_set: TestSet) -> tuple[Sequence[str], dict[str, Any]]:
    counts = model.translator.counts
    start = time.perf_counter()
    hypotheses = model.translate(test_set.sources, progress=test_set.name)
    elapsed = time.perf_counter() - start
    taken = model.translator.counts - counts
    seconds = elapsed - taken.compile_seconds
    return hypotheses, {
        "test_set": test_set.origin,
        "sentences": len(hypotheses),
        "sentences_cut": taken.cut_lines,
        "sentences_untranslated": taken.untranslated,
        "checkpoints": model.steps,
        "checkpoints_chosen": model.choice,
        "ensemble_with": [
            os.fsencode(path).decode(errors="backslashreplace") for path in model.others
        ],
        "data_changes": list(model.progress.data_changes),
        "mbr_metric": model.risk_metric,
        "decoding": dataclasses.asdict(model.config.decoding),
        "target_tokens": taken.target_tokens,
        "seconds": round(seconds, 3),
        "compile_seconds": round(taken.compile_seconds, 3),
        "tokens_per_second": round(taken.target_tokens / seconds, 1),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
