"""Adam and the learning rate schedule (Section 5.3)."""

import jax.numpy as jnp
import optax

from flax_transformer.config import Config


def learning_rate_schedule(config: Config) -> optax.Schedule:
    """Returns the rate of each update as a function of its number, counted from 0.

    scale * d^-0.5 * min(step^-0.5, step * warmup^-1.5) with step = count + 1 (equation 3), times a
    linear fall to zero over the last `cooldown_steps`.
    """
    optimizer, steps = config.optimizer, config.training.steps
    warmup, cooldown = optimizer.warmup_steps, optimizer.cooldown_steps
    peak = optimizer.learning_rate_scale * (config.model.d_model * warmup) ** -0.5
    paper = optax.join_schedules(
        [
            optax.linear_schedule(0.0, peak, warmup),
            lambda after: peak * (1 + after / warmup) ** -0.5,
        ],
        boundaries=[warmup],
    )
    if not cooldown:
        return lambda count: paper(count + 1)
    fall = optax.linear_schedule(1.0, 0.0, cooldown, transition_begin=steps - cooldown)
    return lambda count: paper(count + 1) * fall(count)


def build_optimizer(config: Config) -> optax.GradientTransformation:
    """Builds Adam, in the paper with beta1 0.9, beta2 0.98 and epsilon 1e-9, after clipping where
    `clip_norm` asks for it."""
    optimizer = config.optimizer
    adam = optax.adam(
        learning_rate_schedule(config),
        b1=optimizer.beta1,
        b2=optimizer.beta2,
        eps=optimizer.epsilon,
        mu_dtype=jnp.float32,
    )
    if optimizer.clip_norm is None:
        return adam
    return optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), adam)
