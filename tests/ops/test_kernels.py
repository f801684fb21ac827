"""The fast functions and the plain lines that they replace: one switch, the same results."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.jaxprs import equations, products
from support.samples import recurrent

from flax_transformer.config import MeshConfig, OptimizerConfig
from flax_transformer.models import build_model
from flax_transformer.models.initialization import init_params
from flax_transformer.ops.kernels import FAST, REFERENCE, ops_for
from flax_transformer.parallel.sharding import build_mesh, on_mesh
from flax_transformer.training.state import create_state
from flax_transformer.training.step import loss_sums, mean_gradient, train_step

TRANSFORMERS = {
    "post-sinusoidal": {"norm": "post", "remat": "dots", "num_encoder_layers": 1},
    "pre-learned": {"norm": "pre", "positions": "learned"},
}
VARIANTS = [*TRANSFORMERS, "concat", "multi_head"]


def vary(config, **model):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


def small(config, variant, **model):
    # Adam's first step is the sign of a gradient; a larger epsilon makes it continuous.
    optimizer = OptimizerConfig(warmup_steps=1, learning_rate_scale=0.1, epsilon=1e-2)
    config = dataclasses.replace(config, optimizer=optimizer)
    if variant in TRANSFORMERS:
        return vary(config, dropout=0.2, **TRANSFORMERS[variant], **model)
    return recurrent(config, variant, dropout=0.2, **model)


def both(config, function, *arguments):
    """What `function`, of a config and arguments, returns with either kind of kernels."""
    return [
        jax.device_get(
            jax.jit(functools.partial(function, vary(config, kernels=kernels)))(*arguments)
        )
        for kernels in ("fast", "reference")
    ]


def fresh_state(config):
    """A state as numpy arrays."""
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    return jax.device_get(create_state(config, mesh))


@pytest.mark.parametrize("variant", VARIANTS)
def test_reference_equals_fast(variant, small_config, packed_batch):
    """Features and a whole step of training with dropout, whose gradient Adam's moments keep."""
    config = small(small_config, variant)
    state = fresh_state(config)

    def compute(config, state, batch, key):
        features = build_model(config.model, 304).apply({"params": state.params}, batch)
        return features, *train_step(config, state, batch, key)

    fast, plain = both(config, compute, state, packed_batch, jax.random.key(3))
    chex.assert_trees_all_close(fast, plain, rtol=1e-4, atol=1e-5)
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), fast[1].params, state.params)
    assert max(jax.tree.leaves(moved)) > 1e-3


@pytest.mark.parametrize("variant", ["post-sinusoidal", "concat"])
def test_initial_values_are_the_same(variant, small_config):
    config = small(small_config, variant)
    chex.assert_trees_all_equal(*both(config, init_params, jax.random.key(0)))


@pytest.mark.parametrize("variant", ["post-sinusoidal", "pre-learned", "multi_head"])
def test_reference_decodes_as_fast(variant, small_config, random_params):
    """Beams whose hypotheses have changed places, so that slots of others are among theirs."""
    config = small(small_config, variant)
    params = jax.device_put(random_params(config))
    ids = np.random.default_rng(0).integers(4, 304, (3, 2, 3))
    source = np.random.default_rng(1).integers(4, 304, (2, 5))
    segments = (np.arange(5) < np.array([[5], [3]])).astype(np.int32)
    parents = np.array([[2, 0, 0], [1, 1, 2]])

    def decode(config):
        apply = functools.partial(build_model(config.model, 304).apply, {"params": params})
        memory = apply(source, segments, segments, method="encode")
        cache = apply(memory, segments, 2, 3, method="start_cache")
        found = []
        for position in range(3):
            if position == 2:
                cache = apply(cache, 4, method="grow_cache")
            *step, attention = apply(
                ids[position], jnp.int32(position), cache, method="decode_step_with_attention"
            )
            found.append((step[0], attention))
            cache = jax.tree.map(
                lambda x: x if x.shape[2] == 1 else x[:, np.arange(2)[:, None], parents], step[1]
            )
        return found

    chex.assert_trees_all_close(*both(config, decode), rtol=1e-4, atol=1e-5)


def test_reference_equals_fast_on_a_mesh(small_config, packed_batch):
    config = small(small_config, "pre-learned")
    mesh = build_mesh(MeshConfig(data=2, fsdp=2, model=2))
    state = create_state(config, mesh)
    results = [
        jax.jit(functools.partial(on_mesh(mesh, mean_gradient), vary(config, kernels=kernels)))(
            state, packed_batch, jax.random.key(3)
        )
        for kernels in ("fast", "reference")
    ]
    chex.assert_trees_all_close(*jax.device_get(results), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["post-sinusoidal"])
def test_bfloat16_differs_by_rounding(variant, small_config, packed_batch):
    config = small(small_config, variant, compute_dtype="bfloat16")
    state = fresh_state(config)
    fast, plain = both(config, mean_gradient, state, packed_batch, jax.random.key(3))
    np.testing.assert_allclose(fast[1].loss, plain[1].loss, rtol=1e-3)
    norm = sum((x**2).sum() for x in jax.tree.leaves(plain[0])) ** 0.5
    difference = jax.tree.map(lambda a, b: ((a - b) ** 2).sum(), fast[0], plain[0])
    assert 0 < sum(jax.tree.leaves(difference)) ** 0.5 < 0.03 * norm


@pytest.mark.parametrize("variant", ["post-sinusoidal", "general", "concat"])
def test_the_reference_is_made_of_plain_lines(variant, small_config, random_params, packed_batch):
    """No gradient of ours, nothing computed again, no barrier: what jax makes of the formulas."""
    tricks = {"custom_vjp_call", "remat2", "checkpoint", "optimization_barrier", "pallas_call"}
    config = small(small_config, variant)

    def used(kernels):
        def features(params):
            model = build_model(vary(config, kernels=kernels).model, 304)
            return model.apply(
                {"params": params}, packed_batch, rngs={"dropout": jax.random.key(0)}
            )

        program = jax.make_jaxpr(features)(random_params(config))
        return tricks & {each.primitive.name for each in equations(program)}

    assert used("reference") == set()
    assert "custom_vjp_call" in used("fast")


@pytest.mark.parametrize("kernels", ["fast", "reference"])
@pytest.mark.parametrize("variant", ["post-sinusoidal", "concat"])
def test_products_in_float32_round_no_operand(
    variant, kernels, small_config, random_params, packed_batch
):
    """As a TPU and a GPU would by default; forward, backward and in the loss."""
    config = vary(small(small_config, variant), kernels=kernels)

    def loss(params):
        return loss_sums(config, params, packed_batch, None).loss

    found = products(jax.make_jaxpr(jax.grad(loss))(random_params(config)))
    highest = (jax.lax.Precision.HIGHEST,) * 2
    assert {each.params["precision"] for each in found} == {highest}


def test_every_function_has_a_reference_that_its_docstring_shows():
    for name in FAST._fields:
        fast, plain = getattr(FAST, name), getattr(REFERENCE, name)
        assert fast is not plain
        if name == "recompute" or plain is jax.nn.relu:
            continue  # jax's own
        assert plain.__name__ == f"{fast.__name__}_reference"
        assert plain.__module__ == fast.__module__
        assert plain.__name__ in fast.__doc__, f"{name} does not name its reference"


def test_the_setting_chooses(small_config):
    chosen = ops_for(vary(small_config, kernels="reference").model)
    assert chosen.attention is REFERENCE.attention
    assert ops_for(small_config.model).attention is FAST.attention
