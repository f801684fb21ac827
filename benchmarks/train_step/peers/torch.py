"""The same training step with `torch.nn.Transformer`, compiled on a GPU.

What is not the paper's in torch's layers is taken out: dropout on attention weights and inside the
feed-forward sub-layer, and the norms after both stacks. What stays different is that its
attention has biases, 4 d for each. Sentences fill their rows, so that no mask but the causal one is
needed, which lets torch use its fused attention. Sums and products as in PyTorch's autocast.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from flax_transformer.batch import Batch
from flax_transformer.config import Config
from flax_transformer.errors import UserError
from flax_transformer.training.optimizer import learning_rate_schedule

PACKAGES = ("torch",)


def check(config: Config) -> None:
    """Raises `UserError` for what torch's module, or this file, does not have."""
    if config.model.norm != "post" or config.model.positions != "sinusoidal":
        raise UserError("--peer torch trains the paper's model: norm post, positions sinusoidal")
    if config.optimizer.clip_norm is not None or config.training.accumulation_steps != 1:
        raise UserError("--peer torch neither clips gradients nor accumulates them")


def prepare(
    config: Config, params: Any, batches: list[Batch], dtype: str, steps: int
) -> "TorchStep":
    """Returns the contender, as contender.py has it."""
    torch.manual_seed(config.training.seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high")  # JAX's default on a GPU as well
    rates = np.asarray(learning_rate_schedule(config)(jnp.arange(steps))).tolist()
    return TorchStep(config, params, batches, dtype, rates)


class Model(nn.Module):
    """Embedding, `nn.Transformer` and the loss, with parameters copied from ours."""

    def __init__(self, config: Config, params):
        super().__init__()
        model = config.model
        self.embedding = nn.Embedding(config.tokenizer.vocabulary_size, model.d_model)
        self.dropout = nn.Dropout(model.dropout)
        self.transformer = nn.Transformer(
            model.d_model,
            model.num_heads,
            model.num_encoder_layers,
            model.num_decoder_layers,
            model.d_ff,
            model.dropout,
            layer_norm_eps=1e-6,
            batch_first=True,
        )
        self.transformer.encoder.norm = self.transformer.decoder.norm = None
        for layer in (*self.transformer.encoder.layers, *self.transformer.decoder.layers):
            layer.dropout = nn.Identity()
        for module in self.transformer.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
        self.label_smoothing = config.training.label_smoothing
        length = max(config.batch.source_length, config.batch.target_length)
        self.register_buffer("positions", _sinusoids(length, model.d_model))
        causal = nn.Transformer.generate_square_subsequent_mask(config.batch.target_length)
        self.register_buffer("causal", causal)
        self._copy(params)

    def forward(self, source, inputs, outputs):
        """The mean loss of sentences `source` (b,s), `inputs` and `outputs` (b,t)."""
        features = self.transformer(
            self._embed(source),
            self._embed(inputs),
            tgt_mask=self.causal,
            tgt_is_causal=True,
        )
        logits = functional.linear(features, self.embedding.weight)
        return functional.cross_entropy(
            logits.flatten(0, 1), outputs.flatten(), label_smoothing=self.label_smoothing
        )

    def _embed(self, ids):
        vectors = self.embedding(ids) * math.sqrt(self.embedding.embedding_dim)
        return self.dropout(vectors + self.positions[: ids.shape[1]])

    @torch.no_grad()
    def _copy(self, params) -> None:
        self.embedding.weight.copy_(torch.from_numpy(np.array(params["embedding"]["table"])))
        encoder = {"self_attn": "attention"}
        norms = ("attention_residual", "feed_forward_residual")
        for number, layer in enumerate(self.transformer.encoder.layers):
            _copy_layer(layer, params["encoder"], number, encoder, norms)
        decoder = {"self_attn": "self_attention", "multihead_attn": "cross_attention"}
        norms = ("self_residual", "cross_residual", "feed_forward_residual")
        for number, layer in enumerate(self.transformer.decoder.layers):
            _copy_layer(layer, params["decoder"], number, decoder, norms)


def _copy_layer(layer, stack, number: int, attentions: dict[str, str], norms) -> None:
    """Parameters of layer `number` of our `stack`, whose leaves have the axis l first."""

    def put(parameter, array) -> None:
        parameter.copy_(torch.from_numpy(np.array(array)))

    for theirs, ours in attentions.items():
        attention, kernels = getattr(layer, theirs), stack[ours]
        d = kernels["query"].shape[1]
        projections = [kernels[name][number].reshape(d, d).T for name in ("query", "key", "value")]
        put(attention.in_proj_weight, np.concatenate(projections))
        put(attention.out_proj.weight, kernels["output"][number].reshape(d, d).T)
    feed_forward = stack["feed_forward"]
    for linear, index in ((layer.linear1, 1), (layer.linear2, 2)):
        put(linear.weight, feed_forward[f"w{index}"][number].T)
        put(linear.bias, feed_forward[f"b{index}"][number])
    for index, residual in enumerate(norms, 1):
        norm = getattr(layer, f"norm{index}")
        put(norm.weight, stack[residual]["norm"]["scale"][number])
        put(norm.bias, stack[residual]["norm"]["bias"][number])


def _sinusoids(length: int, d_model: int):
    rates = 10_000.0 ** (-torch.arange(0, d_model, 2) / d_model)
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class TorchStep:
    """Training steps in `dtype`; rates: the learning rate of each."""

    def __init__(
        self, config: Config, params: Any, batches: list[Batch], dtype: str, rates: Sequence[float]
    ):
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = Model(config, params).to(self._device)
        optimizer = config.optimizer
        self._optimizer = torch.optim.Adam(
            model.parameters(),
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.epsilon,
            fused=True,
        )
        # On a CPU, compiling gains little and needs a C++ compiler.
        self._model = torch.compile(model) if self._device.type == "cuda" else model
        self._batches = [
            [
                torch.from_numpy(np.array(array, np.int64)).to(self._device)
                for array in (batch.source_ids, batch.target_inputs, batch.target_outputs)
            ]
            for batch in batches
        ]
        self._autocast = torch.autocast(
            self._device.type, torch.bfloat16, enabled=dtype == "bfloat16"
        )
        self._rates, self._losses = rates, []

    def step(self) -> None:
        number = len(self._losses)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rates[number]
        with self._autocast:
            loss = self._model(*self._batches[number % len(self._batches)])
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._losses.append(loss.detach())

    def wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def losses(self) -> list[float]:
        return [float(loss) for loss in self._losses]

    @property
    def peak_bytes(self) -> int | None:
        """Most device memory in use so far by all of torch; unknown on a CPU."""
        return torch.cuda.max_memory_allocated() if self._device.type == "cuda" else None
