"""The record of a search, and searches with a prefix, of both families and every way to them."""

import dataclasses

import jax
import pytest
from support.samples import recurrent
from support.states import save_untrained_run

import flax_transformer as ft
from flax_transformer.data.builtin import generate
from flax_transformer.text.placeholders import PLACEHOLDERS, put_back
from flax_transformer.text.tokenizer import EOS_ID

LINES = ["the cat sees.", "we eat bread.", "", "a man. we see."]
PREFIXES = ["", "nous ma", "", "un homme. nous"]
WIDTH = 3


@pytest.fixture(scope="module", params=["Transformer", "recurrent"])
def model(request, quick, small_config, random_params, tmp_path_factory) -> ft.Model:
    """An untrained one, whose hypotheses have more than one word."""
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    config = dataclasses.replace(
        small_config,
        model=dataclasses.replace(small_config.model, **layers),
        decoding=ft.DecodingConfig(
            beam_size=WIDTH, extra_length=12, max_source_length=16, coverage_penalty=0.3
        ),
    )  # fmt: skip
    if request.param == "recurrent":
        config = recurrent(config, "concat", **layers)
    folder = tmp_path_factory.mktemp("run")
    save_untrained_run(folder, config, [text for pair in generate(400)["train"] for text in pair])
    model = ft.load(folder)
    places = jax.tree.map(lambda leaf: leaf.sharding, model.params)
    params = random_params(config)
    table = params["embedding"]["table"]
    table[list(model.tokenizer.byte_ids)] = 0.0  # as text they all look alike
    table[EOS_ID] *= 2.0  # for some to end before they must
    model.params = jax.device_put(params, places)
    return model


@pytest.fixture(scope="module")
def found(model) -> list[list[ft.Hypothesis]]:
    return model.search(LINES, prefixes=PREFIXES)


@pytest.fixture(scope="module")
def trees(model) -> list[ft.SearchTree]:
    return [
        model.search_tree(line, prefix=prefix) for line, prefix in zip(LINES, PREFIXES, strict=True)
    ]


def test_hypotheses_are_those_of_the_search(found, trees):
    for tree, hypotheses in zip(trees, found, strict=True):
        assert [each.text for each in tree.hypotheses] == [each.text for each in hypotheses]
        assert [each.tokens for each in tree.hypotheses] == [each.tokens for each in hypotheses]
        scores = [each.score for each in hypotheses]
        assert [each.score for each in tree.hypotheses] == pytest.approx(scores, rel=1e-4)
    assert len({hypotheses[0].text for hypotheses in found}) == len(LINES)


def test_hypotheses_begin_with_their_prefixes(found):
    for prefix, hypotheses in zip(PREFIXES, found, strict=True):
        assert all(each.text.startswith(prefix) for each in hypotheses)


def tokens_of(tree: ft.SearchTree, position: int, place: int | None) -> list[int]:
    """The ids on the way to a node."""
    tokens = []
    while place is not None:
        node = tree.steps[position][place]
        tokens.insert(0, node.token)
        position, place = position - 1, node.parent
    return tokens


def test_finished_nodes_are_the_ends_of_the_hypotheses(model, trees):
    for tree in trees:
        ended = {
            node.score: put_back(model.tokenizer.decode([tokens_of(tree, position, place)])[0], {})
            for position, nodes in enumerate(tree.steps)
            for place, node in enumerate(nodes)
            if node.fate == "finished"
        }
        assert len(ended) >= len(tree.hypotheses) or not tree.steps
        for each in tree.hypotheses[: len(ended)]:
            assert ended[each.score] == each.text
        assert max(ended, default=0.0) == tree.hypotheses[0].score


def test_nodes_follow_the_rules_of_the_search(model, trees):
    for tree, line, prefix in zip(trees, LINES, PREFIXES, strict=True):
        source, forced = model.tokenizer.encode([line, prefix.rpartition(" ")[0]])
        assert list(tree.source) == model.tokenizer.pieces([*source, EOS_ID])
        assert tree.prefix_length == len(forced)
        assert len(tree.steps) == 0 if not line else len(tree.steps) > len(forced)
        for token, nodes in zip(forced, tree.steps, strict=False):
            assert [(node.token, node.fate) for node in nodes] == [(token, "live")]
        before: dict[int, float] = {}
        for position, nodes in enumerate(tree.steps):
            chances = [node.log_probability for node in nodes]
            assert chances == sorted(chances, reverse=True) and len(nodes) <= 2 * WIDTH
            live = {i: n.log_probability for i, n in enumerate(nodes) if n.fate == "live"}
            assert len(live) <= WIDTH
            for place, node in enumerate(nodes):
                assert node.piece == model.tokenizer.pieces([node.token])[0]
                assert (node.parent is None) == (position == 0)
                if position:
                    assert node.log_probability < before[node.parent]
                uncovered = node.log_probability / ((6 + position) / 6) ** 0.6 - node.score
                assert uncovered > (0.1 if position == 0 else -1e-4)
                if node.fate == "finished":
                    assert node.token == EOS_ID and place < WIDTH
            before = live
        assert not before, "no search goes on from its last position"


def test_greedy_search_goes_on_as_it_would_from_any_beginning_of_its_own(model):
    tree = model.search_tree(LINES[1], beam_size=1, prefix=PREFIXES[1])
    text, start = tree.hypotheses[0].text, len(PREFIXES[1])
    assert len(text) > start + 3
    for end in range(start, start + 4):
        (again,) = model.search_tree(LINES[1], beam_size=1, prefix=text[:end]).hypotheses
        assert again.text == text


def test_empty_prefixes_take_the_program_that_there_is(model):
    expected = model.search(LINES)
    compiled = dict(model.translator._programs)
    assert model.search(LINES, prefixes=["", " ", "", "\u200b"]) == expected
    assert model.translator._programs == compiled


@pytest.mark.parametrize(
    ("prefixes", "message"),
    [
        (["Le"] * 3, "there are 4 lines and 3 prefixes: give one for each line"),
        (["", "", "Le", ""], "the prefix 'Le' is that of a line without words to translate"),
        (
            ["", "pain " * 30, "", ""],
            r"the prefix 'pain pain .*\.\.\.' has \d+ tokens, but a translation of its line has at "
            r"most \d+, end symbol included: shorten it, or raise decoding\.extra_length",
        ),
    ],
)
def test_prefixes_that_cannot_be_are_named(model, prefixes, message):
    with pytest.raises(ft.UserError, match=message):
        model.search(LINES, prefixes=prefixes)


def test_a_tree_is_of_one_search(model):
    with pytest.raises(ft.UserError, match="more than 16 tokens, for which one search is not"):
        model.search_tree("the cat " * 50)
    with pytest.raises(TypeError, match="prefixes is one text"):
        model.translate(LINES, prefixes="Le")


def test_words_that_are_carried_over_are_shown_as_they_are(model):
    tree = model.search_tree("the Ольга sees.", prefix="Ольга")
    assert "Ольга" in tree.source and tree.prefix_length == 2
    assert [nodes[0].piece for nodes in tree.steps[:2]] == ["\u2581", "Ольга"]
    shown = [*tree.source, *(node.piece for nodes in tree.steps for node in nodes)]
    assert PLACEHOLDERS[0] not in "".join(shown) and all(shown)
    assert all(each.text.startswith("Ольга") for each in tree.hypotheses)
