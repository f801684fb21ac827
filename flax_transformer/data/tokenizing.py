"""From sentence pairs to ids, on every core: the same ids whatever the number of cores.

The work is done in separate processes, since most of it holds the interpreter's lock. They import
this module, so it loads nothing heavy.
"""

import itertools
import multiprocessing
import os
import signal
import threading
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from flax_transformer.data.augmentation import Augmentation
from flax_transformer.data.pairs import Pair
from flax_transformer.errors import UserError
from flax_transformer.text.normalization import is_blank
from flax_transformer.text.placeholders import put_in_both
from flax_transformer.text.tokenizer import EOS_ID, Tokenizer

# BPE-dropout and augmentation seed themselves anew for each stretch of so many pairs: with another
# number here the ids would be others.
_PAIRS_AT_A_TIME = 20_000
# Below this, starting processes takes about as long as the work.
_PAIRS_WORTH_PROCESSES = 50_000


@dataclass(frozen=True)
class BpeDropout:
    """Each text is split `samples` times, with random merges left out."""

    rate: float
    samples: int
    seed: int

    def encode(
        self, tokenizer: Tokenizer, texts: Sequence[str], place: tuple[int, ...]
    ) -> list[list[int]]:
        """Returns the ids of `texts`.

        They are a function of the seed and of the `place` of these texts in the data.
        """
        seed = zlib.crc32(repr((self.seed, *place)).encode())
        return tokenizer.sample(texts, self.rate, seed)


Stretch = tuple[int, int, Sequence[Pair]]
"""Which of the splittings (BPE-dropout) this is, the number of the first pair, and the pairs."""


class Encoded(NamedTuple):
    """Ids of one side of some pairs, one text after the other, each closed by EOS."""

    ids: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class Encoder:
    """Turns a stretch of the corpus into ids; small, so that every process can have it."""

    tokenizer: Tokenizer
    dtype: np.dtype
    dropout: BpeDropout | None
    tagged: tuple[tuple[range, int], ...] = ()
    """Numbers of pairs, and the id that is put before each of their sources."""
    augmentation: Augmentation | None = None

    def __call__(self, sample: int, start: int, pairs: Sequence[Pair]) -> list[Encoded]:
        """Returns source and target of `pairs`, from number `start` on, in splitting `sample`."""
        pairs = [self._readable(pair) for pair in pairs]
        if self.augmentation:
            pairs = self.augmentation(pairs, (sample, start))
        source, target = (
            self._split(tokenizer, [pair[side] for pair in pairs], (sample, start, side))
            for side, tokenizer in enumerate((self.tokenizer, self.tokenizer.target))
        )
        for numbers, tag in self.tagged:
            for number in range(max(numbers.start, start), min(numbers.stop, start + len(pairs))):
                # An empty source stays empty, so that it is recognised as empty.
                if row := source[number - start]:
                    row.insert(0, tag)
        return [self._close(source), self._close(target)]

    def _readable(self, pair: Pair) -> Pair:
        tokenizer = self.tokenizer
        if not tokenizer.has_placeholders or all(map(tokenizer.characters.issuperset, pair)):
            return pair
        source, target = tokenizer.normalize(pair)
        return put_in_both(source, target, tokenizer.characters)

    def _split(
        self, tokenizer: Tokenizer, texts: list[str], place: tuple[int, ...]
    ) -> list[list[int]]:
        if self.dropout:
            rows = self.dropout.encode(tokenizer, texts, place)
        else:
            rows = tokenizer.encode(texts)
        # A blank text has no ids, as in translation, where there is nothing to translate.
        return [[] if is_blank(text) else row for text, row in zip(texts, rows, strict=True)]

    def _close(self, rows: list[list[int]]) -> Encoded:
        for row in rows:
            row.append(EOS_ID)
        ids = np.fromiter(itertools.chain.from_iterable(rows), self.dtype)
        return Encoded(ids, np.fromiter(map(len, rows), np.int64, len(rows)))


def encode_pairs(
    pairs: Sequence[Pair], encoder: Encoder, description: str, processes: int | None = None
) -> list[list[Encoded]]:
    """Returns source and target of all `pairs`, each as stretches that follow one another.

    description: labels the progress bar.
    processes:   how many share the work; by default one per core, or this one alone where there is
                 little to do.

    Raises `UserError` where one of the processes is killed.
    """
    samples = range(encoder.dropout.samples if encoder.dropout else 1)
    total = len(samples) * len(pairs)
    if processes is None:
        processes = _usable_cores() if total >= _PAIRS_WORTH_PROCESSES else 1
    starts = range(0, len(pairs), _PAIRS_AT_A_TIME)
    stretches = (
        (sample, start, pairs[start : start + _PAIRS_AT_A_TIME])
        for sample, start in itertools.product(samples, starts)
    )
    results: Generator[list[Encoded], None, None]
    if processes == 1:
        results = (encoder(*stretch) for stretch in stretches)
    else:
        results = _in_processes(encoder, stretches, processes)
    sides: list[list[Encoded]] = [[], []]
    # No bar where nobody watches (disable=None), nor for work of less than a second (delay=1).
    bar = tqdm(total=total, desc=description, unit=" pairs", leave=False, disable=None, delay=1)
    with bar, closing(results):
        for result in results:
            for side, encoded in zip(sides, result, strict=True):
                side.append(encoded)
            bar.update(len(result[0].lengths))
    return sides


def _usable_cores() -> int:
    # Linux knows which cores this process may use: a job scheduler may have given it only a few.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _in_processes(
    encoder: Encoder, stretches: Iterable[Stretch], processes: int
) -> Generator[list[Encoded], None, None]:
    """Yields `encoder(*stretch)` for every stretch in order; holds few in memory at a time."""
    pool = ProcessPoolExecutor(
        processes,
        # A fork would copy the locks that JAX's threads hold.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_process,
        initargs=(encoder,),
    )
    waiting: deque[Future[list[Encoded]]] = deque()
    try:
        for stretch in stretches:
            with _ctrl_c_waits():  # this may start a process
                waiting.append(pool.submit(_encode, *stretch))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            f"one of {processes} tokenising processes ended early; if memory ran out, make room or "
            "allow fewer cores (taskset -c 0 python train.py ...). A script of your own that "
            'trains must begin its work under `if __name__ == "__main__":`'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Makes Ctrl-C wait until the body has ended, and hides it from a process started in there.

    Ctrl-C goes to every process of a terminal. Here only this process hears it, and ends the
    others, once they have started completely.
    """
    arrived = []
    is_main = threading.current_thread() is threading.main_thread()  # where signals are handled
    handler = signal.signal(signal.SIGINT, lambda *_: arrived.append(True)) if is_main else None
    # Handlers are not inherited, but what is blocked is.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if is_main:
            signal.signal(signal.SIGINT, handler)
        if arrived:
            signal.raise_signal(signal.SIGINT)


_encoder: Encoder  # of a process that `_in_processes` started


def _start_process(encoder: Encoder) -> None:
    global _encoder
    _encoder = encoder
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when its parent ends.

    A killed parent cannot end its children, which would wait for work for ever.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode(sample: int, start: int, pairs: Sequence[Pair]) -> list[Encoded]:
    return _encoder(sample, start, pairs)
