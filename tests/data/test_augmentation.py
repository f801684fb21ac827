"""What training sees beside the text: placeholders, and neighbours in one line."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from flax_transformer.config import Builtin, TokenizerConfig
from flax_transformer.data.augmentation import Augmentation
from flax_transformer.data.pairs import PairList
from flax_transformer.data.token_cache import tokenize_pairs
from flax_transformer.errors import UserError
from flax_transformer.text.placeholders import PLACEHOLDERS
from flax_transformer.text.tokenizer_training import train_tokenizer

PAIRS = [(f"the cat {i} sees Tom there", f"le chat {i} y voit Tom") for i in range(2000)]


def augment(augmentation: Augmentation, pairs=PAIRS, place=(0, 0)) -> dict[int, tuple[str, str]]:
    """The pairs that are not as they were, by number."""
    augmented = augmentation(pairs, place)
    assert len(augmented) == len(pairs)
    compared = enumerate(zip(pairs, augmented, strict=True))
    return {number: new for number, (old, new) in compared if old != new}


def test_a_share_of_the_pairs_gets_the_same_placeholders_on_both_sides():
    changed = augment(Augmentation(0.1, 0.0, seed=0))
    assert 140 < len(changed) < 260
    counts, places = Counter(), set()
    for number, pair in changed.items():
        found = [sorted(each for each in text if each in PLACEHOLDERS) for text in pair]
        assert found[0] == found[1] and len(set(found[0])) == len(found[0]) > 0
        counts.update(found[0])
        if len(found[0]) > 1:
            continue
        (placeholder,) = found[0]
        if "Tom" not in pair[0]:  # in place of a name, and else nothing
            assert tuple(text.replace(placeholder, "Tom") for text in pair) == PAIRS[number]
            places.add("name")
        elif str(number) in pair[0]:
            rest = [" ".join(text.replace(placeholder, "").split()) for text in pair]
            assert tuple(rest) == PAIRS[number]
            places.add(pair[0].split().index(placeholder))
    assert {"name", 0, 6} < places, "at both ends and between"
    assert len(counts) == 4 and max(counts.values()) < 2 * min(counts.values())


def test_it_depends_on_the_seed_and_the_place_alone():
    changed = augment(Augmentation(0.1, 0.0, seed=0))
    assert changed == augment(Augmentation(0.1, 0.0, seed=0))
    assert changed.keys() != augment(Augmentation(0.1, 0.0, seed=1)).keys()
    assert changed.keys() != augment(Augmentation(0.1, 0.0, seed=0), place=(1, 0)).keys()
    assert augment(Augmentation(0.0, 0.0, seed=0)) == {}


def test_empty_sides_stay_empty():
    pairs = [("", "le chat"), ("the cat", " ")] * 10
    assert augment(Augmentation(1.0, 1.0, seed=0), pairs) == {}


def test_a_share_of_the_pairs_is_followed_by_the_next():
    changed = augment(Augmentation(0.0, 0.1, seed=0))
    assert 140 < len(changed) < 260
    for i, pair in changed.items():
        assert pair == tuple(f"{a} {b}" for a, b in zip(PAIRS[i], PAIRS[i + 1], strict=True))


def test_the_cache_tells_augmented_ids_apart(tmp_path):
    text = [side for pair in PAIRS for side in pair]
    tokenizer = train_tokenizer(text, TokenizerConfig(vocabulary_size=400), tmp_path / "m", 0)
    (ids,) = tokenizer.encode([PLACEHOLDERS])
    placeholders = ids[-len(PLACEHOLDERS) :]

    def count(augmentation: Augmentation | None) -> int:
        tokens = tokenize_pairs(
            PairList(PAIRS), tokenizer, "text", tmp_path, "tokens", None, augmentation
        )
        return int(np.isin(tokens.target.values, placeholders).sum())

    assert count(None) == 0
    some = count(Augmentation(0.02, 0.0, seed=0))
    assert some > 30
    assert count(Augmentation(0.2, 0.0, seed=0)) > 5 * some
    assert count(None) == 0 and count(Augmentation(0.02, 0.0, seed=0)) == some


def test_an_unreadable_word_of_both_sides_is_a_placeholder_in_training(tmp_path):
    text = [side for pair in PAIRS for side in pair]
    tokenizer = train_tokenizer(text, TokenizerConfig(vocabulary_size=400), tmp_path / "m", 0)
    pairs = [("the cat sees Ольга", "le chat voit Ольга"), ("the cat Ω", "le chat")]
    tokens = tokenize_pairs(PairList(pairs), tokenizer, "text", None, "tokens")
    texts = tokenizer.decode([*tokens.source, *tokens.target])
    placeholder = PLACEHOLDERS[0]
    assert texts[0] == f"the cat sees {placeholder}" and texts[2] == f"le chat voit {placeholder}"
    assert texts[1] == "the cat Ω", "what the other side lacks is spelt"


def test_shares_are_checked():
    for name in ("placeholders", "concatenate"):
        with pytest.raises(UserError, match=rf"data\.{name} is 1\.5.*0 to 1"):
            dataclasses.replace(Builtin(), **{name: 1.5})
