"""The chunked loss against Optax on whole logits."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_transformer.ops import cross_entropy as loss_module
from flax_transformer.ops.cross_entropy import cross_entropy, cross_entropy_reference

B, T, D, V = 3, 8, 4, 11

loss_sums = jax.jit(cross_entropy, static_argnums=(4, 5))


@pytest.fixture
def inputs():
    random = np.random.default_rng(0)
    features = random.normal(size=(B, T, D)).astype(np.float32)
    table = random.normal(size=(V, D)).astype(np.float32)
    targets = random.integers(0, V, (B, T)).astype(np.int32)
    weights = (np.arange(T) < np.array([[8], [5], [0]])).astype(np.float32)
    return features, table, targets, weights


def whole_loss(features, table, targets, weights, label_smoothing):
    logits = jnp.einsum("btd,vd->btv", features, table, precision="highest")
    labels = optax.smooth_labels(jax.nn.one_hot(targets, V), label_smoothing)
    return (optax.softmax_cross_entropy(logits, labels) * weights).sum()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("tokens", "room", "chunk_length"),
    [
        (24, 1, 1),
        (24, 5, 4),  # the largest divisor below the room
        (24, 100, 24),
        (23, 5, 5),  # a prime number, filled up to 25
    ],
)
def test_loss_and_gradients_equal_those_of_optax(
    inputs, label_smoothing, tokens, room, chunk_length, monkeypatch
):
    monkeypatch.setattr(loss_module, "_CHUNK_BYTES", {"cpu": 4 * V * room})
    assert loss_module._chunk_length(tokens, V) == chunk_length
    features, table, targets, weights = inputs
    if tokens < B * T:
        features, targets, weights = (
            x.reshape(1, B * T, *x.shape[2:])[:, -tokens:] for x in (features, targets, weights)
        )
        weights = 1 - weights  # the last token counts

    def chunked_loss(features, table):
        sums = cross_entropy(features, table, targets, weights, label_smoothing, "float32")
        return 3 * sums.loss, sums

    def expected_loss(features, table):
        return 3 * whole_loss(features, table, targets, weights, label_smoothing)

    @jax.jit
    def evaluate(features, table):
        of_chunked = jax.value_and_grad(chunked_loss, argnums=(0, 1), has_aux=True)
        of_whole = jax.value_and_grad(expected_loss, argnums=(0, 1))
        (value, sums), gradients = of_chunked(features, table)
        # Without differentiation the sums take another way.
        plain_sums = chunked_loss(features, table)[1]
        return (value, gradients), of_whole(features, table), sums, plain_sums

    result, expected, sums, plain_sums = evaluate(features, table)
    chex.assert_trees_all_close(result, expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(sums, plain_sums, rtol=1e-5)
    gradients = result[1]
    assert (np.asarray(gradients[0])[weights == 0] == 0).all()


def test_there_are_few_chunks_whatever_the_number_of_tokens(monkeypatch):
    """Of a prime number only 1 is a divisor: one token at a time."""
    room = 500
    monkeypatch.setattr(loss_module, "_CHUNK_BYTES", {"cpu": 4 * V * room})
    for n in [*range(1, 1200), 4001, 7919, 25_600, 25_601]:
        length = loss_module._chunk_length(n, V)
        count = -(-n // length)
        assert length <= room and count <= 2 * -(-n // room), n
        assert count * length - n < count, n  # filled up with less than one token a chunk


@pytest.mark.parametrize("function", [cross_entropy, cross_entropy_reference])
def test_sums(inputs, function):
    features, table, targets, weights = inputs
    sums = jax.jit(function, static_argnums=(4, 5))(*inputs, 0.1, "float32")
    logits = np.einsum("btd,vd->btv", features, table).astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    true = np.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(sums.nll, -(true * weights).sum(), rtol=1e-5)
    correct = (logits.argmax(axis=-1) == targets) * weights
    assert 0 < correct.sum() < weights.sum()
    assert sums.correct == correct.sum()
    assert sums.tokens == weights.sum() == 13
    chex.assert_type(list(sums), jnp.float32)


def test_padding_has_no_weight(inputs):
    features, table, targets, weights = inputs
    sums = loss_sums(features, table, targets, weights, 0.1, "float32")
    padding = weights == 0
    features, targets = features.copy(), targets.copy()
    features[padding], targets[padding] = 100, 0
    other = loss_sums(features, table, targets, weights, 0.1, "float32")
    chex.assert_trees_all_close(sums, other, rtol=1e-6)
    none = loss_sums(features, table, targets, 0 * weights, 0.1, "float32")
    chex.assert_trees_all_equal(none, jax.tree.map(jnp.zeros_like, none))


@pytest.mark.parametrize("chunk_length", [1, 12, 24])
def test_bfloat16_rounds_operands_only(inputs, chunk_length, monkeypatch):
    monkeypatch.setattr(loss_module, "_CHUNK_BYTES", {"cpu": 4 * V * chunk_length})
    features, table, targets, weights = inputs

    @jax.jit
    def ours(features, table):
        return cross_entropy(features, table, targets, weights, 0.1, "bfloat16").loss

    @jax.jit
    def theirs(features, table):
        return whole_loss(features, table, targets, weights, 0.1)

    rounded = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float32) for x in (features, table)]
    loss, gradients = jax.value_and_grad(ours, argnums=(0, 1))(features, table)
    expected, expected_gradients = jax.value_and_grad(theirs, argnums=(0, 1))(*rounded)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    # The gradient of the logits is rounded as well.
    chex.assert_trees_all_close(gradients, expected_gradients, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equals_its_reference(inputs, label_smoothing, dtype):
    features, table, *rest = inputs

    def evaluate(function):
        def loss(features, table):
            sums = function(features, table, *rest, label_smoothing, dtype)
            return sums.loss, sums

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(features, table)

    (gradients, sums), (expected, expected_sums) = map(
        evaluate, (cross_entropy, cross_entropy_reference)
    )
    chex.assert_trees_all_close(sums, expected_sums, rtol=1e-5)
    tolerance = 1e-5 if dtype == "float32" else 0.02
    chex.assert_trees_all_close(gradients, expected, rtol=tolerance, atol=tolerance)
