"""Which of many heads is shown large: the one whose look tells most.

Letters: l layers, h heads, r rows (what looks), c columns (what is looked at).
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ChosenHead:
    """The head of an attention that shows most, counted from 1, and by how much it does.

    bits:  how much knowing which row looks tells of where it looks: the mutual information of row
           and column, which is 0 for a head that looks to the same place always, or everywhere
    most:  the most that it could be with as many rows and columns
    """

    layer: int
    head: int
    bits: float
    most: float


def choose_head(weights: np.ndarray) -> ChosenHead:
    """Returns the head of `weights` (l,h,r,c) whose rows differ most in where they look."""
    logs = np.log2(np.maximum(weights, np.finfo(np.float32).tiny))
    within = -(weights * logs).sum(axis=-1).mean(axis=-1)  # lh
    mean = weights.mean(axis=-2)  # lhc
    between = -(mean * np.log2(np.maximum(mean, np.finfo(np.float32).tiny))).sum(axis=-1)
    bits = between - within
    layer, head = np.unravel_index(int(bits.argmax()), bits.shape)
    most = float(np.log2(min(weights.shape[-2:])))
    return ChosenHead(int(layer) + 1, int(head) + 1, float(bits.max()), most)
