"""The blocks of packed rows that attention computes, against the mask itself."""

import jax.numpy as jnp
import numpy as np
import pytest
from support.samples import draw_segments

from flax_transformer.ops.attention import visible
from flax_transformer.ops.packed_blocks import keys_to_meet, queries_to_meet


def between(ends, count: int):
    """Which of `count` places stand between ends (b,blocks) each."""
    begin, end = (np.asarray(each)[:, :, None] for each in ends)
    return (begin <= np.arange(count)) & (np.arange(count) < end)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("held", [64, 32])
def test_blocks_meet_where_something_is_seen_and_hardly_elsewhere(held, causal):
    segments = draw_segments(3, 512, 0, 16), draw_segments(3, 512, 1, 16)
    mask = np.asarray(visible(*segments, causal))
    of_queries = mask.reshape(3, 512 // held, held, 8, 64)
    of_keys = mask.reshape(3, 8, 64, 512 // held, held).transpose(0, 3, 4, 1, 2)
    for blocks, found in (
        (of_queries, keys_to_meet(*segments, causal, held, 64)),
        (of_keys, queries_to_meet(*segments, causal, 64, held)),
    ):
        needed, met = blocks.any(axis=(2, 4)), between(found[:2], 8)
        assert not (needed & ~met).any()
        # A block that only padding shares with its row's others is met by those alone.
        assert met.sum() <= needed.sum() + 2 * 3 * 64 // held
        whole = between(found[2:], 8)
        assert not (whole & ~(blocks.all(axis=(2, 4)) & met)).any()


@pytest.mark.parametrize("causal", [False, True])
def test_long_sentences_meet_most_blocks_without_a_mask(causal):
    segments = jnp.asarray([[1] * 512, [1] * 300 + [2] * 212], jnp.int32)
    found = keys_to_meet(segments, segments, causal, 64, 64)
    # Of 300 and 212 positions 4 and 3 blocks are whole; of causal pairs those before the diagonal.
    assert between(found[2:], 8).sum() == (28 + 6 + 3 if causal else 64 + 16 + 9)


def test_a_sentence_that_comes_twice_in_a_row_is_masked_between():
    segments = jnp.asarray([[1] * 64 + [2] * 64 + [1] * 64], jnp.int32)
    found = keys_to_meet(segments, segments, False, 64, 64)
    assert between(found[2:], 3).tolist() == [[[1, 0, 0], [0, 1, 0], [1, 0, 0]]]
    assert between(found[:2], 3).tolist() == [[[1, 1, 1], [0, 1, 0], [1, 1, 1]]]
