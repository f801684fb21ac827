"""Whether a run that goes on still reads the text and the vocabulary that it was trained with."""

import dataclasses
from collections.abc import Mapping

from flax_transformer.checkpoints.progress import Progress
from flax_transformer.checkpoints.restoring import Restored
from flax_transformer.config import Config
from flax_transformer.data.corpus import Corpus
from flax_transformer.errors import UserError, require
from flax_transformer.evaluation.bleu_tokenizer import runs_words_together
from flax_transformer.parallel.console import Console


def check_text(
    progress: Progress, step: int, vocabulary: str, text: Mapping[str, str], accept_changes: bool
) -> Progress:
    """Returns `progress` for a run that goes on after `step`.

    vocabulary, text  fingerprints of what the run now reads, those of the text by split
    accept_changes    the text may be another one, which is recorded

    Raises `UserError` where either is not the one that the run has been trained with.
    """
    require(
        progress.tokenizer == vocabulary,
        "tokenizer.model is not the vocabulary that the checkpoints were trained with: put that "
        "one back",
    )
    before = progress.corpus or text  # what an earlier version wrote does not say
    changed = [split for split in text if before.get(split) != text[split]]
    changes = progress.data_changes
    if changed:
        if not accept_changes:
            raise UserError(
                f"the text of {' and '.join(changed)} is not what the run has been trained with: "
                "put that back, name another folder with --workdir, or go on with the new text by "
                "--accept-changed-data"
            )
        changes = (*changes, {"step": step, "splits": changed})
    if Corpus.validation in changed:
        progress = progress.without_best()
    return dataclasses.replace(progress, corpus=dict(text), data_changes=changes)


def warn_of_changes(restored: Restored, progress: Progress) -> None:
    """Tells what has changed since the checkpoint was written: the text, or how BLEU is taken."""
    if progress.data_changes != restored.progress.data_changes:
        splits = " and ".join(progress.data_changes[-1]["splits"])
        Console.warn(f"going on after step {restored.step:,} with another text of {splits}")
    if restored.progress.best_bleu is not None and progress.best_bleu is None:
        Console.warn(
            "BLEU is computed differently from before: the next validation counts as the best"
        )


def warn_of_words_run_together(corpus: Corpus, config: Config) -> None:
    """Warns where each sentence would be a single word to BLEU, which then is 0."""
    references = [target for _, target in corpus.split(corpus.validation)[:100]]
    if config.training.bleu_tokenizer == "13a" and runs_words_together(references):
        Console.warn(
            "the validation text has no spaces between its words, so BLEU would take sentences "
            "for words: stop, and choose --training.bleu-tokenizer zh, ja-mecab or char"
        )
