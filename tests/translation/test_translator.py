"""Translation of lines: batching and cutting with a search that echoes, results with a model."""

import dataclasses
import random
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.config import (
    BatchConfig,
    Config,
    DecodingConfig,
    MeshConfig,
    TokenizerConfig,
    TransformerConfig,
)
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.errors import UserError
from flax_transformer.models import build_model
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.text.placeholders import PLACEHOLDERS, put_back
from flax_transformer.text.sentences import TrainedLengths
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID
from flax_transformer.text.tokenizer_training import train_tokenizer
from flax_transformer.translation import translator as translator_module
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.translation.long_lines import cut_lines, join_texts
from flax_transformer.translation.translator import Translator

CONFIG = Config(
    tokenizer=TokenizerConfig(vocabulary_size=300, normalization="identity"),
    model=TransformerConfig(
        num_encoder_layers=1, num_decoder_layers=2, d_model=16, num_heads=2, d_ff=32,
        compute_dtype="float32",
    ),
    decoding=DecodingConfig(
        beam_size=3, extra_length=5, batch_tokens=256, max_source_length=32
    ),
)  # fmt: skip

ODD_LINES = [
    "naïve 😀👩‍👩‍👧 text",
    "السلام عليكم",
    "line\u2028separator\u2029and\x85and\x0b",
    "nul \x00 bell \x07 \x1b[31m",
    "<s> </s> <pad>",
    "e\u0301 中文。",
]


def sentences(count: int, longest: int = 6) -> list[str]:
    generator = random.Random(0)
    words = ["the", "cat", "sees", "a", "red", "house", "and", "we", "eat", "bread", "in", "big"]
    return [
        f"{index} " + " ".join(generator.choices(words, k=generator.randint(0, longest)))
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    return train_tokenizer(sentences(200), CONFIG.tokenizer, path, seed=0)


@pytest.fixture(scope="module")
def readable(tmp_path_factory):
    """A vocabulary with pieces for more characters."""
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    text = [*sentences(200), "The We Why Hi . , ! ? x 界 。 😀"]
    return train_tokenizer(text, TokenizerConfig(vocabulary_size=340), path, seed=0)


@pytest.fixture(scope="module")
def params():
    model = build_model(CONFIG.model, CONFIG.tokenizer.vocabulary_size)
    ids = jnp.zeros((1, 1), jnp.int32)

    def run(module):
        memory = module.encode(ids, ids, ids)
        return module.logits(module.decode(ids, ids, ids, memory, ids))

    return nn.unbox(jax.jit(nn.init(run, model))(jax.random.key(3)))["params"]


@pytest.fixture(scope="module")
def translator(tokenizer):
    """With a real search, on all devices."""
    return Translator(CONFIG, tokenizer, build_mesh(MeshConfig(data=4, fsdp=2)))


@pytest.fixture
def echo(monkeypatch):
    """A search that finds the source itself; the list grows by one at each trace."""
    traces = []

    def search(model, config, params, ids, *_, **options):
        traces.append(ids.shape)
        lengths = (ids != PAD_ID).sum(axis=1)
        return Hypotheses(ids[:, None], -lengths[:, None].astype(jnp.float32))

    monkeypatch.setattr(translator_module, "search", search)
    return traces


def best_texts(translated: list[list[Hypothesis]]) -> list[str]:
    return [hypotheses[0].text for hypotheses in translated]


def texts_of(pieces, tokenizer) -> list[str]:
    texts = tokenizer.decode([piece.ids for piece in pieces])
    return [put_back(text, piece.words) for text, piece in zip(texts, pieces, strict=True)]


def replicate(params, translator):
    return jax.device_put(params, jax.NamedSharding(translator._mesh, jax.P()))


def test_every_line_keeps_its_place_and_its_characters(echo, tokenizer):
    lines = [*sentences(100), "", "x" * 500, *ODD_LINES, "  ", "last"]
    random.Random(1).shuffle(lines)
    translated = Translator(CONFIG, tokenizer).translate({}, lines)
    for line, (best,) in zip(lines, translated, strict=True):
        assert best.text.replace(" ", "") == line.replace(" ", "")


def test_a_hypothesis_is_one_line(echo, tokenizer):
    ((best,),) = Translator(CONFIG, tokenizer).translate({}, ["one\ntwo\rthree"])
    assert best.text == "one two three"
    ((best,),) = Translator(CONFIG, tokenizer).translate({}, ["😀\n\rone\r\n😀"])
    assert best.text == "😀  one  😀", "what stays as it is also does"


def test_a_text_that_is_found_twice_is_one_hypothesis(monkeypatch, tokenizer):
    """The same text in other pieces; the best score is kept, and the next text moves up."""
    words = ["the cat sees", "the house", "a cat"]
    whole, *others = tokenizer.encode(words)
    split = tokenizer.sample(words[:1], 0.9, seed=0)[0]
    assert split != whole and tokenizer.decode([split]) == words[:1]

    def search(model, config, params, ids, *_, **options):
        rows = [[*row, EOS_ID] for row in (whole, others[0], split, others[1], whole)]
        longest = max(map(len, rows))
        found = jnp.array([[*row, *[PAD_ID] * (longest - len(row))] for row in rows])
        scores = jnp.array([-1.0, -2.0, -3.0, -4.0, -jnp.inf])
        return Hypotheses(*(jnp.repeat(x[None], len(ids), 0) for x in (found, scores)))

    monkeypatch.setattr(translator_module, "search", search)
    line = " ".join(sentences(30))
    (short, long) = Translator(CONFIG, tokenizer).translate({}, ["short", line])
    best = "the cat sees"
    assert [(h.text, h.score) for h in short] == [
        (best, -1.0),
        ("the house", -2.0),
        ("a cat", -4.0),
    ]
    # Of a line in pieces likewise; each of its hypotheses has one of every piece.
    pieces = long[0].text.count(best)
    assert pieces > 1
    assert [h.text for h in long] == [" ".join([text] * pieces) for text in [h.text for h in short]]
    assert [h.score for h in long] == [pieces * h.score for h in short]


def test_lines_without_text_need_no_model(echo, tokenizer):
    translator = Translator(CONFIG, tokenizer)
    translated = translator.translate({}, ["", " ", "\t \r", "\u3000\u2028"])
    assert translated == [[Hypothesis("", 0.0, 0)]] * 4
    assert translator.translate({}, []) == []
    assert not echo


def test_each_shape_is_traced_once_and_there_are_few(echo, tokenizer):
    translator = Translator(CONFIG, tokenizer)
    for count in (100, 1, 37, 2, 100):
        translator.translate({}, sentences(count, longest=12))
        translator.translate({}, ["the cat"] * count)
    # 8 rows for few lines, and otherwise as many as make 256 tokens.
    assert set(translator.compiled_shapes) == {(8, 16), (16, 16), (8, 32)}
    assert len(echo) == 3
    compiling = translator.counts.compile_seconds
    assert compiling > 0
    translator.translate({}, sentences(100))
    assert translator.counts.compile_seconds == compiling


def test_few_short_lines_take_the_shape_of_the_long_ones(echo, tokenizer):
    """A program of their own would be compiled for longer than they are translated."""
    translator = Translator(CONFIG, tokenizer)
    long, short = ["the cat sees a big red house and we eat bread in it"] * 12, ["the cat"] * 20
    together = translator.translate({}, long + short)
    assert translator.compiled_shapes == [(8, 32)]
    assert together[12:] == Translator(CONFIG, tokenizer).translate({}, short)
    translator.translate({}, short)
    assert translator.compiled_shapes == [(8, 32), (16, 16)]
    translator.translate({}, ["the cat"] * 200 + long)
    assert translator.compiled_shapes == [(8, 32), (16, 16)]


def test_rows_are_a_multiple_of_the_devices(echo, tokenizer):
    mesh = build_mesh(MeshConfig(data=3, fsdp=2), jax.devices()[:6])
    translator = Translator(CONFIG, tokenizer, mesh)
    assert len(translator.translate({}, sentences(50, longest=12))) == 50
    assert all(rows % 6 == 0 for rows, _ in translator.compiled_shapes)


def test_parts_of_a_long_line_are_joined_and_counted(echo, tokenizer):
    translator = Translator(CONFIG, tokenizer)
    line = " ".join(sentences(30))
    (long,), (short,) = translator.translate({}, [line, "short"])
    assert long.text.split() == line.split()
    # The end symbol of each piece is counted, and the echo scores by length.
    assert long.score == -long.tokens < -len(tokenizer.encode([line])[0])
    assert translator.counts.cut_lines == 1
    assert translator.counts.target_tokens == long.tokens + short.tokens


@pytest.mark.parametrize(
    "line",
    ["word " * 5000, "x" * 20_000, "😀" * 300, "a. " * 400, "Hi. " * 9 + "w " * 900, "界。" * 200],
    ids=["words", "one word", "emoji", "sentences", "uneven", "no spaces"],
)
def test_pieces_fit_and_nothing_is_lost(readable, line):
    (pieces,) = cut_lines([line], readable, 20)
    assert len(pieces) > 1
    assert all(0 < len(piece.ids) <= 20 for piece in pieces)
    assert "".join(texts_of(pieces, readable)).replace(" ", "") == line.replace(" ", "")


def test_lines_are_cut_where_sentences_end(readable):
    first, second = "We eat bread. ", "The big cat sees the red house?"
    (whole,) = readable.encode([first + second])
    (pieces,) = cut_lines([first + second], readable, len(whole) - 1)
    assert texts_of(pieces, readable) == [first.strip(), second]
    most = max(len(piece.ids) for piece in pieces)
    assert all(len(cut) == 1 for cut in cut_lines([first, second], readable, most))


def test_several_sentences_are_cut_to_what_training_saw(readable):
    sentences = ["We eat.", "The cat sees a house.", "The big house!", "Why?", "The end."]
    line = " ".join(sentences)
    lengths = [len(ids) for ids in readable.encode(sentences)]

    def cut(text: str, tokens: int, count: int) -> list[str]:
        (pieces,) = cut_lines([text], readable, 500, TrainedLengths(tokens, count))
        return texts_of(pieces, readable)

    assert cut(line, 500, 1) == sentences
    assert cut(line, 500, 2) == ["We eat. The cat sees a house.", "The big house! Why?", "The end."]
    assert cut(line, 500, 5) == [line]
    assert cut(line, max(lengths), 5)[1] == sentences[1]
    assert cut(sentences[1], 2, 1) == [sentences[1]], "a sentence is not torn"
    assert cut("red and big", 2, 1) == ["red and big"]


def test_joined_texts_have_a_space_where_the_writing_has():
    assert join_texts(["One.", "Two."]) == "One. Two."
    assert join_texts(["你好。", "再见。"]) == "你好。再见。"
    assert join_texts(["안녕.", "네", "네"]) == "안녕. 네 네"
    assert join_texts(["", "a", "", "b"]) == "a b"


def test_sentences_stay_together_where_one_wants_it(echo, readable):
    line = "We eat. The cat sees."
    trained = TrainedLengths(100, 1)
    for split, pieces in ((True, 1), (False, 0)):
        decoding = dataclasses.replace(CONFIG.decoding, split_sentences=split)
        config = dataclasses.replace(CONFIG, decoding=decoding)
        translator = Translator(config, readable, trained=trained)
        assert translator.translate({}, [line])[0][0].text == line
        assert translator.counts.cut_lines == pieces


@pytest.mark.parametrize("line", ["\u2581", "\u200b", "\ufeff", " \u00a0\t", "\x00\x07", "\u200d"])
def test_what_has_nothing_to_see_has_nothing_to_translate(echo, tokenizer, line):
    assert Translator(CONFIG, tokenizer).translate({}, [line]) == [[Hypothesis("", 0.0, 0)]]
    assert not echo, "nothing was searched for"


def test_unreadable_words_are_carried_over(monkeypatch, tokenizer):
    """Under a model that repeats the placeholders, in another order."""

    def search(model, config, params, ids, *_, **options):
        reverse = jnp.where((ids != PAD_ID) & (ids != EOS_ID), ids, PAD_ID)[:, None, ::-1]
        return Hypotheses(reverse, jnp.zeros((len(ids), 1)))

    monkeypatch.setattr(translator_module, "search", search)
    ((best,),) = Translator(CONFIG, tokenizer).translate({}, ["Ольга 😀"])
    assert best.text.split() == ["Ольга", "😀"], "one word, not taken apart"
    ((best,),) = Translator(CONFIG, tokenizer).translate({}, ["Ольга a 😀"])
    assert best.text.replace(" ", "") == "aОльга😀", "a symbol at the end never moves"
    ((best,),) = Translator(CONFIG, tokenizer).translate({}, ["Ольга a Łódź"])
    assert best.text.replace(" ", "") == "ŁódźaОльга"
    assert Translator(CONFIG, tokenizer).translate({}, ["😀"]) == [[Hypothesis("😀", 0.0, 0)]]


def test_a_translation_without_a_lost_word_goes_before_a_likelier_one(monkeypatch, tokenizer):
    a, placeholder = (ids[-1] for ids in tokenizer.encode(["a", PLACEHOLDERS[0]]))
    found = np.array([[[a, EOS_ID], [placeholder, EOS_ID]]] * 8)
    everything = Hypotheses(jnp.asarray(found), jnp.zeros((8, 2)) - 1)
    monkeypatch.setattr(translator_module, "search", lambda *_, **options: everything)
    (hypotheses,) = Translator(CONFIG, tokenizer).translate({}, ["the Ольга a"])
    assert [each.text.strip() for each in hypotheses] == ["Ольга", tokenizer.decode([[a]])[0]]


def test_the_score_is_that_of_the_model(translator, tokenizer, params):
    """Teacher forcing on the unpadded sentence gives the log probability that the search found."""
    line = "the cat sees a red house"
    with jax.transfer_guard("disallow"):
        (hypotheses,) = translator.translate(replicate(params, translator), [line])
    assert len(hypotheses) == CONFIG.decoding.beam_size
    assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
    source = [*tokenizer.encode([line])[0], EOS_ID]
    longest = len(source) + CONFIG.decoding.extra_length
    assert all(h.tokens <= longest for h in hypotheses)

    model = build_model(CONFIG.model, CONFIG.tokenizer.vocabulary_size)
    search = jax.jit(partial(translator_module.search, model, CONFIG))
    searched = search(params, jnp.array([source], jnp.int32))
    target = [token for token in searched.ids[0, 0].tolist() if token != PAD_ID]
    assert target[-1] == EOS_ID
    assert tokenizer.decode([target]) == [hypotheses[0].text]
    penalty = ((5 + len(target)) / 6) ** CONFIG.decoding.length_penalty
    log_probability = teacher_forced(params, source, target)
    np.testing.assert_allclose(hypotheses[0].score, log_probability / penalty, rtol=1e-4)


def teacher_forced(params, source: list[int], target: list[int]) -> float:
    model = build_model(CONFIG.model, CONFIG.tokenizer.vocabulary_size)

    def inputs(ids):
        row = np.array([ids], np.int32)
        return row, np.ones_like(row), np.arange(row.shape[1], dtype=np.int32)[None]

    def run(module):
        memory = module.encode(*inputs(source))
        features = module.decode(*inputs([BOS_ID, *target[:-1]]), memory, inputs(source)[1])
        return jax.nn.log_softmax(module.logits(features))

    log_probs = jax.jit(nn.apply(run, model))({"params": params})
    return float(log_probs[0, np.arange(len(target)), np.array(target)].sum())


def test_the_options_of_the_search_are_those_of_the_config(tokenizer, params):
    """Each option, flipped, changes the scores of the same hypotheses as its formula says."""
    line = "the cat sees a red house"
    one = build_mesh(MeshConfig(), jax.devices()[:1])

    def translate(**options):
        decoding = dataclasses.replace(CONFIG.decoding, **{"length_penalty": 0.0, **options})
        translator = Translator(dataclasses.replace(CONFIG, decoding=decoding), tokenizer, one)
        (hypotheses,) = translator.translate(replicate(params, translator), [line])
        return {hypothesis.text: hypothesis for hypothesis in hypotheses}

    plain = translate()
    mean = translate(length_normalization="power", length_penalty=1.0)
    covered = translate(coverage_penalty=0.5)
    assert plain.keys() & mean.keys() and plain.keys() & covered.keys()
    for text in plain.keys() & mean.keys():
        expected = plain[text].score / plain[text].tokens
        np.testing.assert_allclose(mean[text].score, expected, rtol=1e-4)
    for text in plain.keys() & covered.keys():
        assert covered[text].score < plain[text].score


def test_company_and_devices_change_nothing(translator, tokenizer, params):
    lines = [*sentences(20, longest=10), *ODD_LINES]
    together = translator.translate(replicate(params, translator), lines)
    assert len(set(best_texts(together))) > len(lines) // 2, "the lines must be told apart"

    single = dataclasses.replace(CONFIG.decoding, batch_tokens=1, max_source_length=64)
    one = Translator(
        dataclasses.replace(CONFIG, decoding=single),
        tokenizer,
        build_mesh(MeshConfig(), jax.devices()[:1]),
    )
    for index in (0, 7, 19, 22):
        # Alone in its batch, of another width, on one device.
        ((alone, *_),) = one.translate(replicate(params, one), [lines[index]])
        assert alone.text == together[index][0].text
        np.testing.assert_allclose(alone.score, together[index][0].score, rtol=1e-4)


def test_learned_positions_that_training_never_sees_are_not_used(tokenizer, params):
    """Beyond the rows of a batch the table of positions is as it was drawn; here it has no
    numbers there."""
    source_length, target_length = 12, 9
    config = dataclasses.replace(
        CONFIG,
        batch=BatchConfig(source_length=source_length, target_length=target_length),
        model=dataclasses.replace(CONFIG.model, positions="learned", max_positions=64),
    )
    table = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    table[source_length:] = np.nan
    params = params | {"embedding": params["embedding"] | {"positions": table}}
    translator = Translator(config, tokenizer, build_mesh(MeshConfig(), jax.devices()[:1]))
    lines = ["the cat", "the big red cat sees a house and we eat bread in the big house"]
    short, long = translator.translate(replicate(params, translator), lines)
    assert translator.counts.cut_lines == 1
    assert max(s for _, s in translator.compiled_shapes) == source_length
    assert all(np.isfinite(hypothesis.score) for hypothesis in [*short, *long])
    # Without the limit these parameters write on up to `extra_length` more than the source has.
    assert max(hypothesis.tokens for hypothesis in short) == target_length


def test_parameters_that_are_not_finite_do_not_stop_a_validation(translator, params):
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, params)
    ((best,),) = translator.translate(replicate(broken, translator), ["the cat"])
    assert not np.isfinite(best.score)


def test_a_piece_has_room_for_a_token_and_the_end():
    with pytest.raises(UserError, match="max_source_length"):
        DecodingConfig(max_source_length=1)
