"""What the pages of the course share: the trained model, small trainings, and claims about them.

Every page runs in a process of its own. `train` is the whole of training in a few lines; `train.py`
adds checkpoints, validation, resuming and the rest.

A cell that draws ends with `show(picture)`: the page then has the picture with its caption and its
text for those who do not see it.
"""

import base64
import fcntl
import hashlib
import os
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import jax
import numpy as np
from IPython.display import HTML, display

import flax_transformer as ft
from flax_transformer.batch import Batch
from flax_transformer.data.corpus import Corpus, open_corpus
from flax_transformer.data.training_data import TrainingData, prepare_training_data
from flax_transformer.files.whole_file import write_whole
from flax_transformer.inspection.drawing import COLORS, Picture
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.runtime.quick_compilation import OPTIMISED
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.training.state import TrainState, create_state
from flax_transformer.training.step import jit_train_step
from flax_transformer.translation.translator import Translator

_DOCS = Path(__file__).resolve().parent
SHORT = bool(os.environ.get("FLAX_TRANSFORMER_SHORT"))
"""Whether the build is shortened: every block runs, with models that have hardly learned."""

WORKDIR = Path(os.environ.get("FLAX_TRANSFORMER_WORKDIR", _DOCS.parent / "runs" / "quickstart"))
"""Of the quick start."""

_LAB = Path(os.environ.get("FLAX_TRANSFORMER_LAB", _DOCS / "_work" / "full"))
_SHORT_STEPS = 8

jax.config.update("jax_compilation_cache_dir", str(_LAB / "compiled"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
# Programs that do not say which lines they come from are made in seven eighths of the time.
jax.config.update("jax_traceback_in_locations_limit", 0)


def train_quick_start() -> None:
    """Trains the model that the pages look into, or goes on where its training stopped."""
    config = ft.load_config("quickstart")
    config = changed(config, training={"evaluate_every": config.training.steps})
    if SHORT:
        steps = dict.fromkeys(("steps", "evaluate_every", "checkpoint_every"), 30)
        optimizer = {"warmup_steps": 10, "cooldown_steps": 5}
        config = changed(config, training=steps, optimizer=optimizer)
    run = ft.Run(config, WORKDIR)
    run.train()
    run.interruption.exit()


def learned(claim: bool) -> None:
    """Asserts what only a trained model shows.

    A shortened build only computes it: its models have hardly learned.
    """
    assert SHORT or claim


@cache
def quick_start(**decoding: Any) -> ft.Model:
    """Returns the quick start's model; `decoding` as for `ft.load`."""
    return ft.load(WORKDIR, **decoding)


SMALL = ft.Config(
    data=ft.Builtin(num_pairs=8_000),
    tokenizer=ft.TokenizerConfig(vocabulary_size=800),
    batch=ft.BatchConfig(rows=16, source_length=48, target_length=56),
    model=ft.TransformerConfig(
        num_encoder_layers=1,
        num_decoder_layers=1,
        d_model=64,
        num_heads=4,
        d_ff=256,
        dropout=0.0,
        compute_dtype="float32",
    ),
    optimizer=ft.OptimizerConfig(warmup_steps=80, learning_rate_scale=0.6),
    training=ft.TrainingConfig(steps=300),
    decoding=ft.DecodingConfig(beam_size=1, max_source_length=48),
)
"""What a page trains to try something: seconds, not minutes, and far from good."""


def changed(config: ft.Config, **sections: dict[str, Any]) -> ft.Config:
    """Returns `config` with other fields: `changed(SMALL, model={"norm": "pre"})`."""
    return replace(
        config,
        **{name: replace(getattr(config, name), **fields) for name, fields in sections.items()},
    )


@cache
def text(data: ft.Builtin = SMALL.data) -> Corpus:
    """Returns the built-in corpus, which a small grammar makes."""
    return open_corpus(data)


@cache
def _prepared(config: ft.Config) -> TrainingData:
    folder = _LAB / f"vocabulary_{config.tokenizer.vocabulary_size}_{config.data.num_pairs}"
    folder.mkdir(parents=True, exist_ok=True)
    return prepare_training_data(text(config.data), config, folder)


def prepare() -> None:
    """Makes the text of small trainings, which all pages then have, before anything computes."""
    _prepared(SMALL)


def batch(index: int = 0, config: ft.Config = SMALL) -> Batch:
    """Returns what step `index` of a small training is fed, counted from 0."""
    return _prepared(config).train.batch(index)


@dataclass(frozen=True)
class Trained:
    """What a small training leaves.

    losses      per target token, of each step
    accuracies  share of the target tokens that the model would have chosen, of each step
    """

    config: ft.Config
    params: Any
    losses: list[float]
    accuracies: list[float]

    @property
    def tokenizer(self) -> Tokenizer:
        return _prepared(self.config).tokenizer

    def translate(self, lines: Sequence[str]) -> list[str]:
        """Translates as the model was trained; where code was replaced, replace it here too."""
        translator = Translator(self.config, self.tokenizer)
        return [best.text for best, *_ in translator.translate(self.params, lines)]

    def bleu(self, num_sentences: int = 100) -> float:
        """Returns sacreBLEU's BLEU on the first sentences of the validation split."""
        sources, references = pairs("validation", 8 if SHORT else num_sentences, self.config.data)
        return bleu(self.translate(sources), references)


def pairs(split: str, count: int, data: ft.Builtin = SMALL.data) -> tuple[list[str], list[str]]:
    """Returns the first sources and references of a split of the built-in corpus."""
    found = [pair for pair, _ in zip(text(data).split(split), range(count), strict=False)]
    return [source for source, _ in found], [target for _, target in found]


def bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Returns sacreBLEU's BLEU."""
    import sacrebleu

    return sacrebleu.corpus_bleu(list(hypotheses), [list(references)]).score


def trained_once(config: ft.Config = SMALL) -> Trained:
    """Returns what `train` returns, and trains only if no page has done so with this very code.

    For the library as it is: where code is replaced, use `train`.
    """
    path = _LAB / f"trained_{_fingerprint(config)}.pickle"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another page may be at it
        if path.exists():
            return pickle.loads(path.read_bytes())
        trained = train(config)
        trained = replace(trained, params=jax.device_get(trained.params))
        write_whole(path, pickle.dumps(trained))
        return trained


def _fingerprint(config: ft.Config) -> str:
    """Returns what names a training: its settings, the library's source and JAX's version."""
    digest = hashlib.sha256(f"{SHORT} {config} {jax.__version__}".encode())
    for path in sorted(Path(ft.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def train(config: ft.Config = SMALL) -> Trained:
    """Trains by the library's own step, from the same start and on the same batches every time."""
    if SHORT:
        config = changed(config, training={"steps": _SHORT_STEPS})
    data, mesh = _prepared(config), build_mesh(ft.MeshConfig())
    state: TrainState = create_state(config, mesh)
    key, metrics = jax.random.key(1), []
    step = _compiled(jit_train_step(config, mesh, state), state, data.train.batch(0), key)
    for index in range(config.training.steps):
        state, found = step(state, data.train.batch(index), key)
        metrics.append(found)
    metrics = jax.device_get(metrics)
    return Trained(
        config=config,
        params=state.params,
        losses=[float(each["loss"] / each["tokens"]) for each in metrics],
        accuracies=[float(each["correct"] / each["tokens"]) for each in metrics],
    )


def _compiled(function: Callable[..., Any], *arguments: Any) -> Callable[..., Any]:
    """Returns a jitted function as a program for such arguments, quick where it has much to do."""
    return function.lower(*arguments).compile({} if SHORT else OPTIMISED)


def smoothed(values: Sequence[float], width: int = 20) -> list[float]:
    """Returns the mean of each value and up to `width` - 1 before it, as curves show it."""
    return [float(np.mean(values[max(0, end - width) : end])) for end in range(1, len(values) + 1)]


def curves(
    named: dict[str, Sequence[float]], ylabel: str, caption: str, alt: str, **axes: Any
) -> Picture:
    """Draws lines over training steps, named at their ends' legend.

    axes: for matplotlib's `Axes.set`, such as ylim=(0, 8) or yscale="log"
    """
    picture = Picture(figsize=(6.4, 3.2), layout="constrained")
    plot = picture.add_subplot(xlabel="step", ylabel=ylabel, **axes)
    styles = ("-", "--", "-.", ":")
    for place, (name, values) in enumerate(named.items()):
        plot.plot(
            range(1, len(values) + 1), values, styles[place % 4], color=COLORS[place], label=name
        )
    plot.legend()
    picture.describe(caption, alt)
    return picture


def show(picture: Picture) -> None:
    """Displays a picture on the page, with `picture.alt` as its text and `picture.caption` below.

    It stays on white in the dark too, so that the colours of a heat map mean the same.
    """
    assert picture.alt, "say in words what the picture shows: picture.describe(caption, alt)"
    data = base64.b64encode(picture.encode("svg")).decode()
    image = f'<img alt="{escape(picture.alt)}" src="data:image/svg+xml;base64,{data}">'
    size = "picture wide" if picture.get_size_inches()[0] > 8 else "picture"
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    display(HTML(f'<figure class="{size}"><div>{image}</div>{caption}</figure>'))


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints columns, the first aligned left, the others right."""
    shown = [[str(each) for each in row] for row in [head, *rows]]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for first, *others in shown:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        print("  ".join(cells).rstrip())


def seconds_of(function: Callable[..., Any], *arguments: Any, repeats: int = 5) -> float:
    """Returns the shortest wall time of a call of a jitted function, compiling left out.

    Another page may be running beside this one, which can only make a call take longer.
    """
    function, found = _compiled(function, *arguments), []
    jax.block_until_ready(function(*arguments))
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        found.append(time.perf_counter() - start)
    return min(found)
