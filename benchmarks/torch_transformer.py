"""The same training step with `torch.nn.Transformer`, for comparison.

What is not the paper's in torch's layers is taken out: dropout on attention weights and inside the
feed-forward sub-layer, and the norms behind both stacks. What stays different is that its
attention has biases, 4 d for each. Sentences fill their rows, so that no mask but the causal one is
needed, which lets torch use its fused attention. Sums and products as in PyTorch's autocast.
"""

import math
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from flax_transformer.batch import Batch
from flax_transformer.config import Config


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
    """Training steps of the peer, in `dtype`, over the same batches."""

    def __init__(self, config: Config, params, batches: list[Batch], dtype: str, rates, cores: int):
        """`params`: ours, as numpy arrays. `rates`: the learning rate of each step."""
        torch.manual_seed(config.training.seed)
        torch.set_num_threads(cores)
        torch.set_float32_matmul_precision("high")  # JAX's default on a GPU as well
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = Model(config, params).to(self.device)
        optimizer = config.optimizer
        self.optimizer = torch.optim.Adam(
            model.parameters(),
            betas=(optimizer.beta1, optimizer.beta2),
            eps=optimizer.epsilon,
            fused=True,
        )
        # On a CPU, compiling gains little and needs a C++ compiler.
        self.model = torch.compile(model) if self.device.type == "cuda" else model
        self.batches = [
            [
                torch.from_numpy(np.array(array, np.int64)).to(self.device)
                for array in (batch.source_ids, batch.target_inputs, batch.target_outputs)
            ]
            for batch in batches
        ]
        self.autocast = torch.autocast(
            self.device.type, torch.bfloat16, enabled=dtype == "bfloat16"
        )
        self.rates, self.step = rates, 0

    def run(self, steps: int) -> tuple[float, list[float]]:
        """Seconds of `steps` more steps, and the loss of each."""
        start, losses = time.perf_counter(), []
        for _ in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rates[self.step]
            with self.autocast:
                loss = self.model(*self.batches[self.step % len(self.batches)])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
            self.step += 1
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, [float(loss) for loss in losses]

    @property
    def peak_bytes(self) -> int | None:
        """Most device memory in use so far by all of torch; unknown on a CPU."""
        return torch.cuda.max_memory_allocated() if self.device.type == "cuda" else None
