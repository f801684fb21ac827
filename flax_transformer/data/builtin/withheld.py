"""Combinations kept out of training, so that a test can ask for what was never seen together.

Every word of such a combination is seen in training, but not together with the others. The choice
is arithmetic on the order of the lexicon: it is not random, and takes about one combination in
seventeen.
"""

from flax_transformer.data.builtin.lexicon import ADJECTIVES, NOUNS, VERBS

_PERIOD = 17

WITHHELD_OBJECTS = frozenset(
    (verb.name, noun.english[0])
    for i, verb in enumerate(VERBS.values())
    for j, noun in enumerate(NOUNS.values())
    if noun.group in verb.groups and (3 * i + 5 * j) % _PERIOD == 0
)
"""Verbs and their direct objects, also where a pronoun or a relative separates the two."""

WITHHELD_ATTRIBUTES = frozenset(
    (adjective.english, noun.english[0])
    for i, adjective in enumerate(ADJECTIVES.values())
    for j, noun in enumerate(NOUNS.values())
    if noun.group in adjective.groups and (4 * i + 3 * j) % _PERIOD == 0
)
"""Adjectives and the nouns that they stand before in English."""

WITHHELD_CLITIC_VERBS = frozenset(
    verb.name
    for i, verb in enumerate(VERBS.values())
    if verb.kind in ("transitive", "giving") and i % 2 == 0
)
"""Verbs that are never seen with an object pronoun, a negation and the future all at once."""
