"""Settings of the search that exclude each other, or that nothing would read."""

import pytest

from flax_transformer.config import DecodingConfig
from flax_transformer.errors import UserError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0, "sampling": True}, "temperature is 0.0, but must be greater than 0"),
        ({"top_k": -1, "sampling": True}, "top_k is -1, but must not be negative"),
        ({"top_p": 0.0, "sampling": True}, "top_p is 0.0, but must be above 0 and at most 1"),
        ({"top_p": 1.5, "sampling": True}, "top_p is 1.5, but must be above 0 and at most 1"),
        ({"seed": -3, "sampling": True}, "seed is -3, but must not be negative"),
        ({"top_k": 10}, "top_k is 10, but means nothing without decoding.sampling: set that"),
        ({"top_p": 0.9}, "top_p is 0.9, but means nothing without decoding.sampling"),
        ({"temperature": 0.5}, "temperature is 0.5, but means nothing without decoding.sampling"),
        ({"seed": 1}, "seed is 1, but means nothing without decoding.sampling"),
        ({"min_length": -1}, "min_length is -1, but must not be negative"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram is -1, but must not be negative"),
        ({"forbidden": ("chat", " ")}, "forbidden has an empty phrase: leave it out"),
        (
            {"sampling": True, "coverage_penalty": 0.2},
            "coverage_penalty is 0.2, but decoding.samp.*: leave one",
        ),
        ({"sampling": True, "diversity_groups": 2}, "diversity_groups is 2, but decoding.sampling"),
        ({"diversity_groups": 0}, "diversity_groups is 0, but must be greater than 0"),
        ({"diversity_groups": 3}, r"diversity_groups \(3\) must divide decoding.beam_size \(4\)"),
        ({"diversity_groups": 2, "diversity_strength": -1.0}, "strength is -1.0, but must not be"),
        ({"diversity_strength": 1.0}, "strength is 1.0, but means nothing without decoding.divers"),
    ],
)
def test_what_contradicts_itself_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        DecodingConfig(**settings)


def test_settings_of_one_way_to_search_go_together():
    groups = DecodingConfig(
        beam_size=6, diversity_groups=3, diversity_strength=0.2, coverage_penalty=0.1
    )
    samples = DecodingConfig(sampling=True, temperature=0.5, top_k=10, top_p=0.9, seed=3)
    assert not groups.is_one_beam and not samples.is_one_beam and DecodingConfig().is_one_beam
