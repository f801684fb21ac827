"""Byte-pair encoding of one word, also with BPE-dropout (Provilkov et al. 2020, algorithm 1)."""

import operator
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush

_LONG_WORD = 1000
"""Characters beyond which the merges wait in a queue: in Chinese a whole line is one word."""


def merge(
    word: Sequence[str], ids: Mapping[str, int], dropout: float, draw: Callable[[], float]
) -> list[str]:
    """Returns the symbols that `word`, characters or symbols itself, is merged to.

    Each step drops every merge for which `draw()` is less than `dropout`, and makes the best of
    those that are left: the one whose symbol has the smallest of `ids`, the leftmost of equals. It
    ends when a step has none left.
    """
    split = _merge_short if len(word) <= _LONG_WORD else _merge_long
    return split(word, ids, dropout, draw)


def _merge_short(
    word: Sequence[str], ids: Mapping[str, int], dropout: float, draw: Callable[[], float]
) -> list[str]:
    """Merges in a time that grows with the square of the length."""
    symbols = list(word)
    while True:
        merges = [
            (ids[merged], place)
            for place, merged in enumerate(map(operator.add, symbols, symbols[1:]))
            if merged in ids and draw() >= dropout
        ]
        if not merges:
            return symbols
        _, place = min(merges)
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]


def _merge_long(
    word: Sequence[str], ids: Mapping[str, int], dropout: float, draw: Callable[[], float]
) -> list[str]:
    """Merges in n log n; each result is as likely as from `_merge_short`.

    A step draws for merges from the best on, and takes the first that is not dropped.
    """
    end = len(word)
    # A symbol is empty once it is merged into one before it; the last stands for both ends of the
    # word.
    symbols = [*word, ""]
    before, after = list(range(-1, end)), [*range(1, end + 1), end]
    queue: list[tuple[int, int, str, str]] = []

    def offer(left: int) -> None:
        pair = symbols[left], symbols[after[left]]
        if pair[1] and (merged := pair[0] + pair[1]) in ids:
            heappush(queue, (ids[merged], left, *pair))

    for left in range(end):
        offer(left)
    dropped: list[tuple[int, int, str, str]] = []
    while queue:
        chosen = heappop(queue)
        _, left, first, second = chosen
        right = after[left]
        if symbols[left] != first or symbols[right] != second:
            continue  # one of them has been merged with another since
        if draw() < dropout:
            dropped.append(chosen)
            continue
        symbols[left], symbols[right] = first + second, ""
        after[left] = after[right]
        before[after[left]] = left
        for waiting in dropped:
            heappush(queue, waiting)
        dropped.clear()
        offer(before[left])
        offer(left)
    return [symbol for symbol in symbols if symbol]
