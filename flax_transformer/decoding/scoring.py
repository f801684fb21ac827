"""How hypotheses of different lengths are compared (Section 6.1).

Letters: b batch, w beam width, s source length.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array


class Scoring(NamedTuple):
    """How hypotheses of different lengths are compared.

    The score of Y is log P(Y) / lp(Y) + cp(Y), with |Y| tokens, EOS counted. lp(Y) is
    ((5 + |Y|) / 6)^length_penalty for "gnmt" (Wu et al. 2016, equation 14) and
    |Y|^length_penalty for "power", the mean log probability where length_penalty is 1.
    cp(Y) = coverage_penalty * sum over the source of log(min(coverage, 1)), where coverage is the
    attention that a source position got from all tokens of Y (the same equation).
    """

    length_normalization: Literal["gnmt", "power"] = "gnmt"
    length_penalty: float = 0.6
    coverage_penalty: float = 0.0

    def divisor(self, length: Array) -> Array:
        """Returns lp of hypotheses of `length` tokens; it never falls with the length."""
        base = (5.0 + length) / 6.0 if self.length_normalization == "gnmt" else 1.0 * length
        return base**self.length_penalty

    def coverage_term(self, coverage: Array) -> Array:
        """Returns cp (b,w) for `coverage` (b,w,s); never above 0."""
        # A position that got nothing at all would make every hypothesis equally bad: -inf.
        least = jnp.finfo(jnp.float32).tiny
        return self.coverage_penalty * jnp.log(jnp.clip(coverage, least, 1.0)).sum(axis=2)

    def score(self, log_probs: Array, length: Array, coverage_terms: Array | None = None) -> Array:
        """Returns the scores of hypotheses of `length` tokens, all arrays of one shape."""
        scores = log_probs / self.divisor(length)
        return scores if coverage_terms is None else scores + coverage_terms
