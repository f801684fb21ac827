"""Settings that change how the model is computed, and must not change what."""

import dataclasses

import chex
import jax
import numpy as np
import pytest
from support.jaxprs import equations, products

from flax_transformer.parallel import collectives
from flax_transformer.training.step import loss_sums


class Gradient:
    """Loss and gradients under the settings, with dropout, which must be remembered as well."""

    def __init__(self, config, params, batch, **settings):
        model = dataclasses.replace(config.model, dropout=0.3, **settings)
        config = dataclasses.replace(config, model=model)

        def loss(params):
            return loss_sums(config, params, batch, jax.random.key(3)).loss

        traced = jax.jit(jax.value_and_grad(loss)).trace(params)
        self.num_products = len(products(traced.jaxpr))
        self.layers_a_turn = {
            each.params["unroll"]
            for each in equations(traced.jaxpr)
            if each.primitive.name == "scan"
        }
        compiled = traced.lower().compile()
        self.num_softmaxes = compiled.as_text().count(" exponential(")
        self.num_hashes = compiled.as_text().count(" xor(")
        self.result = compiled(params)


@pytest.fixture(scope="module")
def gradient(small_config, random_params, packed_batch):
    params = random_params(small_config)
    return lambda **settings: Gradient(small_config, params, packed_batch, **settings)


@pytest.fixture(scope="module")
def keeping_all(gradient):
    return gradient(remat="nothing", unroll_layers=1)


def test_remat_changes_memory_and_not_gradients(gradient, keeping_all):
    keeping_dots, keeping_nothing = gradient(remat="dots"), gradient(remat="everything")
    numbers = [each.num_products for each in (keeping_all, keeping_dots, keeping_nothing)]
    assert numbers[0] < numbers[1] < numbers[2]
    for other in (keeping_dots, keeping_nothing):
        chex.assert_trees_all_close(other.result, keeping_all.result, rtol=1e-5, atol=1e-4)
    assert np.isfinite(keeping_all.result[0])


def test_unrolling_keeps_remat_and_gradients(gradient, keeping_all):
    unrolled = gradient(remat="everything", unroll_layers=2)
    assert 2 in unrolled.layers_a_turn
    assert 2 not in keeping_all.layers_a_turn
    # Six attentions, each computed twice: the compiler has not merged them again. Scanned, the
    # program has each of three once. The exponentials of the loss are the same.
    assert unrolled.num_softmaxes - 2 * 6 == keeping_all.num_softmaxes - 3
    chex.assert_trees_all_close(unrolled.result, keeping_all.result, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("platform", "setting", "layers"),
    [("gpu", None, 2), ("cpu", None, 1), ("tpu", None, 1), ("gpu", 1, 1), ("cpu", 3, 2)],
)
def test_a_gpu_takes_all_layers_in_a_turn_unless_told(
    monkeypatch, small_config, random_params, packed_batch, platform, setting, layers
):
    monkeypatch.setattr(collectives, "platform", lambda: platform)
    model = dataclasses.replace(small_config.model, unroll_layers=setting)
    config = dataclasses.replace(small_config, model=model)
    params = jax.eval_shape(lambda: random_params(config))
    program = jax.make_jaxpr(lambda params: loss_sums(config, params, packed_batch, None))(params)
    stacks = [
        each.params for each in equations(program)
        if each.primitive.name == "scan" and each.params["length"] == 2
    ]  # fmt: skip
    assert [each["unroll"] for each in stacks] == [layers] * 2


def test_no_layer_is_computed_again_for_the_next(small_config, random_params, packed_batch):
    """XLA fuses what is cheap into whatever needs it: with layers in one turn, the sums, norms and
    dropout of all layers below. Their hashes tell how often."""

    def hashes(layers: int) -> int:
        model = dataclasses.replace(
            small_config.model,
            d_model=128,
            d_ff=256,
            num_encoder_layers=layers,
            num_decoder_layers=layers,
        )
        config = dataclasses.replace(small_config, model=model)
        params = random_params(config)
        return Gradient(config, params, packed_batch, unroll_layers=layers).num_hashes

    assert hashes(1) < hashes(2) <= 2 * hashes(1)
