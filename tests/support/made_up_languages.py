"""Languages drawn at random for the beam search, and searches of theirs by the definition."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.prefix import Prefix
from flax_transformer.decoding.scoring import Scoring

PAD, EOS, BOS = 0, 1, 2
STATES = 1009
SOURCE = np.array([True, True, True, False])  # which source positions are no padding

PLAIN, GNMT, LONG = (Scoring("gnmt", alpha) for alpha in (0.0, 0.6, 2.0))
MEAN, POWER = Scoring("power", 1.0), Scoring("power", 0.5)
COVERED = Scoring("gnmt", 0.6, coverage_penalty=0.7)
COVERED_MEAN = Scoring("power", 1.0, coverage_penalty=0.2)

ATTENTION = np.random.default_rng(0).dirichlet([0.3] * 3, STATES).astype(np.float32)
"""What a hypothesis attends to in each state, (states,s); padding gets nothing."""
ATTENTION = np.pad(ATTENTION, ((0, 0), (0, 1)))


def tables(seed: int, v: int, sentences: int = 3, sharpness: float = 1.5) -> np.ndarray:
    """The language of each sentence, (b,states,v): the logits after every state."""
    normal = np.random.default_rng(seed).normal(size=(sentences, STATES, v))
    return (sharpness * normal).astype(np.float32)


def next_state(state, token):
    """A hash of the whole prefix, so that a state of another beam gives other logits."""
    return (31 * state + token + 7) % STATES


def step(logits_of, ids, position, cache):
    """Reads the prefix from a cache that beams own, the language from one that they share."""
    state = next_state(cache["state"][0, :, :, 0], ids)
    logits = logits_of[cache["sentence"][0], state]
    return logits, {"state": state[None, :, :, None], "sentence": cache["sentence"]}


def step_with_attention(logits_of, ids, position, cache):
    logits, cache = step(logits_of, ids, position, cache)
    return logits, cache, jnp.asarray(ATTENTION)[cache["state"][0, :, :, 0]]


def start_cache(sentences, beam_size):
    b = len(sentences)
    return {
        "state": jnp.zeros((1, b, beam_size, 1), jnp.int32),
        "sentence": jnp.array(sentences, jnp.int32).reshape(1, b, 1),
    }


@functools.cache
def compiled(beam_size, scoring, max_steps, on_step, rules, lengthen, groups):
    """`beam_search` as a jitted function of (logits_of, cache, max_lengths, prefix)."""
    take_step = step_with_attention if scoring.coverage_penalty else step

    def run(logits_of, cache, max_lengths, prefix, required):
        def observed_step(ids, position, cache):
            if on_step is not None:
                on_step(position)
            return take_step(logits_of, ids, position, cache)

        source_mask = jnp.broadcast_to(SOURCE[None], (len(max_lengths), len(SOURCE)))
        return beam_search(
            observed_step, cache, max_lengths, source_mask, max_steps=max_steps, prefix=prefix,
            beam_size=beam_size, scoring=scoring, rules=rules, lengthen=lengthen, groups=groups,
            required=required, bos_id=BOS, eos_id=EOS, pad_id=PAD,
        )  # fmt: skip

    return jax.jit(run)


def search(
    logits_of, max_lengths, beam_size, scoring, *, sentences=None, max_steps=None, on_step=None,
    prefixes=None, words=None, rules=(), lengthen=None, groups=1,
    required=None,
) -> Hypotheses:  # fmt: skip
    """Searches in the languages of `sentences` (all of them, in order)."""
    prefix = None if prefixes is None else as_prefix(prefixes, words, logits_of.shape[2])
    sentences = range(len(max_lengths)) if sentences is None else sentences
    max_steps = max_steps or max(max_lengths)
    cache = start_cache(sentences, beam_size)
    run = compiled(beam_size, scoring, max_steps, on_step, rules, lengthen, groups)
    result = run(logits_of, cache, jnp.array(max_lengths, jnp.int32), prefix, required)
    return jax.tree.map(np.asarray, result)


def as_prefix(prefixes, words, v) -> Prefix:
    """Tokens of each sentence, then a word: a list of {token: next place} for the places from 1."""
    longest = max(1, *map(len, prefixes))
    tokens = np.array([[*ids, *[PAD] * (longest - len(ids))] for ids in prefixes], np.int32)
    nexts = np.full((len(prefixes), 4, v), -1, np.int8)
    nexts[:, 0] = 0
    for i, word in enumerate(words or ()):
        for place, leads in enumerate(word, 1):
            for token, place_after in leads.items():
                nexts[i, place, token] = place_after
    return Prefix(jnp.asarray(tokens), jnp.asarray(nexts))


def log_probs_of(table: np.ndarray, state: int) -> np.ndarray:
    logits = table[state].astype(np.float64)
    return logits - np.log(np.exp(logits).sum())


def score(table: np.ndarray, ids, scoring: Scoring) -> float:
    """From the definition, one token after the other."""
    total, state, coverage = 0.0, next_state(0, BOS), np.zeros(SOURCE.sum())
    for token in ids:
        total += log_probs_of(table, state)[token]
        coverage += ATTENTION[state, SOURCE]
        state = next_state(state, token)
    base = (5 + len(ids)) / 6 if scoring.length_normalization == "gnmt" else len(ids)
    covered = np.log(np.minimum(coverage, 1)).sum()
    return total / base**scoring.length_penalty + scoring.coverage_penalty * covered


def words(v: int) -> list[int]:
    return [token for token in range(v) if token not in (PAD, EOS, BOS)]


def exhaustive(table, max_length, scoring, v):
    """Every hypothesis and its score, best first."""
    found = [
        (score(table, (*prefix, EOS), scoring), (*prefix, EOS))
        for length in range(max_length)
        for prefix in itertools.product(words(v), repeat=length)
    ]
    return sorted(found, reverse=True)


def patient_search(table, max_length, w, scoring, v, prefix=()):
    """The same rules as `beam_search` for one sentence, without the exit by bound."""
    live, finished = [(0.0, (), next_state(0, BOS))], []
    for length in range(1, max_length + 1):
        candidates = []
        for total, ids, state in live:
            allowed = [EOS] if length == max_length else [EOS, *words(v)]
            for token in prefix[length - 1 : length] or allowed:
                log_prob = total + log_probs_of(table, state)[token]
                candidates.append((log_prob, (*ids, token), next_state(state, token)))
        candidates = sorted(candidates, reverse=True)[: 2 * w]
        ended = [ids for _, ids, _ in candidates[:w] if ids[-1] == EOS]
        finished += [(score(table, ids, scoring), ids) for ids in ended]
        finished = sorted(finished, reverse=True)[:w]
        if w == 1 and candidates[0][1][-1] == EOS:
            break
        live = [candidate for candidate in candidates if candidate[1][-1] != EOS][:w]
    return finished


def assert_hypotheses(result: Hypotheses, sentence: int, expected) -> None:
    """`expected`: (score, ids), best first; the places after them hold no hypothesis."""
    w, t = result.ids.shape[1:]
    expected = expected[:w] + [(-np.inf, ())] * (w - len(expected))
    rows = [[*ids, *[PAD] * (t - len(ids))] for _, ids in expected]
    np.testing.assert_array_equal(result.ids[sentence], rows)
    np.testing.assert_allclose(result.scores[sentence], [s for s, _ in expected], 1e-5, 1e-5)
