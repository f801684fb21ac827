"""What hypotheses must not do: rules that take tokens from the choice, at each position.

A new rule is one more function here, and a line in `translation/search.py`.

Letters: b batch, w beam width, t target length, v vocabulary.
"""

from collections.abc import Callable

from jax import Array

Rule = Callable[[Array, Array, Array, Array], Array]
"""(logits (b,w,v), ids (b,w,t) so far, position () int32, must_end (b,) bool) -> the logits, with
-inf where a token may not stand at `position`.

Of a sentence that `must_end` the hypotheses have EOS as their only continuation, which no rule
takes away. Tokens that a prefix forces are not asked about."""
