"""What a run remembers besides its state, and whether it still trains on the same text."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flax_transformer.config_error import ConfigError, require
from flax_transformer.sentences import TrainedLengths


@dataclass(frozen=True)
class Progress:
    """Kept in every checkpoint."""

    tokenizer: str
    """Fingerprint of the vocabulary."""
    best_bleu: float | None = None
    """Highest validation BLEU so far."""
    validations_since_best: int = 0
    validated_step: int | None = None
    """Step of the last validation, 0 before the first; None where an earlier version wrote."""
    corpus: dict[str, str] | None = None
    """Fingerprint of the text of each split that training reads."""
    trained_tokens: int | None = None
    """Tokens that almost no source sentence exceeds that was trained on; None where an earlier
    version wrote."""
    trained_sentences: int | None = None
    """The same of sentences in a line."""
    data_changes: tuple[dict[str, Any], ...] = ()
    """Where the text became another one, as the user allowed: "step", and the "splits"."""

    @property
    def trained_lengths(self) -> TrainedLengths | None:
        """What the source sentences kept to."""
        if self.trained_tokens is None or self.trained_sentences is None:
            return None
        return TrainedLengths(self.trained_tokens, self.trained_sentences)


def check_text(
    progress: Progress, step: int, tokenizer: str, corpus: Mapping[str, str], accept_changes: bool
) -> Progress:
    """`progress` for a run that goes on after `step` with the vocabulary and the text of these
    fingerprints. `accept_changes`: the text may be another one, which is recorded.

    Raises `ConfigError` where either is not the one that the run has been trained with.
    """
    require(
        progress.tokenizer == tokenizer,
        "tokenizer.model is not the vocabulary that the checkpoints were trained with: put that "
        "one back",
    )
    before = progress.corpus or corpus  # what an earlier version wrote does not say
    changed = [split for split in corpus if before.get(split) != corpus[split]]
    changes = progress.data_changes
    if changed:
        if not accept_changes:
            raise ConfigError(
                f"the text of {' and '.join(changed)} is not what the run has been trained with: "
                "put that back, name another folder with --workdir, or go on with the new text by "
                "--accept-changed-data"
            )
        changes = (*changes, {"step": step, "splits": changed})
    return dataclasses.replace(progress, corpus=dict(corpus), data_changes=changes)
