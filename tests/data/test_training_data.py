"""Several sources of training pairs: weights, tags, and what stays as it was."""

from collections import Counter

import numpy as np
import pytest

from flax_transformer.config import BatchConfig, Config, TextFiles, TokenizerConfig
from flax_transformer.data import token_cache, training_data
from flax_transformer.data.corpus import open_corpus
from flax_transformer.data.training_data import TrainingData, prepare_training_data
from flax_transformer.errors import UserError

WORDS = ["the", "cat", "sees", "a", "dog", "house", "near", "red"]
ROWS = BatchConfig(rows=4, source_length=40, target_length=40)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """30 true pairs, 40 synthetic ones, of which one has no source and two are too long."""
    monkeypatch.setattr(training_data, "default_cache_directory", lambda: tmp_path / "cache")
    draw = np.random.default_rng(0)

    def sentence(length: int) -> str:
        return " ".join(draw.choice(WORDS, length))

    for name, count in (("train", 30), ("synthetic", 40), ("valid", 4)):
        pairs = [[sentence(draw.integers(3, 9)) for _ in range(2)] for _ in range(count)]
        if name == "synthetic":
            pairs[5][0], pairs[6][0], pairs[7][1] = "", sentence(60), sentence(60)
            pairs[8][0] = "<bt> the cat"
        for side, language in enumerate(("en", "de")):
            text = "".join(pair[side] + "\n" for pair in pairs)
            (tmp_path / f"{name}.{language}").write_text(text)
    return tmp_path


def prepare(folder, *train: str, run="run", **tokenizer) -> TrainingData:
    files = TextFiles(
        directory=str(folder), source_language="en", target_language="de", train=train, test=()
    )
    config = Config(
        data=files,
        tokenizer=TokenizerConfig(**{"vocabulary_size": 305} | tokenizer),
        batch=ROWS,
    )
    (folder / run).mkdir(exist_ok=True)
    return prepare_training_data(open_corpus(files), config, folder / run)


def seen_in(data: TrainingData, epoch: int) -> Counter:
    """How often the epoch holds the pair of each number."""
    rows = data.train.template.num_rows
    places = range(epoch * rows, (epoch + 1) * rows)
    return Counter(int(pair) for place in places for pair in data.train.pairs_of_row(place))


def test_an_epoch_holds_each_pair_as_often_as_its_weight(folder):
    data = prepare(folder, "train,weight=3", "synthetic,tag=<bt>")
    usable = [number for number in range(70) if number not in (35, 36, 37)]
    expected = {number: 3 if number < 30 else 1 for number in usable}
    assert seen_in(data, 0) == seen_in(data, 4) == expected
    first, second = (
        [tuple(data.train.pairs_of_row(epoch * data.train.template.num_rows + i)) for i in range(8)]
        for epoch in (0, 4)
    )
    assert first != second
    again = prepare(folder, "train,weight=3", "synthetic,tag=<bt>")
    for step in (0, 7, 3):
        for one, other in zip(data.train.batch(step), again.train.batch(step), strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_tag_stands_before_the_sources_of_its_files_only(folder):
    plain = prepare(folder, "train", "synthetic", run="plain")
    data = prepare(folder, "train", "synthetic,tag=<bt>")
    tag = data.tokenizer.tag_id("<bt>")
    decode = data.tokenizer.decode
    for number, source in enumerate(data.train.pairs.source):
        assert (source[0] == tag) == (number >= 30 and number != 35)
        assert tag not in source[1:]
        before = plain.tokenizer.decode([plain.train.pairs.source[number]])
        assert decode([source]) == before
    assert decode([data.train.pairs.source[38]]) == ["<bt> the cat"]
    for side in (
        data.train.pairs.target,
        data.validation.pairs.source,
        data.validation.pairs.target,
    ):
        assert tag not in side.values


def test_weights_keep_vocabulary_and_cache_and_tags_do_not(folder, monkeypatch):
    first = prepare(folder, "train", "synthetic,tag=<bt>")
    with monkeypatch.context() as context:
        context.setattr(token_cache, "encode_pairs", None)  # all comes from the cache
        other = prepare(folder, "train,weight=4", "synthetic,weight=2,tag=<bt>", run="other")
    assert other.tokenizer.fingerprint == first.tokenizer.fingerprint
    # The same text and vocabulary, with the tag before other sentences.
    swapped = prepare(folder, "train,tag=<bt>", "synthetic")
    tag = swapped.tokenizer.tag_id("<bt>")
    assert [source[0] == tag for source in swapped.train.pairs.source] == [True] * 30 + [False] * 40


def test_weights_and_tags_with_bpe_dropout(folder):
    data = prepare(folder, "train,weight=2", "synthetic,tag=<bt>", dropout=0.3, samples=3)
    tag = data.tokenizer.tag_id("<bt>")
    sources = data.train.pairs.source
    assert len(sources) == 3 * 70
    for number, source in enumerate(sources):
        assert (source[0] == tag) == (number % 70 >= 30 and number % 70 != 35)
    seen = seen_in(data, 1)
    assert set(seen) == set(data.train.kept.tolist())
    assert all(times == (2 if number % 70 < 30 else 1) for number, times in seen.items())
    note = next(note for note in data.notes if note.startswith("  synthetic"))
    assert "dropped: 3 empty on one side, 6 longer" in note


def test_what_is_dropped_is_counted_for_each_source(folder):
    notes = prepare(folder, "train,weight=3", "synthetic,tag=<bt>").notes
    assert any(note.startswith("train: 67 pairs kept; dropped: 1 empty on") for note in notes)
    assert "  train: 30 pairs kept; dropped: none; weight 3" in notes
    (note,) = (note for note in notes if note.startswith("  synthetic: 37 pairs kept; dropped: 1 "))
    assert "2 longer than 40" in note and note.endswith("; weight 1, tag <bt>")
    alone = prepare(folder, "train", run="alone").notes
    assert not any(note.startswith("  ") for note in alone)


def test_a_vocabulary_without_the_tag_is_refused(folder):
    prepare(folder, "train")
    with pytest.raises(UserError, match=r"no symbol for data\.train's tag <bt>: delete tokenizer"):
        prepare(folder, "train", "synthetic,tag=<bt>")


@pytest.mark.parametrize(("split", "file"), [("train", "train"), ("validation", "valid")])
def test_a_split_without_a_usable_pair_is_named(folder, split, file):
    for language in ("en", "de"):
        text = (folder / f"train.{language}").read_text().replace("\n", " ")
        (folder / f"{file}.{language}").write_text(f"{text}\n" * 3)
    with pytest.raises(UserError) as raised:
        prepare(folder, "train")
    message = str(raised.value)
    assert f"no pair of {split} is usable" in message
    assert "3 longer than 40 source or 40 target tokens" in message
    assert "batch.source_length" in message


def prepare_with(folder, **settings) -> TrainingData:
    files = TextFiles(
        directory=str(folder), source_language="en", target_language="de", test=(), **settings
    )
    tokenizer = TokenizerConfig(vocabulary_size=305, normalization="identity")
    config = Config(data=files, tokenizer=tokenizer, batch=ROWS)
    (folder / "run").mkdir(exist_ok=True)
    return prepare_training_data(open_corpus(files), config, folder / "run")


def test_what_almost_all_of_the_text_keeps_to_is_known(folder):
    """Of 30 lines, one is as long as three and one has two sentences."""
    lines = (folder / "train.en").read_text().splitlines()
    lines[3], lines[7] = " ".join([lines[3]] * 3), f"The cat. {lines[7]}"
    (folder / "train.en").write_text("".join(f"{line}\n" for line in lines))
    data = prepare_with(folder, placeholders=0.0)
    tokens, sentences = data.trained_lengths
    assert sentences == 1 and tokens == sorted(map(len, data.tokenizer.encode(lines)))[-2]


def test_neighbours_in_one_line_count_as_sentences_of_it(folder):
    apart = prepare_with(folder)
    together = prepare_with(folder, concatenate=1.0)
    assert together.trained_lengths.sentences == 2 * apart.trained_lengths.sentences
    assert together.trained_lengths.tokens > 1.4 * apart.trained_lengths.tokens
