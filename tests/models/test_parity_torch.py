"""The Transformer of PyTorch, `torch.nn.Transformer`, with our weights: the same numbers.

What is mapped: torch's attention has biases, which are set to zero here, since the paper's
projections are matrices alone; its norms take our epsilon of 1e-6; with post-norm the norms that it
has after both stacks are taken out. Embedding, positions and output are written out as in
Sections 3.4 and 3.5. Everything else is torch's own, with its masks for padding and causality.
"""

import dataclasses
import math

import chex
import jax
import numpy as np
import pytest

from flax_transformer.batch import Batch
from flax_transformer.data.packing import lay_out
from flax_transformer.models import build_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

# Torch says so of its own default for the encoder of `nn.Transformer` with norm_first.
pytestmark = [
    pytest.mark.peer("torch"),
    pytest.mark.filterwarnings("ignore:enable_nested_tensor is True"),
]

ATTENTIONS = {
    "encoder": {"attention": "self_attn"},
    "decoder": {"self_attention": "self_attn", "cross_attention": "multihead_attn"},
}
NORMS = {
    "encoder": ("attention_residual", "feed_forward_residual"),
    "decoder": ("self_residual", "cross_residual", "feed_forward_residual"),
}
BIASES_OF_ATTENTION = ("in_proj_bias", "out_proj.bias")


def mapped(params) -> dict[str, np.ndarray]:
    """Our parameters, or a gradient of them, under torch's names and in its layout."""
    params = jax.tree.map(np.asarray, params)
    found = {"table": params["embedding"]["table"]}
    for stack in ("encoder", "decoder"):
        for number in range(len(params[stack]["feed_forward"]["b1"])):
            layer = jax.tree.map(lambda leaf, i=number: leaf[i], params[stack])
            place = f"transformer.{stack}.layers.{number}"
            found |= {f"{place}.{name}": array for name, array in _layer(stack, layer).items()}
        if f"{stack}_norm" in params:
            found |= _norm(f"transformer.{stack}.norm", params[f"{stack}_norm"])
    return found


def _layer(stack: str, layer) -> dict[str, np.ndarray]:
    found = {}
    for ours, theirs in ATTENTIONS[stack].items():
        kernels = layer[ours]
        d = kernels["query"].shape[0]
        rows = [kernels[name].reshape(d, d).T for name in ("query", "key", "value")]
        found[f"{theirs}.in_proj_weight"] = np.concatenate(rows)
        found[f"{theirs}.out_proj.weight"] = kernels["output"].reshape(d, d).T
    for i in (1, 2):
        found[f"linear{i}.weight"] = layer["feed_forward"][f"w{i}"].T
        found[f"linear{i}.bias"] = layer["feed_forward"][f"b{i}"]
    for i, residual in enumerate(NORMS[stack], 1):
        found |= _norm(f"norm{i}", layer[residual]["norm"])
    return found


def _norm(place: str, norm) -> dict[str, np.ndarray]:
    return {f"{place}.weight": norm["scale"], f"{place}.bias": norm["bias"]}


class Peer(torch.nn.Module):
    """`torch.nn.Transformer` between an embedding and an output that share a table."""

    def __init__(self, config, params):
        super().__init__()
        model = config.model
        self.table = torch.nn.Parameter(torch.zeros(params["embedding"]["table"].shape))
        self.transformer = torch.nn.Transformer(
            model.d_model, model.num_heads, model.num_encoder_layers, model.num_decoder_layers,
            model.d_ff, dropout=0.0, layer_norm_eps=1e-6, batch_first=True,
            norm_first=model.norm == "pre",
        )  # fmt: skip
        if model.norm == "post":
            self.transformer.encoder.norm = self.transformer.decoder.norm = None
        copied = {name: torch.from_numpy(array) for name, array in mapped(params).items()}
        missing, unknown = self.load_state_dict(copied, strict=False)
        assert not unknown
        for name in missing:
            assert name.endswith(BIASES_OF_ATTENTION)
            torch.nn.init.zeros_(self.get_parameter(name))

    def forward(self, batch: Batch, masks: dict) -> dict:
        source, target = self._embed(batch.source_ids), self._embed(batch.target_inputs)
        memory = self.transformer.encoder(
            source, src_key_padding_mask=masks["src_key_padding_mask"]
        )
        features = self.transformer(source, target, **masks)
        return {"memory": memory, "features": features, "logits": features @ self.table.T}

    def _embed(self, ids):
        """sqrt(d) times the vectors, plus sines and cosines (Sections 3.4 and 3.5)."""
        positions, d = torch.arange(ids.shape[1])[:, None], self.table.shape[1]
        angles = positions / 10_000.0 ** (torch.arange(0, d, 2) / d)
        sines = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        return self.table[torch.from_numpy(ids)] * math.sqrt(d) + sines


def padding_masks(batch: Batch) -> dict:
    """As torch wants them: true where nothing may be seen."""
    length = batch.target_inputs.shape[1]
    source, target = (
        torch.from_numpy(segments == 0)
        for segments in (batch.source_segments, batch.target_segments)
    )
    return {
        "tgt_mask": torch.ones(length, length).triu(1).bool(),
        "src_key_padding_mask": source,
        "memory_key_padding_mask": source,
        "tgt_key_padding_mask": target,
    }


def run_ours(config, params, batch: Batch, weights: np.ndarray):
    """Outputs, and the gradient of the weighted sum of the logits."""
    model = build_model(config.model, config.tokenizer.vocabulary_size)

    def loss(params):
        bound = model.bind({"params": params})
        memory = bound.encode(batch.source_ids, batch.source_segments, batch.source_positions)
        features = bound(batch)
        logits = bound.logits(features)
        outputs = {"memory": memory, "features": features, "logits": logits}
        return (logits * weights).sum(), outputs

    (_, outputs), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return jax.device_get(outputs), jax.device_get(gradient)


@pytest.fixture
def one_pair_a_row(small_pairs) -> Batch:
    """Eight pairs of different lengths, each followed by padding."""
    batch = lay_out(small_pairs, [np.array([i]) for i in range(8)], 7, 9)
    assert len(set((batch.source_segments > 0).sum(axis=1))) > 1
    assert len(set((batch.target_segments > 0).sum(axis=1))) > 1
    return batch


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_outputs_and_gradients_are_those_of_torch(
    norm, small_config, random_params, one_pair_a_row
):
    """Encoder, decoder, logits, and the gradient of every parameter, in float32."""
    batch = one_pair_a_row
    config = dataclasses.replace(
        small_config, model=dataclasses.replace(small_config.model, norm=norm)
    )
    params = random_params(config)
    source, target = batch.source_segments > 0, batch.target_segments > 0
    vocabulary = config.tokenizer.vocabulary_size
    random = np.random.default_rng(1)
    weights = random.normal(size=(*target.shape, vocabulary)).astype(np.float32)
    weights *= target[..., None]  # what stands at padding means nothing in either

    ours, gradient = run_ours(config, params, batch, weights)
    peer = Peer(config, params)
    theirs = peer(batch, padding_masks(batch))
    (theirs["logits"] * torch.from_numpy(weights)).sum().backward()

    for name, real in (("memory", source), ("features", target), ("logits", target)):
        expected = theirs[name].detach().numpy()[real]
        chex.assert_trees_all_close(ours[name][real], expected, rtol=1e-5, atol=2e-5)
    found = mapped(gradient)
    assert {*found} == {
        name for name, _ in peer.named_parameters() if not name.endswith(BIASES_OF_ATTENTION)
    }
    for name, array in found.items():
        expected = peer.get_parameter(name).grad.numpy()
        error = np.abs(array - expected).max() / np.abs(expected).max()
        assert error < 1e-5, f"{name}: {error}"
