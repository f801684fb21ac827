"""What a run does when it is stopped, disturbed or given other text, in this process."""

import dataclasses
import json
import math
import shutil
import signal
from pathlib import Path

import chex
import numpy as np
import pytest

from flax_transformer.checkpoints.files import list_steps
from flax_transformer.config import (
    BatchConfig,
    Builtin,
    Config,
    DecodingConfig,
    OptimizerConfig,
    RecurrentConfig,
    TextFiles,
    TokenizerConfig,
    TrainingConfig,
)
from flax_transformer.config.json import load_config
from flax_transformer.data.builtin import generate
from flax_transformer.errors import DivergedError, UserError
from flax_transformer.evaluation.evaluation import corpus_test_sets, report_on
from flax_transformer.runtime.program import Program
from flax_transformer.training.final_scores import report_final_scores
from flax_transformer.training.metrics import read_metrics
from flax_transformer.training.run import Run
from flax_transformer.training.train_loop import Trainer, start_training
from flax_transformer.training.validation import Validation
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.translation.trained_model import TrainedModel
from flax_transformer.translation.translator import Translator

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def config(small_config, tmp_path_factory) -> Config:
    """A run of 8 steps on text of its own."""
    folder = tmp_path_factory.mktemp("text")
    pairs = generate(400)["train"]
    for name, some in {"train": pairs, "valid": pairs[:20], "test": pairs[20:24]}.items():
        for language, side in (("en", 0), ("fr", 1)):
            text = "".join(pair[side] + "\n" for pair in some)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return Config(
        data=TextFiles(directory=str(folder), source_language="en", target_language="fr"),
        tokenizer=TokenizerConfig(vocabulary_size=400),
        batch=BatchConfig(rows=8, source_length=48, target_length=48),
        model=dataclasses.replace(small_config.model, num_encoder_layers=1, num_decoder_layers=1),
        optimizer=OptimizerConfig(warmup_steps=10),
        training=TrainingConfig(
            steps=8, log_every=1, evaluate_every=4, validation_sentences=20, checkpoint_every=2
        ),
        decoding=DecodingConfig(
            beam_size=1, extra_length=2, average_checkpoints=2, batch_tokens=128
        ),
    )


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Path:
    """The work directory of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    run = Run(config, workdir)
    run.train()
    assert run.finished and run.interruption.exit_code is None
    model = TrainedModel(workdir, config)
    assert model.progress.trained_lengths == run.data.trained_lengths
    assert model.translator._trained == Validation(run).translator._trained is not None
    return workdir


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def vary(config: Config, **training) -> Config:
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **training))


def assert_equal_runs(one: Path, other: Path, config: Config) -> None:
    """Parameters bit for bit, and what each validation found."""
    models = [TrainedModel(workdir, config) for workdir in (one, other)]
    assert models[0].steps == models[1].steps
    chex.assert_trees_all_equal(models[0].params, models[1].params)
    assert models[0].progress == models[1].progress
    validations = [
        [(line["step"], line["loss"], line["bleu"]) for line in read_metrics(workdir)
         if line["kind"] == "validation"]
        for workdir in (one, other)
    ]  # fmt: skip
    assert validations[0] == validations[1] and validations[0]


@pytest.mark.parametrize(("moment", "step"), [("loss", 4), ("search", 8)])
def test_a_stop_in_a_validation_is_obeyed_at_once_and_made_up_for(
    config, whole, tmp_path, monkeypatch, moment, step
):
    workdir = tmp_path / "run"
    run = Run(config, workdir)
    place, name = (Program, "__call__") if moment == "loss" else (Translator, "_put")
    function, calls = getattr(place, name), []

    def count(*arguments):
        # A training step is a program of three arguments.
        if run.step == step and len(arguments) < 4:
            calls.append(1)
            if len(calls) == 2:
                signal.raise_signal(signal.SIGTERM)
        return function(*arguments)

    monkeypatch.setattr(place, name, count)
    run.train()
    assert len(calls) == 2, "nothing more was computed"
    assert run.interruption.exit_code == 143 and run.finished == (step == 8)
    assert [line["step"] for line in read_metrics(workdir) if line["kind"] == "validation"] == (
        [4] if step == 8 else []
    )
    assert list_steps(workdir / "checkpoints")[-1] == step
    monkeypatch.undo()
    if moment == "loss":
        run = Run(config, workdir)
    run.train()
    assert run.finished and run.interruption.exit_code is None
    assert_equal_runs(workdir, whole, config)


def test_a_run_compiles_each_step_once(config, tmp_path):
    """Over validations and checkpoints, and again where it goes on in the same process."""
    for first, last in [(0, 5), (5, 8)]:
        run = Run(config, tmp_path / "run")
        assert run.step == first
        with start_training(run) as trainer:
            for batch in trainer.batches():
                trainer.take_step(batch)
                if run.step % 2 == 0:
                    trainer.validate()
                    trainer.save()
                if run.step == last:
                    trainer.save()
                    break
        assert trainer._train_step.compilations == 1
        assert trainer.validation.program.compilations == 1
        shapes = trainer.validation.translator.compiled_shapes
        assert len(shapes) == len(set(shapes)) > 0
        assert trainer.validation.translator._search._cache_size() == 0, "compiled ahead, per shape"


def test_an_open_run_keeps_others_out_until_it_is_closed(config, copy):
    with Run(config, copy), pytest.raises(UserError, match="is being trained by process"):
        Run(config, str(copy))
    Run(config, str(copy)).close()


def test_a_run_can_be_looked_at_while_it_is_trained_but_not_trained(config, copy):
    with Run(config, copy), Run(config, copy, only_look=True) as run:
        assert run.step == 8 and run.finished
        with pytest.raises(ValueError, match="only_look"):
            run.train()


def test_an_error_saves_first(config, tmp_path, capsys):
    run = Run(config, tmp_path / "run")
    with pytest.raises(ZeroDivisionError), start_training(run) as trainer:
        for batch in trainer.batches():
            trainer.take_step(batch)
            if run.step == 3:
                raise ZeroDivisionError
    assert list_steps(tmp_path / "run" / "checkpoints") == [3]
    assert "Saved step 3 before the error below" in capsys.readouterr().out


def test_numbers_that_are_not_finite_are_found_before_every_save(config, tmp_path):
    """Also in the last step, whose metrics nobody waits for, and at a stop."""
    for save in (Trainer.save, Trainer.validate, Trainer.log):
        with (
            pytest.raises(DivergedError, match=r"the parameters became infinite .* in step 2\."),
            start_training(Run(config, tmp_path / save.__name__)) as trainer,
        ):
            batches = trainer.batches()
            trainer.take_step(next(batches))
            trainer.save()
            trainer.take_step(next(batches))
            step, sums = trainer._pending
            assert bool(sums["parameters_finite"]) and math.isfinite(sums["loss"])
            trainer._pending = step, sums | {"parameters_finite": np.bool_(False)}
            save(trainer)
        assert list_steps(tmp_path / save.__name__ / "checkpoints") == [1]
        assert not list_steps(tmp_path / save.__name__ / "best")


def test_checkpoints_are_written_by_time_too(config, tmp_path, monkeypatch):
    config = vary(config, checkpoint_every=100, checkpoint_minutes=1)
    clock = [0.0]
    monkeypatch.setattr("flax_transformer.training.train_loop.time.monotonic", lambda: clock[0])
    due = []
    run = Run(config, tmp_path / "run")
    with start_training(run) as trainer:
        for batch in trainer.batches():
            trainer.take_step(batch)
            clock[0] += 25
            if trainer.checkpoint_is_due():
                due.append(run.step)
                trainer.save()
    assert due == [3, 6, 8]
    assert list_steps(tmp_path / "run" / "checkpoints") == [8]


def test_falling_bleu_ends_a_run_early_and_equal_or_early_bleu_does_not(
    config, tmp_path, monkeypatch, capsys
):
    """0.00 at first, which is no step back; before step 6, when the warm-up ends, nothing is."""
    found = [(0.0, 9.0), (0.0, 8.0), (0.0, 7.0), (5.0, 6.0), (4.0, 6.0), (5.0, 5.0), (4.0, 5.0)]
    found += [(4.9, 4.0), (9.0, 3.0)]
    config = dataclasses.replace(
        vary(config, patience=2, evaluate_every=1, steps=9, checkpoint_every=20),
        optimizer=OptimizerConfig(warmup_steps=6),
    )

    def measure(self, params):
        bleu, loss = next(measured)
        return {"loss": loss, "perplexity": math.exp(loss), "bleu": bleu}

    measured = iter(found)
    monkeypatch.setattr(Validation, "measure", measure)
    run = Run(config, tmp_path / "run")
    run.train()
    assert run.step == 8 and run.finished
    assert "no better BLEU in 2 validations" in capsys.readouterr().out
    assert list_steps(tmp_path / "run" / "best") == [6], "the lower loss of two with 5.00"
    run.train()
    assert run.step == 8
    assert "This run is complete: 8 steps are done." in capsys.readouterr().out


def test_a_run_into_chinese_is_validated_and_scored_by_characters(
    config, tmp_path, monkeypatch, capsys
):
    pairs = [(f"word {i}", f"我今天买苹果，你看见{chr(0x4E00 + i)}房子。") for i in range(40)]
    for name in ("train", "valid", "test"):
        for language, side in (("en", 0), ("zh", 1), ("tgt", 1)):
            text = "".join(f"{pair[side]}\n" for pair in pairs)
            (tmp_path / f"{name}.{language}").write_text(text, encoding="utf-8")
    data = dataclasses.replace(config.data, directory=str(tmp_path), target_language="zh")
    tokenizer = dataclasses.replace(config.tokenizer, vocabulary_size=340)
    config = dataclasses.replace(config, data=data, tokenizer=tokenizer)
    run = Run(config, tmp_path / "run")
    validation = Validation(run)

    def translate_perfectly(params, most):
        return pairs, [Hypothesis(target, 0.0, 1) for _, target in pairs]

    monkeypatch.setattr(validation, "translate", translate_perfectly)
    assert validation.measure(run.state.params)["bleu"] == pytest.approx(100)
    assert load_config(tmp_path / "run" / "config.json") == run.config
    assert run.config.training.bleu_tokenizer == "zh"
    run.close()
    assert "warning" not in capsys.readouterr().err
    unnamed = dataclasses.replace(data, target_language="tgt")
    config = dataclasses.replace(config, data=unnamed)
    Run(config, tmp_path / "unnamed").close()
    assert "--training.bleu-tokenizer" in capsys.readouterr().err


def test_another_text_is_refused_or_recorded(config, copy, tmp_path):
    shutil.copytree(config.data.directory, tmp_path / "text")
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, directory=str(tmp_path / "text"))
    )
    longer = vary(config, steps=10)
    Run(longer, copy).close()  # in another folder, but the same
    path = tmp_path / "text" / "train.en"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    with pytest.raises(UserError, match=r"text of train is not what.*--accept-changed-data"):
        Run(longer, copy)
    Run(longer, copy, accept_changed_data=True).train()
    with Run(longer, copy) as run:  # and from then on it is the run's text
        assert run.finished
    report_on(copy, longer, corpus_test_sets(run.corpus, longer))
    record = json.loads((copy / "evaluation" / "test.json").read_text())
    assert record["data_changes"] == [{"step": 8, "splits": ["train"]}]


def test_another_vocabulary_is_refused(config, copy, tmp_path):
    other = dataclasses.replace(config, data=Builtin(num_pairs=500))
    Run(other, tmp_path / "other", only_look=True).close()
    shutil.copy(tmp_path / "other" / "tokenizer.model", copy / "tokenizer.model")
    for use in (TrainedModel, lambda workdir, config: Run(config, workdir)):
        with pytest.raises(UserError, match=r"tokenizer\.model is not the vocabulary that"):
            use(copy, config)


def test_recurrent_run_goes_on_exactly_where_it_stopped(config, tmp_path):
    """To the scores of the test split; what changes no parameter may be other than before."""
    model = RecurrentConfig(
        d_model=16, num_encoder_layers=1, num_decoder_layers=1, attention="concat", coverage=True,
        compute_dtype="float32",
    )  # fmt: skip
    config = dataclasses.replace(config, model=model, optimizer=OptimizerConfig(warmup_steps=2))
    config = vary(config, steps=6, evaluate_every=6, checkpoint_every=2, teacher_forcing="linear")
    first = vary(
        config, steps=9, log_every=7, evaluate_every=5, checkpoint_every=3, keep_checkpoints=1,
        validation_sentences=2, patience=3, checkpoint_minutes=60,
    )  # fmt: skip
    first = dataclasses.replace(first, batch=dataclasses.replace(config.batch, read_ahead=1))

    def run(name, stop_after, config=config):
        run = Run(config, tmp_path / name)
        with start_training(run) as trainer:
            for batch in trainer.batches():
                trainer.take_step(batch)
                if run.step == stop_after:
                    trainer.save()
                    return run
            trainer.validate()
            trainer.save()
        return run

    run("stopped", 3, first)
    run("stopped", 7)
    report_final_scores(run("whole", 7))
    models = [TrainedModel(tmp_path / name, config) for name in ("stopped", "whole")]
    chex.assert_trees_all_equal(models[0].params, models[1].params)
    record = json.loads((tmp_path / "whole" / "evaluation" / "test.json").read_text())
    assert record["sentences"] == 4 and record["checkpoints"] == [6]
    # TER would take longer than all the rest.
    assert {"bleu", "chrf"} <= record.keys() and "ter" not in record
