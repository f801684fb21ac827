"""How much of what a decoder is fed is true: scheduled sampling (Bengio et al. 2015)."""

import jax
import jax.numpy as jnp

from flax_transformer.config import TrainingConfig


def teacher_forcing_ratio(config: TrainingConfig, step: jax.Array) -> jax.Array | None:
    """Returns the probability () of feeding the true token at `step` (), counted from 0; None where
    it is always fed. The three decays of section 2.4, with k in steps."""
    k = config.teacher_forcing_steps
    progress = step.astype(jnp.float32) / k
    match config.teacher_forcing:
        case "linear":
            ratio = 1 - progress
        case "exponential":
            ratio = jnp.exp(-progress)
        case "inverse_sigmoid":
            ratio = k / (k + jnp.exp(progress))
        case _:
            return None
    return jnp.maximum(ratio, config.teacher_forcing_floor)
