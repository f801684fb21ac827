"""From lines of text to their translations: batches of few shapes through one compiled search.

Letters: b batch, w beam width, s source length, t target length.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from flax_transformer.config import Config, MeshConfig
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.lengths import longest_source
from flax_transformer.decoding.record import Record
from flax_transformer.errors import require
from flax_transformer.models import build_model
from flax_transformer.models.ensemble import Ensemble
from flax_transformer.parallel.sharding import AXES, build_mesh
from flax_transformer.runtime.interruption import Interruption
from flax_transformer.text.sentences import TrainedLengths
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.translation.batching import Batching, Program, Rows
from flax_transformer.translation.hypotheses import (
    NOTHING,
    Hypothesis,
    complete,
    count_untranslated,
    join,
    read,
)
from flax_transformer.translation.long_lines import Piece
from flax_transformer.translation.prefixes import cut_to_begin
from flax_transformer.translation.required import cut_to_hold
from flax_transformer.translation.search import jit_search, search


class Counts(NamedTuple):
    """What a translator has done since it was made.

    target_tokens:   of the best hypotheses, end symbols included
    cut_lines:       lines that were translated in pieces
    untranslated:    lines for which no translation exists
    compile_seconds: spent on compiling
    """

    target_tokens: int = 0
    cut_lines: int = 0
    untranslated: int = 0
    compile_seconds: float = 0.0

    def __sub__(self, earlier: "Counts") -> "Counts":
        return Counts(
            self.target_tokens - earlier.target_tokens,
            self.cut_lines - earlier.cut_lines,
            self.untranslated - earlier.untranslated,
            self.compile_seconds - earlier.compile_seconds,
        )


class RecordedSearch(NamedTuple):
    """One search, and what it found.

    piece:      what was searched for
    hypotheses: as `Translator.translate` returns them
    record:     of the search, numpy arrays without the axis b; None where nothing was to translate
    """

    piece: Piece
    hypotheses: list[Hypothesis]
    record: Record | None


class Translator:
    """Beam search (Section 6.1), or sampling, over lines of text, on every device of a mesh.

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
        rows_ahead: Sequence[int] = (),
        model: nn.Module | Ensemble | None = None,
    ):
        """Makes a translator that has compiled nothing yet.

        mesh:       over its devices rows are split; by default over all devices
        trained:    lines of several sentences that are longer are translated in pieces, if
                    `decoding.split_sentences`
        rows_ahead: numbers of rows of the batches that `programs_ahead` are for
        model:      by default that of `config`
        """
        self._config = config
        self._trained = trained if config.decoding.split_sentences else None
        self._tokenizer = tokenizer
        self._mesh = build_mesh(MeshConfig()) if mesh is None else mesh
        if model is None:
            model = build_model(config.model, config.tokenizer.vocabulary_size)
        self._batching = Batching(config, tokenizer, self._mesh.size, rows_ahead)
        self._row_sharding = NamedSharding(self._mesh, PartitionSpec(AXES))
        forbidden = tokenizer.target.encode_phrases(config.decoding.forbidden)
        find = partial(search, model, config, forbidden=forbidden)
        self._search = jit_search(find, self._mesh)
        self._recorded_search = jit_search(partial(find, record=True), self._mesh)
        self._programs: dict[Program, jax.stages.Compiled] = {}
        self.counts = Counts()

    @property
    def compiled_shapes(self) -> list[tuple[int, int]]:
        """(b,s) of each program."""
        return [(program.b, program.s) for program in self._programs]

    def programs_ahead(self, params: Any) -> list[Callable[[], object]]:
        """Returns what compiles, and runs once, each program that lines may need.

        The last ones are for `record_search`, where one beam searches.
        """
        programs = self._batching.programs_ahead()

        def run(program: Program) -> None:
            rows = self._batching.lay_out([], program[:2], program.forces)
            jax.block_until_ready(self._start(params, [], rows, None))

        def record(s: int) -> None:
            rows = self._batching.lay_out([], self._batching.shape(s, waiting=1), forces=True)
            jax.block_until_ready(self._recorded_search(params, jax.tree.map(self._put, rows)))

        lengths = sorted({program.s for program in programs})
        if not self._config.decoding.is_one_beam:
            lengths = []
        return [*(partial(run, each) for each in programs), *(partial(record, s) for s in lengths)]

    def translate(
        self,
        params: Any,
        lines: Sequence[str],
        *,
        prefixes: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        required: Sequence[Sequence[str]] | None = None,
        progress: str | None = None,
        interruption: Interruption | None = None,
    ) -> list[list[Hypothesis]]:
        """Returns the hypotheses of each line, in order, best first, no text twice. With
        `decoding.sampling` they are samples: as they were drawn, equal ones included.

        params:       of the model, unboxed; at every call with the same shapes and shardings
        prefixes:     what the translation of each line must begin with
        tags:         a symbol of the vocabulary before each line, "" for none
        required:     the phrases that it must hold
        progress:     name of a bar on stderr
        interruption: what may ask to stop meanwhile

        There are `beam_size` of a line, or as many as exist. A line without text has one hypothesis
        without text; so has a line for which the rules of `decoding` leave no translation, with a
        score of -inf. Raises `InterruptedRunError` when the `interruption` asks to stop, and
        `UserError` where a line cannot be translated with its prefix, its tag or its phrases.
        """
        cut = cut_to_hold(
            lines, prefixes, required, self._config, self._tokenizer, self._trained, tags
        )
        to_search = [piece for pieces in cut for piece in pieces if piece.ids]
        translated = iter(self._translate_pieces(params, to_search, progress, interruption))
        result = [
            join(
                [complete(next(translated) if piece.ids else NOTHING, piece) for piece in pieces],
                keep_equal=self._config.decoding.sampling,
            )
            for pieces in cut
        ]
        self._count(
            target_tokens=sum(hypotheses[0].tokens for hypotheses in result),
            cut_lines=sum(len(pieces) > 1 for pieces in cut),
            untranslated=count_untranslated(result),
        )
        return result

    def _count(self, **more: Any) -> None:
        total = {name: getattr(self.counts, name) + more[name] for name in more}
        self.counts = self.counts._replace(**total)

    def _translate_pieces(
        self,
        params: Any,
        pieces: list[Piece],
        progress: str | None,
        interruption: Interruption | None,
    ) -> list[list[Hypothesis]]:
        results: list[list[Hypothesis]] = [[] for _ in pieces]
        keep_equal = self._config.decoding.sampling
        with tqdm(
            total=len(pieces), desc=progress, leave=False, disable=None if progress else True
        ) as bar:
            batches = self._batching.batches(pieces, self._programs)
            started = (self._start(params, *batch, interruption) for batch in batches)
            for indices, hypotheses in _one_ahead(started):
                for index, found in zip(
                    indices, read(hypotheses, self._tokenizer, keep_equal), strict=False
                ):
                    results[index] = found
                bar.update(len(indices))
        return results

    def _start(
        self,
        params: Any,
        indices: list[int],
        rows: Rows,
        interruption: Interruption | None,
    ) -> tuple[list[int], Hypotheses]:
        """Begins the search, and does not wait for the result."""
        if interruption:
            interruption.poll()
        arrays = jax.tree.map(self._put, rows)
        program = Program.of(rows)
        if program not in self._programs:
            start = time.perf_counter()
            compile_search = self._search.lower(params, arrays).compile
            self._programs[program] = (
                interruption.run(compile_search) if interruption else compile_search()
            )
            self._count(compile_seconds=time.perf_counter() - start)
        return indices, self._programs[program](params, arrays)

    def _put(self, array: np.ndarray) -> jax.Array:
        """Splits `array` over the devices. Every process knows it all, and moves its own rows."""
        places = self._row_sharding.addressable_devices_indices_map(array.shape)
        rows = [jax.device_put(array[place], device) for device, place in places.items()]
        return jax.make_array_from_single_device_arrays(array.shape, self._row_sharding, rows)

    def record_search(self, params: Any, line: str, prefix: str = "") -> RecordedSearch:
        """Returns the search for the translation of `line`, which `prefix` may begin.

        Raises `UserError` where the line is too long for one search, where the search is more than
        one beam or none, and as `translate`.
        """
        require(
            self._config.decoding.is_one_beam,
            "only one beam search can be shown: leave out decoding.sampling and diversity_groups",
        )
        (pieces,) = cut_to_begin([line], [prefix], self._config, self._tokenizer)
        require(
            len(pieces) <= 1,
            f"the line has more than {longest_source(self._config)} tokens, for which one search "
            "is not enough: give a shorter one",
        )
        piece = pieces[0] if pieces else Piece([], {})
        if not piece.ids:
            return RecordedSearch(piece, join([complete(NOTHING, piece) for piece in pieces]), None)
        shape = self._batching.shape(len(piece.ids) + 1, waiting=1)
        rows = self._batching.lay_out([piece], shape, forces=True)
        found = self._recorded_search(params, jax.tree.map(self._put, rows))
        record = jax.tree.map(lambda array: array[0], jax.device_get(found.record))
        hypotheses = join([complete(read(found, self._tokenizer)[0], piece)])
        return RecordedSearch(piece, hypotheses, record)


def _one_ahead(iterator: Iterable) -> Iterator:
    """Yields the same elements, each once the next one has been made."""
    waiting = []
    for element in iterator:
        waiting.append(element)
        if len(waiting) == 2:
            yield waiting.pop(0)
    yield from waiting
