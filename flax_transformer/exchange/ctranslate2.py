"""Our parameters as a model of CTranslate2 (pip install ctranslate2), for CPUs and GPUs.

CTranslate2 takes any table of position encodings, biases or none, and norms before or after: so all
Transformers of this project go there as they are, in their own layout.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_transformer.config import TransformerConfig
from flax_transformer.errors import UserError
from flax_transformer.models.conventions import fairseq_sinusoids
from flax_transformer.models.transformer import sinusoids
from flax_transformer.text.tokenizer import BOS_ID

_PROJECTIONS = ("query", "key", "value")
_LONGEST = 1024


def specification(
    model: TransformerConfig, params: Any, source: Sequence[str], target: Sequence[str]
) -> Any:
    """Returns what CTranslate2 calls the specification of a model, ready for its `save(folder)`.

    params:         of the model, unboxed
    source, target: what each id stands for, all different

    Raises `UserError` where CTranslate2 is not installed.
    """
    try:
        from ctranslate2.specs import TransformerSpec, common_spec
    except ImportError:
        raise UserError(
            "this needs CTranslate2: pip install 'flax_transformer[ctranslate2]'"
        ) from None
    activation = {"relu": "RELU", "gelu": "GELU", "swish": "SWISH"}[model.activation]
    spec = TransformerSpec.from_config(
        (model.num_encoder_layers, model.num_decoder_layers),
        model.num_heads,
        pre_norm=model.norm == "pre",
        activation=getattr(common_spec.Activation, activation),
    )
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    table = params["embedding"]["table"]
    embedding = {"encoder": params.get("source_embedding", params["embedding"])["table"]}
    encodings = _encodings(model, params)
    for name, side in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        embeddings = side.embeddings
        first = embeddings[0] if isinstance(embeddings, list) else embeddings
        first.weight = embedding.get(name, table)
        side.scale_embeddings = model.scale_embedding
        side.position_encodings.encodings = encodings
        if model.norm == "pre":
            _norm(side.layer_norm, params[f"{name}_norm"])
        for number, layer in enumerate(side.layer):
            _layer(layer, jax.tree.map(lambda leaf, n=number: leaf[n], params[name]), name)
    output = params.get("output", {})
    spec.decoder.projection.weight = output.get("table", table)
    if "bias" in output:
        spec.decoder.projection.bias = output["bias"]
    spec.config.layer_norm_epsilon = model.norm_epsilon
    spec.config.add_source_eos = True
    spec.config.decoder_start_token = target[BOS_ID]
    spec.register_source_vocabulary(list(source))
    spec.register_target_vocabulary(list(target))
    return spec


def save(spec: Any, folder: Path, quantization: str | None) -> None:
    """Writes a model that `ctranslate2.Translator(folder)` opens.

    Raises `UserError` for bfloat16 where torch is not installed, which CTranslate2 rounds by.
    """
    spec.validate()
    try:
        spec.optimize(quantization)
    except RuntimeError as error:
        raise UserError(
            f"--quantization {quantization}: {error}: pip install torch, or use int8 or float16"
        ) from None
    spec.save(str(folder))


def _encodings(model: TransformerConfig, params: Any) -> np.ndarray:
    if model.positions == "learned":
        return params["embedding"]["positions"]
    formula = fairseq_sinusoids if model.positions == "fairseq" else sinusoids
    # A copy, as of all parameters: torch wants arrays that can be written to.
    return np.array(jax.device_get(formula(max(model.max_positions, _LONGEST), model.d_model)))


def _layer(target: Any, params: Any, side: str) -> None:
    if side == "encoder":
        _self_attention(target.self_attention, params["attention"])
        _norm(target.self_attention.layer_norm, params["attention_residual"]["norm"])
    else:
        _self_attention(target.self_attention, params["self_attention"])
        _norm(target.self_attention.layer_norm, params["self_residual"]["norm"])
        _cross_attention(target.attention, params["cross_attention"])
        _norm(target.attention.layer_norm, params["cross_residual"]["norm"])
    inner = params["feed_forward"]
    _linear(target.ffn.linear_0, inner["w1"].T, inner["b1"])
    _linear(target.ffn.linear_1, inner["w2"].T, inner["b2"])
    _norm(target.ffn.layer_norm, params["feed_forward_residual"]["norm"])


def _self_attention(target: Any, attention: Any) -> None:
    _linear(target.linear[0], *_joined(attention, _PROJECTIONS))
    _linear(target.linear[1], *_output(attention))


def _cross_attention(target: Any, attention: Any) -> None:
    _linear(target.linear[0], *_joined(attention, _PROJECTIONS[:1]))
    _linear(target.linear[1], *_joined(attention, _PROJECTIONS[1:]))
    _linear(target.linear[2], *_output(attention))


def _joined(attention: Any, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Projections of (d,h,k) as one matrix (output, input), and their biases."""
    kernels = [attention[name].reshape(len(attention[name]), -1).T for name in names]
    biases = attention.get("bias")
    joined = None if biases is None else np.concatenate([biases[n].reshape(-1) for n in names])
    return np.concatenate(kernels), joined


def _output(attention: Any) -> tuple[np.ndarray, np.ndarray | None]:
    kernel = attention["output"]  # hkd
    return kernel.reshape(-1, kernel.shape[-1]).T, attention.get("bias", {}).get("output")


def _linear(target: Any, weight: np.ndarray, bias: np.ndarray | None = None) -> None:
    target.weight = np.ascontiguousarray(weight)
    target.bias = np.zeros(len(weight), np.float32) if bias is None else bias


def _norm(target: Any, norm: Any) -> None:
    target.gamma, target.beta = norm["scale"], norm["bias"]
