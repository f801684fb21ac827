"""The translation model of Hugging Face transformers, `MarianMTModel`, with our weights: the same
logits, and the same beams.

Nothing is downloaded: the model is made from a configuration and gets our numbers. Of Marian's
options these are set so as to meet the paper: `scale_embedding` (vectors times sqrt(d)), one table
for source, target and output, ReLU instead of GELU, no dropout, a decoder that begins with BOS, and
no end that is forced. Two things have no option: the biases of its attention are set to zero, and
the epsilon of its norms to ours. Its positions stay its own: it has sines in the first half of a
vector and cosines in the second, ours takes turns, so that every axis of width d is reordered.
"""

import chex
import jax
import numpy as np
import pytest

from flax_transformer.batch import Batch
from flax_transformer.data.packing import lay_out
from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.scoring import Scoring
from flax_transformer.models import build_model
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.peer("torch", "transformers")

VOCABULARY = 12
"""So few words that searches come to an end of their own accord."""

ATTENTIONS = {"attention": "self_attn", "self_attention": "self_attn",
              "cross_attention": "encoder_attn"}  # fmt: skip
NORMS = {
    "attention_residual": "self_attn_layer_norm",
    "self_residual": "self_attn_layer_norm",
    "cross_residual": "encoder_attn_layer_norm",
    "feed_forward_residual": "final_layer_norm",
}
LONGEST = 14


def mapped(params) -> dict[str, np.ndarray]:
    """Our parameters under Marian's names and in its layout."""
    d = params["embedding"]["table"].shape[1]
    order = np.concatenate([np.arange(0, d, 2), np.arange(1, d, 2)])
    found = {"model.shared.weight": params["embedding"]["table"][:, order]}
    for stack in ("encoder", "decoder"):
        for number in range(len(params[stack]["feed_forward"]["b1"])):
            layer = jax.tree.map(lambda leaf, i=number: leaf[i], params[stack])
            place = f"model.{stack}.layers.{number}"
            found |= {f"{place}.{name}": array for name, array in _layer(layer, order).items()}
    return found


def _layer(layer, order: np.ndarray) -> dict[str, np.ndarray]:
    found = {}
    for ours, theirs in ATTENTIONS.items():
        for name, kernel in layer.get(ours, {}).items():
            joined = kernel.reshape(len(order), len(order))  # (d,hk), of the output (hk,d)
            matrix = joined[:, order].T if name == "output" else joined[order].T
            letter = {"query": "q", "key": "k", "value": "v", "output": "out"}[name]
            found[f"{theirs}.{letter}_proj.weight"] = matrix
    for ours, theirs in NORMS.items():
        if ours in layer:
            found[f"{theirs}.weight"] = layer[ours]["norm"]["scale"][order]
            found[f"{theirs}.bias"] = layer[ours]["norm"]["bias"][order]
    inner = layer["feed_forward"]
    found |= {"fc1.weight": inner["w1"][order].T, "fc1.bias": inner["b1"]}
    return found | {"fc2.weight": inner["w2"][:, order].T, "fc2.bias": inner["b2"][order]}


def marian(model, params):
    """`MarianMTModel` for the settings `model`, with `params`."""
    config = transformers.MarianConfig(
        vocab_size=VOCABULARY, d_model=model.d_model, max_position_embeddings=64,
        encoder_layers=model.num_encoder_layers, decoder_layers=model.num_decoder_layers,
        encoder_attention_heads=model.num_heads, decoder_attention_heads=model.num_heads,
        encoder_ffn_dim=model.d_ff, decoder_ffn_dim=model.d_ff, activation_function="relu",
        dropout=0.0, scale_embedding=True, share_encoder_decoder_embeddings=True,
        decoder_start_token_id=BOS_ID, pad_token_id=PAD_ID, eos_token_id=EOS_ID,
        forced_eos_token_id=None,
    )  # fmt: skip
    peer = transformers.MarianMTModel(config).eval()
    for module in peer.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-6
    copied = {name: torch.from_numpy(array.copy()) for name, array in mapped(params).items()}
    missing, unknown = peer.load_state_dict(copied, strict=False)
    assert not unknown
    for name in missing:
        if name.endswith("_proj.bias"):
            torch.nn.init.zeros_(peer.get_parameter(name))
        else:  # their own: sinusoids, a bias of zeros, and the table's other names
            assert name.endswith(("embed_positions.weight", "final_logits_bias",
                                  "embed_tokens.weight", "lm_head.weight")), name  # fmt: skip
    return peer


@pytest.fixture(scope="module")
def both(small_config):
    """Our model, parameters for it, and Marian's with the same.

    The numbers are such that some searches end after one word and others after thirty.
    """
    model = build_model(small_config.model, VOCABULARY)
    ids = jax.ShapeDtypeStruct((1, 1), "int32")
    shapes = jax.eval_shape(model.init, jax.random.key(0), Batch(*(ids for _ in Batch._fields)))
    random = np.random.default_rng(0)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        width = 0.3 if "scale" in name or "table" in name else 0.6
        return random.normal("scale" in name, width, leaf.value.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(
        fill, shapes["params"], is_leaf=lambda leaf: hasattr(leaf, "names")
    )
    return model, params, marian(small_config.model, params)


@pytest.fixture(scope="module")
def batch(small_pairs) -> Batch:
    """Eight pairs of different lengths, each followed by padding."""
    batch = lay_out(small_pairs, [np.array([i]) for i in range(8)], 7, 9)
    assert len(set((batch.source_segments > 0).sum(axis=1))) > 1
    few = {name: getattr(batch, name) % VOCABULARY for name in ("source_ids", "target_inputs")}
    return batch._replace(**few)


def test_logits_are_those_of_marian(both, batch):
    model, params, peer = both
    source, target = batch.source_segments > 0, batch.target_segments > 0

    @jax.jit
    def logits(params):
        bound = model.bind({"params": params})
        return bound.logits(bound(batch))

    ours = logits(params)
    with torch.no_grad():
        theirs = peer(
            input_ids=torch.from_numpy(batch.source_ids),
            attention_mask=torch.from_numpy(source.astype(int)),
            decoder_input_ids=torch.from_numpy(batch.target_inputs),
            decoder_attention_mask=torch.from_numpy(target.astype(int)),
        ).logits.numpy()
    chex.assert_trees_all_close(np.asarray(ours)[target], theirs[target], rtol=1e-5, atol=1e-5)


def end_at_the_longest(ids, scores):
    """Has a hypothesis of `LONGEST` tokens end, with the probability of that, as ours does.

    The option of transformers for it, `forced_eos_token_id`, takes the end for certain.
    """
    if ids.shape[1] == LONGEST:
        others = torch.arange(scores.shape[1]) != EOS_ID
        scores = scores.masked_fill(others[None], -torch.inf)
    return scores


@pytest.mark.parametrize(("beam_size", "length_penalty"), [(1, 1.0), (4, 0.6), (4, 1.0)])
def test_beams_are_those_of_generate(both, batch, beam_size, length_penalty):
    """All hypotheses of every sentence, and their scores.

    `early_stopping="never"` has transformers search until nothing better can come, as we do.
    """
    model, params, peer = both
    source = batch.source_segments > 0

    def search(params):
        bound = model.bind({"params": params})
        memory = bound.encode(batch.source_ids, batch.source_segments, batch.source_positions)
        cache = bound.start_cache(memory, batch.source_segments, LONGEST, beam_size)
        return beam_search(
            bound.decode_step, cache, np.full(8, LONGEST, np.int32), source, max_steps=LONGEST,
            beam_size=beam_size, bos_id=BOS_ID, eos_id=EOS_ID, pad_id=PAD_ID,
            scoring=Scoring("power", length_penalty),
        )  # fmt: skip

    ours = jax.device_get(jax.jit(search)(params))
    theirs = peer.generate(
        input_ids=torch.from_numpy(batch.source_ids),
        attention_mask=torch.from_numpy(source.astype(int)),
        num_beams=beam_size, num_return_sequences=beam_size, length_penalty=length_penalty,
        early_stopping="never" if beam_size > 1 else None, max_new_tokens=LONGEST, do_sample=False,
        suppress_tokens=[PAD_ID, BOS_ID], logits_processor=[end_at_the_longest],
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    lengths = (ours.ids != PAD_ID).sum(axis=-1)
    assert lengths.min() == 1 and lengths.max() == LONGEST
    found = theirs.sequences[:, 1:].numpy()  # without BOS
    found = np.pad(found, ((0, 0), (0, LONGEST - found.shape[1])), constant_values=PAD_ID)
    ended = np.cumsum(found == EOS_ID, axis=1) - (found == EOS_ID) > 0
    found[ended] = PAD_ID  # after the end transformers has EOS again
    np.testing.assert_array_equal(ours.ids, found.reshape(ours.ids.shape))
    if beam_size > 1:
        assert len(np.unique(lengths)) > 2
        scores = theirs.sequences_scores.numpy().reshape(ours.scores.shape)
        np.testing.assert_allclose(ours.scores, scores, rtol=1e-5)
