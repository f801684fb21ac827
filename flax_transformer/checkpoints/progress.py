"""What a run remembers besides its state."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from flax_transformer.config import Config
from flax_transformer.text.sentences import TrainedLengths


@dataclass(frozen=True)
class Progress:
    """What every checkpoint keeps of its run besides the state."""

    tokenizer: str
    """Fingerprint of the vocabulary."""
    best_bleu: float | None = None
    """Highest validation BLEU so far."""
    best_loss: float | None = None
    """Validation loss of the same parameters; None where an earlier version wrote."""
    bleu_measure: str | None = None
    """How best_bleu was taken; None where an earlier version wrote, which always took 13a."""
    validations_since_best: int = 0
    """Validations since the best that count against patience."""
    validated_step: int | None = None
    """Step of the last validation, 0 before the first; None where an earlier version wrote."""
    corpus: dict[str, str] | None = None
    """Fingerprint of the text of each split that training reads."""
    trained_tokens: int | None = None
    """Tokens that almost no source sentence of the training text exceeds; None where an earlier
    version wrote."""
    trained_sentences: int | None = None
    """Sentences that almost no source line exceeds; None likewise."""
    data_changes: tuple[dict[str, Any], ...] = ()
    """Changes of the text that the user allowed: the "step" and the "splits" of each."""

    start: dict[str, Any] | None = None
    """For fine-tuning: the other run's "directory", the "checkpoint" asked for there, its "steps",
    and what they were "trained_on", in the form of `corpus`."""

    @property
    def trained_lengths(self) -> TrainedLengths | None:
        """What the source sentences keep to; None where an earlier version wrote."""
        if self.trained_tokens is None or self.trained_sentences is None:
            return None
        return TrainedLengths(self.trained_tokens, self.trained_sentences)

    def with_lengths(self, lengths: TrainedLengths) -> "Progress":
        """Returns this progress for a run that trains on such sentences from now on."""
        return dataclasses.replace(
            self, trained_tokens=lengths.tokens, trained_sentences=lengths.sentences
        )

    def for_measure(self, measure: str) -> "Progress":
        """Returns this progress for a run that takes BLEU by `measure` from now on.

        Where the measure was another one, the best is forgotten: the two cannot be compared.
        """
        of_earlier_version = self.bleu_measure is None and measure.startswith("13a ")
        if measure == self.bleu_measure or of_earlier_version:
            return dataclasses.replace(self, bleu_measure=measure)
        return dataclasses.replace(self.without_best(), bleu_measure=measure)

    def after_validation(
        self, step: int, bleu: float, loss: float, config: Config
    ) -> tuple["Progress", bool]:
        """Returns the progress with what a validation after `step` found, and whether that is best.

        BLEUs are compared as they are shown, in hundredths; of equal ones the lower loss is better.
        Only a lower BLEU counts against patience, and only once the warm-up has ended: early on,
        BLEU says nothing yet.
        """
        above = 1.0 if self.best_bleu is None else round(bleu, 2) - round(self.best_bleu, 2)
        best = above > 0 or (above == 0 and (self.best_loss is None or loss < self.best_loss))
        if best:
            found = dataclasses.replace(
                self, best_bleu=bleu, best_loss=loss, validations_since_best=0
            )
        else:
            used = above < 0 and step >= config.optimizer.warmup_steps
            since = self.validations_since_best + used
            found = dataclasses.replace(self, validations_since_best=since)
        return dataclasses.replace(found, validated_step=step), best

    def out_of_patience(self, config: Config) -> bool:
        """Whether BLEU has not risen in as many validations as `training.patience` allows."""
        return 0 < config.training.patience <= self.validations_since_best

    def without_best(self) -> "Progress":
        return dataclasses.replace(self, best_bleu=None, best_loss=None, validations_since_best=0)


def measure_of(config: Config) -> str:
    """Returns how validations take BLEU, as far as settings choose."""
    training = config.training
    return f"{training.bleu_tokenizer} of {training.validation_sentences} sentences"
