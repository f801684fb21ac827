"""Hidden states are those of the model; probes find what is there, their controls what is not."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.samples import recurrent

from flax_transformer.commands import probe as probe_command
from flax_transformer.config import Builtin, TextFiles, TokenizerConfig
from flax_transformer.config.json import save_config
from flax_transformer.data.builtin import structure as s
from flax_transformer.data.builtin.analysis import analyse, analysed_pairs
from flax_transformer.data.builtin.lexicon import ADJECTIVES, NOUNS, THE, VERBS
from flax_transformer.errors import UserError
from flax_transformer.inspection import probing
from flax_transformer.inspection.hidden_states import hidden_states
from flax_transformer.inspection.pair_rows import PairRow
from flax_transformer.inspection.probe_labels import ProbedWord, probed_words, tasks_of
from flax_transformer.inspection.probing import accuracies
from flax_transformer.models import build_model
from flax_transformer.models.transformer import DecoderLayer, EncoderLayer
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.translation import trained_model


def test_hidden_states_are_what_each_layer_makes_of_those_before(
    small_config, random_params, packed_batch
):
    settings = dataclasses.replace(small_config.model, norm="pre", remat="dots", unroll_layers=2)
    config = dataclasses.replace(small_config, model=settings)
    source, target = packed_batch.source_segments, packed_batch.target_segments

    def look(params, batch):
        model = build_model(config.model, 304).bind({"params": params})
        found = hidden_states(config, params, batch)
        embedding, length = model.embedding, target.shape[1]
        expected = {
            "encoder": [embedding(batch.source_ids, batch.source_positions, length)],
            "decoder": [embedding(batch.target_inputs, batch.target_positions, length)],
        }
        memory = model.encode(batch.source_ids, source, batch.source_positions)
        for side, module, inputs in (
            ("encoder", EncoderLayer, (source,)),
            ("decoder", DecoderLayer, (memory, target, source)),
        ):
            second = jax.tree.map(lambda leaf: leaf[1], params[side])
            output, _ = module(config.model).apply({"params": second}, found[side][1], *inputs)
            expected[side].append(output)
        return found, expected

    found, expected = jax.device_get(jax.jit(look)(random_params(config), packed_batch))
    assert found["encoder"].shape == found["decoder"].shape == (3, 8, 16, 16)
    for side, segments in (("encoder", source), ("decoder", target)):
        for states, hand in zip(found[side][::2], expected[side], strict=True):
            real = segments > 0
            np.testing.assert_allclose(states[real], hand[real], rtol=1e-3, atol=1e-4)


def test_a_model_whose_states_nobody_reads_is_the_same_program(
    small_config, random_params, packed_batch
):
    params = random_params(small_config)
    model = build_model(small_config.model, 304)

    def program(function):
        return str(jax.make_jaxpr(function)(params, packed_batch))

    read = program(lambda params, batch: hidden_states(small_config, params, batch))
    plain = program(lambda params, batch: model.apply({"params": params}, batch))
    stacked = "f32[2,8,16,16]"  # what a loop over two layers keeps of (b,t,d)
    assert stacked in read and stacked not in plain


def test_a_recurrent_model_has_no_such_layers(small_config, random_params, packed_batch):
    config = recurrent(small_config, "dot")
    with pytest.raises(UserError, match=r"model\.kind is RecurrentConfig"):
        hidden_states(config, random_params(config), packed_batch)


@pytest.fixture
def row():
    """The old beach was red. / La vieille plage était rouge. Some words have several tokens."""
    beach = s.NounPhrase(THE, NOUNS["beach"], False, (ADJECTIVES["old"],))
    red = s.Attribute(ADJECTIVES["red"])
    clause = s.Clause(beach, VERBS["be"], s.STATE_PAST, attribute=red)
    source = [range(0, 1), range(1, 3), range(3, 4), range(4, 5), range(5, 6), range(6, 7)]
    target = [range(0, 1), range(1, 2), range(2, 5), range(5, 6), range(6, 7), range(7, 8)]
    return PairRow(analyse(s.Sentence((clause,))), source, target)


def test_words_are_looked_for_where_they_are(row):
    tokens = {
        place: [word.token for word in probed_words(row, place)]
        for place in ("encoder", "decoder reads", "decoder writes")
    }
    assert tokens == {
        "encoder": [0, 2, 3, 4, 5, 6],
        "decoder reads": [1, 2, 5, 6, 7, 8],
        "decoder writes": [0, 1, 2, 5, 6, 7],
    }


def test_an_english_word_has_the_gender_of_its_translation(row):
    words = probed_words(row, "encoder")
    assert [word.word_type for word in words] == ["the", "old", "beach", "was", "red", "."]
    assert [word.labels["gender"] for word in words] == ["feminine"] * 3 + [None, "feminine", None]
    assert [word.labels["number"] for word in words] == ["singular"] * 5 + [None]
    assert words[1].labels["position"] == "2" and words[1].labels["word"] == "old"
    assert [word.labels["part of speech"] for word in words] == [
        "determiner", "adjective", "noun", "auxiliary", "adjective", "punctuation"
    ]  # fmt: skip


def probed(word, gender):
    labels = {"position": "0", "word": word, "part of speech": "noun", "number": "singular"}
    return ProbedWord(0, word, {**labels, "gender": gender})


def test_a_control_has_one_random_label_for_each_word():
    learn = [probed(f"w{i % 40}", "feminine" if i % 4 else "masculine") for i in range(400)]
    learn.append(probed("w1", None))
    test = [*learn[200:300], probed("new", "feminine"), probed("w1", "neuter")]
    tasks = {name: (task, control) for name, task, control in tasks_of(learn, test)}
    task, control = tasks["gender"]
    assert task.names == control.names == ["feminine", "masculine"]
    assert task.learn.tolist() == [0 if i % 4 else 1 for i in range(400)] + [-1]
    assert task.test.tolist() == [*task.learn[200:300], 0, -1]
    given = {}
    for words, labels in ((learn, control.learn), (test[:-1], control.test)):
        for word, label in zip(words, labels, strict=False):
            if word.labels["gender"] is not None:
                assert given.setdefault(word.word_type, label) == label >= 0
    assert control.learn[-1] == control.test[-1] == -1
    assert 1 <= sum(given.values()) <= 20  # as rare as the truth, of which a quarter is masculine
    with pytest.raises(UserError, match=r"none of the 1 words to test on has a gender: take more"):
        tasks_of(learn, [probed("w1", None)])
    words, _ = tasks["word"]
    assert words.test[-2] == -1 and len(words.names) == 40


def test_probes_find_what_is_there_and_each_as_if_it_were_alone():
    """One property lies in the states, another is random, a third is of words, to be remembered."""
    random = np.random.default_rng(0)
    kinds, words = random.integers(0, 3, 900), random.integers(0, 20, 900)
    states = np.concatenate([np.eye(3)[kinds], np.eye(20)[words]], axis=1)
    states = (states + random.normal(0, 0.1, states.shape)) @ random.normal(0, 1, (23, 23))
    labels = np.stack([kinds, random.integers(0, 2, 900), random.integers(0, 4, 20)[words]], axis=1)
    labels[::7, 0] = -1
    learn, test = slice(0, 600), slice(600, None)

    def measure(columns, sizes):
        chosen = labels[:, columns].astype(np.int32)
        found = accuracies(
            jnp.asarray(states[learn]), jnp.asarray(chosen[learn]),
            jnp.asarray(states[test]), jnp.asarray(chosen[test]), sizes,
        )  # fmt: skip
        return np.asarray(found)

    together = measure([0, 1, 2], (3, 2, 4))
    assert together[0] > 0.97 and together[2] > 0.97 and 0.35 < together[1] < 0.65
    np.testing.assert_allclose(measure([2], (4,)), together[2:], atol=0.01)


@pytest.fixture
def workdir(small_config, random_params, tmp_path, monkeypatch):
    """Of a run whose model is made up."""
    data, vocabulary = Builtin(num_pairs=400), TokenizerConfig(vocabulary_size=400)
    config = dataclasses.replace(small_config, data=data, tokenizer=vocabulary)
    save_config(config, tmp_path / "config.json")
    pairs = analysed_pairs("train", 60)
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    tokenizer = train_tokenizer(texts, vocabulary, tmp_path / "tokenizer.model", seed=0)
    model = SimpleNamespace(
        config=config, params=random_params(config), tokenizer=tokenizer, steps=[7], notes=[]
    )
    monkeypatch.setattr(trained_model, "TrainedModel", lambda folder, config: model)
    return tmp_path


def test_the_command_measures_every_head_and_every_layer(workdir, capsys, monkeypatch):
    monkeypatch.setattr(probing, "STEPS", 10)
    probe_command.main(["--workdir", str(workdir), "--sentences", "20", "--test-sentences", "10"])
    shown = capsys.readouterr().out
    record = json.loads((workdir / "inspection" / "probing.json").read_text())
    assert (record["checkpoints"], record["learn_pairs"], record["test_pairs"]) == ([7], 20, 10)
    assert len(record["alignment"]) == 2 * 2 * (8 + 1)
    assert len(record["probes"]) == 3 * 3 * 5
    for score in record["probes"]:
        assert score["selectivity"] == pytest.approx(score["accuracy"] - score["control"])
    first = record["alignment"][0]
    assert f"layer 1, head 1{first['content_words']:>37.1%}{first['error_rate']:>12.3f}" in shown
    words = next(p for p in record["probes"] if (p["layer"], p["task"]) == (2, "word"))
    assert f"{words['accuracy']:.3f}{words['selectivity']:+6.2f}" in shown
    assert (workdir / "inspection" / "probing.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_probed_is_named(small_config, tmp_path):
    save_config(small_config, tmp_path / "config.json")
    with pytest.raises(UserError, match=r"--sentences is 0: use at least 1"):
        probe_command.main(["--workdir", str(tmp_path), "--sentences", "0"])
    files = TextFiles(directory="text", source_language="en", target_language="fr")
    save_config(dataclasses.replace(small_config, data=files), tmp_path / "config.json")
    with pytest.raises(UserError, match=r"data\.kind of .* is TextFiles, .*quickstart"):
        probe_command.main(["--workdir", str(tmp_path)])
    assert not (tmp_path / "inspection").exists()
