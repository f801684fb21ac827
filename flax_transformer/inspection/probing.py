"""What linear probes find in the hidden states of each layer, and how much of it is the probe's.

A probe is a softmax regression from a hidden state to a property of a word. Beside each stands its
control task (Hewitt and Liang 2019): every type of word has one random label, drawn as the true
ones are distributed, which a probe can only learn by heart, word by word. Selectivity is the
accuracy of the probe less that of its control.

Letters: l layers, n words, d width, c labels of all tasks, k tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flax_transformer.data.builtin.analysis import AnalysedPair
from flax_transformer.inspection.hidden_states import hidden_states
from flax_transformer.inspection.pair_rows import lay_out_pairs
from flax_transformer.inspection.probe_labels import (
    Place,
    ProbedWord,
    Property,
    Task,
    probed_words,
    tasks_of,
)
from flax_transformer.translation.trained_model import TrainedModel

STEPS, WORDS_PER_STEP, LEARNING_RATE = 600, 512, 1e-2


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """How well one property is found after one layer, in words that the probe has not learnt from.

    layer          0 is the embedding
    accuracy       share of the words whose property the probe finds
    control        accuracy of a like probe for the control task
    most_frequent  accuracy of always guessing what is most frequent
    words          how many words have the property
    """

    place: Place
    layer: int
    task: Property
    accuracy: float
    control: float
    most_frequent: float
    words: int

    @property
    def selectivity(self) -> float:
        """What the accuracy owes to the hidden states rather than to the probe's memory."""
        return self.accuracy - self.control


def probe(
    model: TrainedModel,
    learn: Sequence[AnalysedPair],
    test: Sequence[AnalysedPair],
    progress: str | None = None,
) -> list[ProbeScore]:
    """Returns the scores on `test` of probes that have learnt from `learn`, layer by layer.

    progress: names bars on stderr

    Raises `UserError` for a model that is no Transformer.
    """
    scores: list[ProbeScore] = []
    for place, samples in _states(model, learn, test, progress).items():
        tasks = tasks_of(samples.learn_words, samples.test_words)
        flat = [each for _, task, control in tasks for each in (task, control)]
        fit = jax.jit(partial(accuracies, sizes=tuple(len(task.names) for task in flat)))
        labels, test_labels = (
            np.stack([getattr(task, sample) for task in flat], axis=1)
            for sample in ("learn", "test")
        )
        for layer, (x, test_x) in enumerate(zip(samples.learn, samples.test, strict=True)):
            found = jax.device_get(fit(*map(jnp.asarray, (x, labels, test_x, test_labels))))
            for (name, task, _), both in zip(tasks, found.reshape(-1, 2), strict=True):
                accuracy, control = map(float, both)
                frequent, count = _most_frequent(task), int((task.test >= 0).sum())
                scores.append(
                    ProbeScore(
                        place=place,
                        layer=layer,
                        task=name,
                        accuracy=accuracy,
                        control=control,
                        most_frequent=frequent,
                        words=count,
                    )
                )
    return scores


class _Samples(NamedTuple):
    """Words to learn from and to test on, and their hidden states (l,n,d)."""

    learn: np.ndarray
    learn_words: list[ProbedWord]
    test: np.ndarray
    test_words: list[ProbedWord]


def _states(
    model: TrainedModel,
    learn: Sequence[AnalysedPair],
    test: Sequence[AnalysedPair],
    progress: str | None,
) -> dict[Place, _Samples]:
    """Returns the words of both samples at each place, with their hidden states."""
    from tqdm import tqdm

    look = jax.jit(partial(hidden_states, model.config))
    states: dict[Place, list[np.ndarray]] = {place: [] for place in get_args(Place)}
    words: dict[Place, list[list[ProbedWord]]] = {place: [] for place in get_args(Place)}
    batches = lay_out_pairs(model.tokenizer, [*learn, *test])
    for rows in tqdm(batches, desc=progress, unit=" batches", disable=progress is None or None):
        both = jax.device_get(look(model.params, jax.device_put(rows.batch)))
        for place in states:
            side = both["encoder" if place == "encoder" else "decoder"]
            for number, row in enumerate(rows.rows):
                found = probed_words(row, place)
                states[place].append(side[:, number, [word.token for word in found]])
                words[place].append(found)
    end = len(learn)
    return {
        place: _Samples(
            np.concatenate(states[place][:end], axis=1),
            list(chain.from_iterable(words[place][:end])),
            np.concatenate(states[place][end:], axis=1),
            list(chain.from_iterable(words[place][end:])),
        )
        for place in states
    }


def _most_frequent(task: Task) -> float:
    """Returns the accuracy of the label that is most frequent among those to learn."""
    guess = np.bincount(task.learn[task.learn >= 0], minlength=len(task.names)).argmax()
    return float((task.test[task.test >= 0] == guess).mean())


def accuracies(
    x: jax.Array,
    labels: jax.Array,
    test_x: jax.Array,
    test_labels: jax.Array,
    sizes: tuple[int, ...],
) -> jax.Array:
    """Returns the accuracies (k,) of probes of the states x (n,d) for labels (n,k).

    Each task has its own softmax over its `sizes[k]` labels, so that the probes, learnt together,
    are those that each would be alone.
    """
    mean, deviation = x.mean(axis=0, keepdims=True), x.std(axis=0, keepdims=True) + 1e-6
    x, test_x = (x - mean) / deviation, (test_x - mean) / deviation
    params = (jnp.zeros((x.shape[1], sum(sizes))), jnp.zeros((1, sum(sizes))))
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, STEPS))

    starts = np.cumsum((0, *sizes))[None, :-1]

    def loss(params, words):
        scores, chosen = _scores(params, x[words]), labels[words]
        of_label = jnp.take_along_axis(scores, starts + chosen, axis=1)  # nk
        of_all = [jax.nn.logsumexp(own, axis=1) for own in _split(scores, sizes)]
        losses = jnp.stack(of_all, axis=1) - of_label
        return jnp.where(chosen >= 0, losses, 0).sum() / WORDS_PER_STEP

    def step(carry, key):
        params, state = carry
        words = jax.random.randint(key, (WORDS_PER_STEP,), 0, len(x))
        updates, state = optimizer.update(jax.grad(loss)(params, words), state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(0), STEPS)
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
    guesses = [own.argmax(axis=1) for own in _split(_scores(params, test_x), sizes)]
    right = (jnp.stack(guesses, axis=1) == test_labels).sum(axis=0)
    return right / jnp.maximum((test_labels >= 0).sum(axis=0), 1)


def _scores(params, x: jax.Array) -> jax.Array:
    """Returns the scores (n,c) of the labels of all tasks, side by side."""
    weights, bias = params
    return jnp.einsum("nd,dc->nc", x, weights) + bias


def _split(scores: jax.Array, sizes: tuple[int, ...]) -> list[jax.Array]:
    return jnp.split(scores, np.cumsum(sizes)[:-1], axis=1)
