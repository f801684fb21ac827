"""What counts as better, what uses patience up, and which BLEUs are compared."""

import dataclasses
import json

import pytest

from flax_transformer.checkpoints.progress import Progress, measure_of
from flax_transformer.config import Config, OptimizerConfig, TextFiles, TrainingConfig
from flax_transformer.training.same_text import check_text

WARM = Config(optimizer=OptimizerConfig(warmup_steps=10))
FRESH = Progress(tokenizer="", validated_step=0, bleu_measure=measure_of(WARM))


def validate(progress: Progress, *found: tuple[float, float], first: int = 10, every: int = 10):
    """`progress` after validations that found these (BLEU, loss), and which of them were best."""
    best = []
    for index, (bleu, loss) in enumerate(found):
        progress, is_best = progress.after_validation(first + every * index, bleu, loss, WARM)
        best.append(is_best)
    return progress, best


def test_a_higher_bleu_is_better_whatever_the_loss():
    progress, best = validate(FRESH, (10.0, 3.0), (12.0, 4.0), (11.0, 1.0), (11.5, 0.5))
    assert best == [True, True, False, False]
    assert (progress.best_bleu, progress.best_loss) == (12.0, 4.0)
    assert progress.validations_since_best == 2
    assert progress.validated_step == 40


def test_the_same_bleu_uses_no_patience_and_a_lower_loss_breaks_the_tie():
    """As shown, in hundredths: early BLEU is 0.00 with noise after it."""
    zeros = [(0.0, 9.0), (0.003, 8.0), (0.0, 7.0), (0.001, 7.5), (0.004, 7.2), (0.0, 6.0)]
    progress, best = validate(FRESH, *zeros)
    assert best == [True, True, True, False, False, True]
    assert progress.validations_since_best == 0
    assert progress.best_loss == 6.0
    progress, best = validate(
        progress, (0.0, 6.5), (0.0, 6.6), (0.01, 7.0), (0.0, 1.0), (0.01, 7.5)
    )
    assert best == [False, False, True, False, False]
    assert progress.validations_since_best == 1


def test_nothing_counts_before_the_warm_up_has_ended():
    progress, best = validate(FRESH, (5.0, 5.0), (1.0, 6.0), (1.0, 6.0), first=3, every=3)
    assert best == [True, False, False]
    assert progress.validations_since_best == 0
    progress, _ = validate(progress, (1.0, 6.0), first=10)
    assert progress.validations_since_best == 1


def test_a_checkpoint_of_an_earlier_version_is_gone_on_with():
    """It knows neither a loss nor how its BLEU was taken, which was with 13a."""
    old = Progress(
        **json.loads('{"tokenizer": "", "best_bleu": 20.0, "validations_since_best": 2}')
    )
    assert old.for_measure(measure_of(with_tokenizer("13a"))).best_bleu == 20.0
    _, best = validate(old, (20.0, 3.0), (20.0, 3.5))
    assert best == [True, False]
    progress, best = validate(old, (19.0, 3.0))
    assert best == [False] and progress.validations_since_best == 3


def with_tokenizer(name: str, sentences: int = 1000) -> Config:
    return dataclasses.replace(
        WARM, training=TrainingConfig(bleu_tokenizer=name, validation_sentences=sentences)
    )


def test_a_bleu_that_is_taken_otherwise_begins_anew():
    """A run that ended early at 0.00 with 13a must not stay ended, nor its best stay best."""
    old = Progress(tokenizer="", best_bleu=0.0, validations_since_best=9, validated_step=70)
    new = old.for_measure(measure_of(with_tokenizer("zh")))
    assert (new.best_bleu, new.best_loss, new.validations_since_best) == (None, None, 0)
    assert new.validated_step == 70
    scored, best = validate(new, (30.0, 2.0))
    assert best == [True]
    assert scored.for_measure(measure_of(with_tokenizer("zh"))) == scored
    for other in (with_tokenizer("char"), with_tokenizer("zh", sentences=200)):
        assert scored.for_measure(measure_of(other)).best_bleu is None


def test_another_validation_text_begins_anew():
    before = {"train": "1", "validation": "1"}
    progress = dataclasses.replace(
        FRESH, corpus=before, best_bleu=20.0, best_loss=2.0, validations_since_best=3
    )
    kept = check_text(progress, 5, "", before | {"train": "2"}, True)
    assert (kept.best_bleu, kept.validations_since_best) == (20.0, 3)
    anew = check_text(progress, 5, "", before | {"validation": "2"}, True)
    assert (anew.best_bleu, anew.best_loss, anew.validations_since_best) == (None, None, 0)


@pytest.mark.parametrize("language", ["zh", "fr"])
def test_progress_is_json(language):
    config = Config(data=TextFiles(directory="x", source_language="a", target_language=language))
    progress, _ = Progress(tokenizer="").after_validation(5, 1.0, 2.0, config)
    again = Progress(**json.loads(json.dumps(dataclasses.asdict(progress))))
    assert dataclasses.replace(again, data_changes=()) == progress
