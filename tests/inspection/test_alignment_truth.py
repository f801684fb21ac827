"""How well attention finds what is translated: words of tokens, and scores of cases by hand."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from support.samples import recurrent

from flax_transformer.config import TokenizerConfig
from flax_transformer.data.builtin.analysis import AnalysedPair, Word, analysed_pairs
from flax_transformer.errors import UserError
from flax_transformer.inspection.alignment_error import (
    AlignmentCounts,
    alignment_scores,
    between_words,
    diagonal_score,
)
from flax_transformer.inspection.attention import attend
from flax_transformer.inspection.pair_rows import PairRow, lay_out_pairs, tokens_of_words
from flax_transformer.text.tokenizer_training import train_tokenizer

V = 400


@pytest.fixture(scope="module")
def pairs():
    return analysed_pairs("train", 60)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, pairs):
    """With so few pieces that most letters with accents are spelled in bytes."""
    texts = [text for pair in pairs for text in (pair.source, pair.target)]
    config = TokenizerConfig(vocabulary_size=V, character_coverage=0.98)
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    return train_tokenizer(texts, config, path, seed=0)


def test_tokens_of_a_word_spell_it(tokenizer, pairs):
    in_bytes = spaces = 0
    for pair in pairs:
        (ids,) = tokenizer.encode([pair.target])
        found = tokens_of_words(tokenizer, ids, pair.target_words)
        for word, tokens in zip(pair.target_words, found, strict=True):
            assert word.text in tokenizer.decode([ids[tokens.start : tokens.stop]])[0]
            for less in (tokens[1:], tokens[:-1]):
                assert word.text not in tokenizer.decode([ids[less.start : less.stop]])[0]
            in_bytes += any(ids[token] in tokenizer.byte_ids for token in tokens)
        left = {*range(len(ids))} - {token for tokens in found for token in tokens}
        assert {*tokenizer.pieces([ids[token] for token in left])} <= {"\u2581"}
        spaces += len(left)
    assert in_bytes and spaces


def test_a_token_may_belong_to_two_words():
    pieces = SimpleNamespace(byte_ids=range(0), pieces=lambda ids: ["\u2581l'a", "rb", "re"])
    words = [word("l'", "determiner"), word("arbre", "noun", 2)]
    assert tokens_of_words(pieces, [7, 8, 9], words) == [range(0, 1), range(0, 3)]


def test_other_words_than_those_of_the_tokens_are_refused(tokenizer, pairs):
    first, second = pairs[:2]
    ids = tokenizer.encode([first.source])[0]
    with pytest.raises(UserError, match=r"writes '.*' as 'Theywill.*--tokenizer\.norm"):
        tokens_of_words(tokenizer, ids, second.source_words)


def word(text, kind, start=0):
    return Word(
        text=text, start=start, end=start + len(text), part_of_speech=kind, gender=None, number=None
    )


PAIR = AnalysedPair(
    source="red cats sleep",
    target="chats rouges dorment",
    source_words=(word("red", "adjective"), word("cats", "noun", 4), word("sleep", "verb", 9)),
    target_words=(
        word("chats", "noun"),
        word("rouges", "adjective", 6),
        word("dorment", "verb", 13),
    ),
    alignment=frozenset({(0, 1), (1, 0), (2, 2)}),
)


def test_attention_of_words_is_summed_over_the_source_and_averaged_over_the_target():
    weights = np.arange(1.0, 25).reshape(1, 1, 4, 6)  # of the last column, each row's end
    weights /= weights.sum(axis=-1, keepdims=True)
    row = PairRow(PAIR, [range(0, 1), range(1, 3), range(2, 5)], [range(0, 1), range(1, 3)])
    w = weights[0, 0]
    expected = [
        [w[t, 0].mean(), (w[t, 1] + w[t, 2] / 2).mean(), (w[t, 2] / 2 + w[t, 3] + w[t, 4]).mean()]
        for t in (slice(0, 1), slice(1, 3))
    ]
    found = between_words(weights, row, "written")[0, 0]
    np.testing.assert_allclose(found[:, :3], expected)
    np.testing.assert_allclose(found[:, 3], [w[0, 5], w[1:3, 5].mean()])
    later = between_words(weights, row, "read")[0, 0]
    np.testing.assert_allclose(later[0, 0], w[1, 0])
    np.testing.assert_allclose(later[1, 0], w[2:4, 0].mean())


def looking_at(*places):
    """Attention (1,2,T,S+1) of one head, and of a mean that looks at the end."""
    head = np.eye(4)[list(places)]
    return np.stack([head, np.eye(4)[[3] * len(places)]])[None]


@pytest.mark.parametrize(
    ("places", "content", "error"),
    [
        ((1, 0, 2), 1.0, 0.0),
        ((0, 1, 2), 1 / 3, 1 - (1 + 1) / (3 + 3)),
        ((1, 0, 3), 2 / 3, 1 - (2 + 2) / (2 + 3)),  # the end of the sentence makes no link
    ],
)
def test_scores_by_hand(places, content, error):
    counts = AlignmentCounts()
    counts.add(PAIR, looking_at(*places))
    head, mean = counts.scores("written")
    assert (head.layer, head.head, mean.head) == (1, 1, None)
    assert head.content_words == pytest.approx(content)
    assert head.error_rate == pytest.approx(error)
    assert (mean.content_words, mean.error_rate) == (0, 1)


def test_links_that_are_only_possible_need_not_be_found():
    """ "will sleep" and "dorment": one of the two is enough."""
    words = (word("will", "auxiliary"), word("sleep", "verb", 5))
    future = AnalysedPair(
        source="will sleep",
        target="dormiront",
        source_words=words,
        target_words=(word("dormiront", "verb"),),
        alignment=frozenset({(0, 0), (1, 0)}),
    )
    errors = []
    for place in (0, 1):
        counts = AlignmentCounts()
        counts.add(future, np.eye(3)[[place]][None, None])
        (score,) = counts.scores("written")
        assert score.content_words == 1
        errors.append(score.error_rate)
    assert errors == [1 - (0 + 1) / (1 + 1), 0]


def test_the_same_place_is_right_where_the_order_is_the_same():
    assert diagonal_score([PAIR]).content_words == pytest.approx(1 / 3)


def test_scores_of_a_batch_are_those_of_each_pair_alone(
    small_config, random_params, tokenizer, pairs
):
    config = dataclasses.replace(small_config, tokenizer=TokenizerConfig(vocabulary_size=V))
    params = jax.device_put(random_params(config))
    model = SimpleNamespace(config=config, params=params, tokenizer=tokenizer)
    pairs = sorted(pairs, key=lambda pair: len(pair.target))[5:50:40]
    counts = {moment: AlignmentCounts() for moment in ("written", "read")}
    for pair in pairs:
        ((row,),) = (each.rows for each in lay_out_pairs(tokenizer, [pair]))
        weights = attend(config, params, tokenizer, pair.source, pair.target).cross
        weights = np.concatenate([weights, weights.mean(axis=1, keepdims=True)], axis=1)
        for moment, count in counts.items():
            count.add(pair, between_words(weights, row, moment))
    alone = [score for moment, count in counts.items() for score in count.scores(moment)]
    assert alignment_scores(model, pairs) == alone
    assert len(alone) == 2 * 2 * (8 + 1) and len({score.error_rate for score in alone}) > 4


def test_a_model_without_attention_is_refused(small_config, random_params, tokenizer, pairs):
    config = dataclasses.replace(small_config, tokenizer=TokenizerConfig(vocabulary_size=V))
    config = recurrent(config, "no attention")
    model = SimpleNamespace(config=config, params=random_params(config), tokenizer=tokenizer)
    with pytest.raises(UserError, match=r"model\.attention is none"):
        alignment_scores(model, pairs[:1])
