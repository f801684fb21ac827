"""Our parameters as a model of CTranslate2, and its translator (pip install ctranslate2)."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs import TransformerSpec

from flax_transformer.config import Config
from flax_transformer.models.transformer import sinusoids
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, UNK_ID

_NAMES = {PAD_ID: "<blank>", EOS_ID: "</s>", BOS_ID: "<s>", UNK_ID: "<unk>"}

Candidates = dict[int | None, list[int]]
"""Target tokens that may translate a source token, and under None those that always may."""


class CTranslate2Model:
    """Translates ids to ids with the same weights as ours."""

    def __init__(
        self,
        config: Config,
        params: Any,
        compute_type: str,
        threads: int,
        candidates: Candidates | None = None,
    ):
        """With `candidates`, only those of a batch's tokens and those of nothing are scored."""
        v = config.tokenizer.vocabulary_size
        self._words = [_NAMES.get(index, f"t{index}") for index in range(v)]
        self._use_map = candidates is not None
        with tempfile.TemporaryDirectory() as folder:
            specification = _specification(config, params, self._words)
            if candidates is not None:
                path = Path(folder) / "candidates.txt"
                path.write_text("".join(map(self._line, candidates.items())), encoding="utf-8")
                specification.register_vocabulary_mapping(str(path))
            specification.save(folder)
            self._translator = ctranslate2.Translator(
                folder, device="cpu", compute_type=compute_type, intra_threads=threads
            )

    def translate(
        self, sources: Sequence[Sequence[int]], beam_size: int, shortest: int, longest: int
    ) -> list[list[int]]:
        """Returns the best hypothesis of each of `sources`, which end in EOS, without EOS."""
        results = self._translator.translate_batch(
            [[self._words[index] for index in source] for source in sources],
            beam_size=beam_size,
            min_decoding_length=shortest,
            max_decoding_length=longest,
            use_vmap=self._use_map,
        )
        ids = {word: index for index, word in enumerate(self._words)}
        return [[ids[word] for word in result.hypotheses[0]] for result in results]

    def _line(self, entry: tuple[int | None, list[int]]) -> str:
        source, targets = entry
        word = "" if source is None else self._words[source]
        return word + "\t" + " ".join(self._words[target] for target in targets) + "\n"


def candidates_of(
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]], most: int = 30, frequent: int = 100
) -> Candidates:
    """Counts a vocabulary map in tokenised sentence pairs: for each source token the `most` target
    tokens that it occurs with beyond chance (Dice's coefficient), for all the `frequent` ones."""
    source_counts: Counter[int] = Counter()
    target_counts: Counter[int] = Counter()
    together: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for source, target in pairs:
        source_counts.update(set(source))
        target_counts.update(set(target))
        for token in set(source):
            together[token].update(set(target))
    found: Candidates = {
        None: [*_NAMES, *(t for t, _ in target_counts.most_common(frequent) if t not in _NAMES)]
    }
    for token, counts in together.items():
        shares = {t: n / (source_counts[token] + target_counts[t]) for t, n in counts.items()}
        found[token] = sorted(shares, key=shares.__getitem__, reverse=True)[:most]
    return found


def _specification(config: Config, params: Any, words: list[str]) -> TransformerSpec:
    model = config.model
    layers = (model.num_encoder_layers, model.num_decoder_layers)
    spec = TransformerSpec.from_config(layers, model.num_heads, pre_norm=False)
    params = {name: _as_numpy(branch) for name, branch in params.items()}
    table = params["embedding"]["table"]
    encodings = np.asarray(sinusoids(model.max_positions, model.d_model))
    for side in (spec.encoder, spec.decoder):
        embeddings = side.embeddings
        (embeddings[0] if isinstance(embeddings, list) else embeddings).weight = table
        side.scale_embeddings = True
        side.position_encodings.encodings = encodings
    spec.decoder.projection.weight = table
    for number, layer in enumerate(spec.encoder.layer):
        _self_attention(layer.self_attention, params["encoder"], "attention", number)
        _feed_forward(layer.ffn, params["encoder"], number)
    for number, layer in enumerate(spec.decoder.layer):
        _self_attention(layer.self_attention, params["decoder"], "self", number)
        _cross_attention(layer.attention, params["decoder"], number)
        _feed_forward(layer.ffn, params["decoder"], number)
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    spec.validate()
    spec.optimize()
    return spec


def _as_numpy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _as_numpy(branch) for name, branch in tree.items()}
    return np.asarray(tree, np.float32)


def _linear(target: Any, weight: np.ndarray, bias: np.ndarray | None = None) -> None:
    target.weight = np.ascontiguousarray(weight)
    target.bias = np.zeros(len(weight), np.float32) if bias is None else bias


def _norm(target: Any, residual: dict, number: int) -> None:
    target.gamma, target.beta = (residual["norm"][x][number] for x in ("scale", "bias"))


def _projection(attention: dict, name: str, number: int) -> np.ndarray:
    """Returns one of W^Q, W^K, W^V as (output, input)."""
    kernel = attention[name][number]
    return kernel.reshape(kernel.shape[0], -1).T


def _output(attention: dict, number: int) -> np.ndarray:
    kernel = attention["output"][number]
    return kernel.reshape(-1, kernel.shape[-1]).T


def _self_attention(target: Any, stack: dict, name: str, number: int) -> None:
    attention = stack["attention" if name == "attention" else "self_attention"]
    names = ("query", "key", "value")
    _linear(target.linear[0], np.concatenate([_projection(attention, n, number) for n in names]))
    _linear(target.linear[1], _output(attention, number))
    _norm(target.layer_norm, stack[f"{name}_residual"], number)


def _cross_attention(target: Any, stack: dict, number: int) -> None:
    attention = stack["cross_attention"]
    _linear(target.linear[0], _projection(attention, "query", number))
    pair = [_projection(attention, name, number) for name in ("key", "value")]
    _linear(target.linear[1], np.concatenate(pair))
    _linear(target.linear[2], _output(attention, number))
    _norm(target.layer_norm, stack["cross_residual"], number)


def _feed_forward(target: Any, stack: dict, number: int) -> None:
    weights = {name: leaf[number] for name, leaf in stack["feed_forward"].items()}
    _linear(target.linear_0, weights["w1"].T, weights["b1"])
    _linear(target.linear_1, weights["w2"].T, weights["b2"])
    _norm(target.layer_norm, stack["feed_forward_residual"], number)
