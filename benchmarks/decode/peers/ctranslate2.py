"""Our parameters as a model of CTranslate2, and its translator (pip install ctranslate2)."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ctranslate2
import jax

from flax_transformer.config import Config, TransformerConfig
from flax_transformer.exchange.ctranslate2 import save, specification
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
            assert isinstance(config.model, TransformerConfig)
            spec = specification(config.model, params, self._words, self._words)
            spec.config.add_source_eos = False  # the sources end in it already
            if candidates is not None:
                path = Path(folder) / "candidates.txt"
                path.write_text("".join(map(self._line, candidates.items())), encoding="utf-8")
                spec.register_vocabulary_mapping(str(path))
            save(spec, Path(folder), quantization=None)
            self._translator = ctranslate2.Translator(
                folder,
                device="cuda" if jax.default_backend() == "gpu" else "cpu",
                compute_type=compute_type,
                intra_threads=threads,
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
