"""From lines of text to their translations: batches of few shapes through one compiled search.

Letters: b batch, w beam width, s source length, t target length.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from flax_transformer.config import Config, MeshConfig
from flax_transformer.decoding.beam_search import Hypotheses, Scoring, beam_search, stages
from flax_transformer.decoding.lengths import longest_source, longest_target
from flax_transformer.models import build_model
from flax_transformer.parallel.sharding import AXES, build_mesh
from flax_transformer.runtime.interruption import Interruption
from flax_transformer.text.sentences import TrainedLengths
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer
from flax_transformer.translation.hypotheses import (
    NOTHING,
    Hypothesis,
    complete,
    distinct,
    join,
)
from flax_transformer.translation.long_lines import cut_lines

_SHORTEST_BUCKET = 16

_WORTH_COMPILING = 4
"""Batches that must wait before their shape is compiled, where a program for longer ones exists."""

_FEW_ROWS = 8
"""Rows of a batch when no more lines wait, as when somebody types: a whole one would be waste."""


class Counts(NamedTuple):
    """What a translator has done since it was made.

    target_tokens:   of the best hypotheses, end symbols included
    cut_lines:       lines that were translated in pieces
    compile_seconds: spent on compiling
    """

    target_tokens: int = 0
    cut_lines: int = 0
    compile_seconds: float = 0.0

    def __sub__(self, earlier: "Counts") -> "Counts":
        return Counts(
            self.target_tokens - earlier.target_tokens,
            self.cut_lines - earlier.cut_lines,
            self.compile_seconds - earlier.compile_seconds,
        )


class Translator:
    """Beam search (Section 6.1) over lines of text, on every device of a mesh.

    Each device takes rows of its own, whichever axis of the mesh it is on, and all parameters.
    Batches come in at most two shapes for each of a few lengths, and each shape is compiled once in
    the life of the translator.
    """

    def __init__(
        self,
        config: Config,
        tokenizer: Tokenizer,
        mesh: Mesh | None = None,
        trained: TrainedLengths | None = None,
    ):
        """Makes a translator that has compiled nothing yet.

        mesh:    over its devices rows are split; by default over all devices
        trained: lines of several sentences that are longer are translated in pieces, if
                 `decoding.split_sentences`
        """
        self._decoding = config.decoding
        self._trained = trained if config.decoding.split_sentences else None
        self._longest_source = longest_source(config)
        self._tokenizer = tokenizer
        self._mesh = build_mesh(MeshConfig()) if mesh is None else mesh
        model = build_model(config.model, config.tokenizer.vocabulary_size)
        # Every device searches for its own rows with whole parameters, whatever axis it is on, and
        # leaves the loop when those are done. Devices may exchange nothing inside it: they would
        # wait for one that has left. So no axis is left to XLA.
        rows = PartitionSpec(AXES)
        self._row_sharding = NamedSharding(self._mesh, rows)
        search_rows = jax.shard_map(
            partial(search, model, config),
            mesh=self._mesh,
            in_specs=(PartitionSpec(), rows),
            out_specs=rows,
            axis_names=set(AXES),
            check_vma=False,
        )
        # Every process gets all results, so that each can write them down.
        everywhere = NamedSharding(self._mesh, PartitionSpec())
        self._search = jax.jit(search_rows, out_shardings=everywhere)
        self._programs: dict[tuple[int, int], jax.stages.Compiled] = {}
        self.counts = Counts()

    @property
    def compiled_shapes(self) -> list[tuple[int, int]]:
        """(b,s) of each program."""
        return list(self._programs)

    def translate(
        self,
        params: Any,
        lines: Sequence[str],
        *,
        progress: str | None = None,
        interruption: Interruption | None = None,
    ) -> list[list[Hypothesis]]:
        """Returns the hypotheses of each line, in order, best first, no text twice.

        params:       of the model, unboxed; at every call with the same shapes and shardings
        progress:     name of a bar on stderr
        interruption: what may ask to stop meanwhile

        There are `beam_size` of a line, or as many as exist. A line without text has one hypothesis
        without text. Raises `InterruptedRunError` when the `interruption` asks to stop.
        """
        # The end symbol takes the last place of a piece.
        cut = cut_lines(lines, self._tokenizer, self._longest_source - 1, self._trained)
        ids = [[*piece.ids, EOS_ID] for pieces in cut for piece in pieces if piece.ids]
        translated = iter(self._translate_pieces(params, ids, progress, interruption))
        result = [
            join([complete(next(translated) if piece.ids else NOTHING, piece) for piece in pieces])
            for pieces in cut
        ]
        self._count(
            target_tokens=sum(hypotheses[0].tokens for hypotheses in result),
            cut_lines=sum(len(pieces) > 1 for pieces in cut),
        )
        return result

    def _count(self, **more: Any) -> None:
        total = {name: getattr(self.counts, name) + more[name] for name in more}
        self.counts = self.counts._replace(**total)

    def _translate_pieces(
        self,
        params: Any,
        pieces: list[list[int]],
        progress: str | None,
        interruption: Interruption | None,
    ) -> list[list[Hypothesis]]:
        results: list[list[Hypothesis]] = [[] for _ in pieces]
        with tqdm(
            total=len(pieces), desc=progress, leave=False, disable=None if progress else True
        ) as bar:
            started = (self._start(params, *batch, interruption) for batch in self._batches(pieces))
            for indices, hypotheses in _one_ahead(started):
                for index, found in zip(indices, self._read(hypotheses), strict=False):
                    results[index] = found
                bar.update(len(indices))
        return results

    def _batches(self, pieces: list[list[int]]) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yields (indices of the pieces, ids (b,s)); rows after the pieces hold an end symbol only.

        The longest pieces come first, so that shorter ones take the rows left in the last batch of
        a length, and memory runs out in the first batch if at all.
        """
        order = sorted(range(len(pieces)), key=lambda index: -len(pieces[index]))
        start, shape = 0, None
        while start < len(order):
            shape = self._shape(len(pieces[order[start]]), len(order) - start, shape)
            indices = order[start : start + shape[0]]
            ids = np.full(shape, PAD_ID, np.int32)
            ids[:, 0] = EOS_ID
            for row, index in enumerate(indices):
                ids[row, : len(pieces[index])] = pieces[index]
            yield indices, ids
            start += len(indices)

    def _shape(self, longest: int, waiting: int, before: tuple[int, int] | None) -> tuple[int, int]:
        """Returns (b,s) of the next batch, where `waiting` pieces of up to `longest` tokens wait.

        It is that of the batch `before`, if there was one, rather than a smaller one that would
        have to be compiled first: compiling takes longer than a few batches.
        """
        s = self._bucket(longest)
        shape = self._rows(s, waiting), s
        if before is None or shape in self._programs or waiting >= _WORTH_COMPILING * shape[0]:
            return shape
        return before

    def _bucket(self, length: int) -> int:
        """Returns the length of a batch: a power of two, or the longest there is."""
        power = 1 << (length - 1).bit_length()
        return min(max(power, _SHORTEST_BUCKET), self._longest_source)

    def _rows(self, s: int, waiting: int) -> int:
        def round_up(rows: int) -> int:
            return -(-rows // devices) * devices

        devices = self._mesh.size
        many = max(self._decoding.batch_tokens // s // devices * devices, devices)
        few = min(round_up(_FEW_ROWS), many)
        return few if waiting <= few else many

    def _start(
        self,
        params: Any,
        indices: list[int],
        ids: np.ndarray,
        interruption: Interruption | None,
    ) -> tuple[list[int], Hypotheses]:
        """Begins the search, and does not wait for the result."""
        if interruption:
            interruption.poll()
        device_ids = self._put(ids)
        if ids.shape not in self._programs:
            start = time.perf_counter()
            compile_search = self._search.lower(params, device_ids).compile
            self._programs[ids.shape] = (
                interruption.run(compile_search) if interruption else compile_search()
            )
            self._count(compile_seconds=time.perf_counter() - start)
        return indices, self._programs[ids.shape](params, device_ids)

    def _put(self, ids: np.ndarray) -> jax.Array:
        """Splits `ids` over the devices. Every process knows them all, and moves its own rows."""
        places = self._row_sharding.addressable_devices_indices_map(ids.shape)
        rows = [jax.device_put(ids[place], device) for device, place in places.items()]
        return jax.make_array_from_single_device_arrays(ids.shape, self._row_sharding, rows)

    def _read(self, hypotheses: Hypotheses) -> list[list[Hypothesis]]:
        """Returns every row's hypotheses as text, best first."""
        ids, scores = jax.device_get(hypotheses)
        b, w, t = ids.shape
        texts = self._tokenizer.decode(ids.reshape(b * w, t).tolist())
        tokens = np.count_nonzero(ids != PAD_ID, axis=2)
        return [
            distinct(
                Hypothesis(texts[i * w + j], scores[i, j].item(), count)
                for j, count in enumerate(tokens[i].tolist())
                # There may be fewer than w, but the first one stays: parameters that are not finite
                # have no translation.
                if j == 0 or scores[i, j] > -np.inf
            )
            for i in range(b)
        ]


def search(model: nn.Module, config: Config, params: Any, ids: jax.Array) -> Hypotheses:
    """Searches for the translations of source `ids` (b,s), each ended by EOS, then PAD.

    A row that holds EOS alone is padding of the batch and has no hypotheses. Hypotheses have up to
    `decoding.extra_length` tokens more than their source, end symbols counted in both, but never
    more than `longest_target`.
    """
    chex.assert_rank(ids, 2)
    chex.assert_type(ids, jnp.int32)
    (b, s), decoding = ids.shape, config.decoding
    segments = (ids != PAD_ID).astype(jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(s, dtype=jnp.int32)[None], (b, s))
    apply = partial(model.apply, {"params": params})
    max_steps = longest_target(config, s)
    memory = apply(ids, segments, positions, method="encode")
    cache = apply(memory, segments, stages(max_steps)[0], decoding.beam_size, method="start_cache")
    lengths = segments.sum(axis=1)
    with_attention = "_with_attention" if decoding.coverage_penalty else ""
    return beam_search(
        partial(apply, method=f"decode_step{with_attention}"),
        cache,
        jnp.where(lengths > 1, lengths + decoding.extra_length, 0),
        segments != 0,
        max_steps=max_steps,
        beam_size=decoding.beam_size,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        pad_id=PAD_ID,
        scoring=Scoring(
            decoding.length_normalization, decoding.length_penalty, decoding.coverage_penalty
        ),
        grow=partial(apply, method="grow_cache"),
    )


def _one_ahead(iterator: Iterable) -> Iterator:
    """Yields the same elements, each once the next one has been made."""
    waiting = []
    for element in iterator:
        waiting.append(element)
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting
