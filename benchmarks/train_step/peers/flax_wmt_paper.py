"""flax_wmt.py without dropout of attention weights, which the paper does not have either."""

import functools

from benchmarks.train_step.peers import flax_wmt

PACKAGES, check = flax_wmt.PACKAGES, flax_wmt.check
prepare = functools.partial(flax_wmt.prepare, attention_dropout=False)
