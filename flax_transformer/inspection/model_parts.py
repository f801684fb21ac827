"""What a model consists of, read from the model itself: its modules, parameters and classes.

A box is a module: its parameters with their shapes in the letters of the legend, how many numbers
they hold in one layer, and the class that computes it.
"""

import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from flax_transformer.config import Config, RecurrentConfig, TransformerConfig
from flax_transformer.models.initialization import init_params

_PACKAGE = "flax_transformer"
_ORDER = (
    "query", "key", "value", "output", "w1", "b1", "w2", "b2", "scale", "table", "positions",
    "input", "recurrent", "bias", "feed", "matrix", "vector", "coverage", "combine",
)  # fmt: skip


@dataclass(frozen=True)
class Box:
    """A module, or parameters of one that are used together; `count` is of one layer, None of what
    is counted elsewhere; `group` decides the colour."""

    title: str
    parameters: str
    count: int | None
    module: type | None
    group: str


@dataclass(frozen=True)
class Stage:
    """What runs `turns` times, from the bottom up, each time with parameters of its own.

    rows:      boxes side by side, one above the other
    skips:     pairs of rows, (a, b): what enters row a is added to what leaves row b, or, with
               post-normalisation, to what enters it
    module:    the layer's class
    """

    rows: tuple[tuple[Box, ...], ...]
    turns: int = 1
    framed: bool = False
    skips: tuple[tuple[int, int], ...] = ()
    module: type | None = None


@dataclass(frozen=True)
class Sketch:
    """A whole model.

    attends: title of the decoder's box that looks at the encoder's output, if one does
    starts:  title of the decoder's box that begins where the encoder ended, if one does
    """

    embedding: Box
    encoder: tuple[Stage, ...]
    decoder: tuple[Stage, ...]
    attends: str | None
    starts: str | None

    @property
    def counted(self) -> int:
        """The parameters that all boxes stand for, over all layers."""
        return (self.embedding.count or 0) + sum(
            stage.turns * (box.count or 0)
            for stage in (*self.encoder, *self.decoder)
            for row in stage.rows
            for box in row
        )


Parameters = dict[str, list[tuple[str, str, int]]]
"""By the path of a module: name, shape in letters, and numbers in one layer of each parameter."""


def sketch_model(config: Config) -> Sketch:
    """Returns the boxes of the model that `config` describes."""
    parts = _Parts(config)
    if isinstance(config.model, RecurrentConfig):
        return _sketch_recurrent(config.model, parts)
    return _sketch_transformer(config.model, parts)


class _Parts:
    """The parameters and classes of a model, as boxes; whatever no box has asked for is missed."""

    def __init__(self, config: Config):
        self._d = config.model.d_model
        self._classes, boxed = _trace(config)
        self._parameters = _parameters(boxed)

    def paths(self) -> list[str]:
        return list(self._parameters)

    def box(self, path: str, title: str, group: str, names: tuple[str, ...] | None = None) -> Box:
        """Returns the box of the module at `path`, or of those `names` of its parameters."""
        found = [each for each in self._parameters.get(path, []) if not names or each[0] in names]
        found.sort(key=lambda each: _ORDER.index(each[0]) if each[0] in _ORDER else len(_ORDER))
        shapes = ", ".join(f"{name} ({self._letters(shape)})" for name, shape, _ in found)
        count = sum(count for _, _, count in found)
        return Box(title, shapes, count, self.module(path), group)

    def module(self, path: str) -> type | None:
        return self._classes.get(path)

    def _letters(self, shape: str) -> str:
        """Returns "d,h,k" of "d=512 h=8 k=64"; a d other than the model's is a layer's units."""
        pairs = [axis.split("=") for axis in shape.split()]
        return ",".join("u" if a == "d" and int(n) != self._d else a for a, n in pairs)


def _parameters(boxed: Any) -> Parameters:
    leaves = jax.tree_util.tree_leaves_with_path(nn.unbox(boxed))
    specs = nn.get_partition_spec(boxed)
    axes = jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, tuple))
    found: Parameters = {}
    for (keys, array), letters in zip(leaves, axes, strict=True):
        *path, name = (key.key for key in keys)
        sizes = [(a, n) for a, n in zip(letters, array.shape, strict=True) if a != "l"]
        shape = " ".join(f"{letter}={size}" for letter, size in sizes)
        count = int(np.prod([size for _, size in sizes]))
        found.setdefault(".".join(path), []).append((name, shape, count))
    return found


def _trace(config: Config) -> tuple[dict[str, type], Any]:
    """Returns, by path, the class of each module that a pass through the model calls; and the
    parameters, boxed with the names of their axes, without computing them."""
    found: dict[str, type] = {}

    def note(
        call: Any, arguments: Any, keywords: Any, context: nn.module.InterceptorContext
    ) -> Any:
        # A stack of layers is of a class that Flax makes of the layer's.
        own = (each for each in type(context.module).__mro__ if _is_ours(each))
        found.setdefault(".".join(context.module.path), next(own, nn.Module))
        return call(*arguments, **keywords)

    with nn.intercept_methods(note):
        # Traced anew, so that every call is noted.
        draw = functools.partial(init_params.function, config)
        boxed = jax.eval_shape(draw, jax.random.key(0))
    return found, boxed


def _is_ours(cls: type) -> bool:
    return cls.__module__.split(".")[0] == _PACKAGE


def _sketch_transformer(model: TransformerConfig, parts: _Parts) -> Sketch:
    embedding = parts.box("embedding", "Token embedding + positions", "embedding")
    encoder = _stack(parts, model, "encoder", model.num_encoder_layers)
    decoder = _stack(parts, model, "decoder", model.num_decoder_layers)
    return Sketch(embedding, encoder, decoder, attends=_SUBLAYERS["cross_attention"], starts=None)


_SUBLAYERS = {
    "self_attention": "Masked multi-head self-attention",
    "attention": "Multi-head self-attention",
    "cross_attention": "Multi-head attention to the encoder",
    "feed_forward": "Feed-forward",
}
"""In the order in which a layer calls them, with what their boxes are called."""


def _stack(parts: _Parts, model: TransformerConfig, stack: str, layers: int) -> tuple[Stage, ...]:
    rows: list[tuple[Box, ...]] = []
    skips = []
    for name, title in _SUBLAYERS.items():
        if (path := f"{stack}.{name}") not in parts.paths():
            continue
        group = "feed-forward" if name == "feed_forward" else "attention"
        sublayer, norm = parts.box(path, title, group), parts.box(*_norm(parts, path, model.norm))
        skips.append((len(rows), len(rows) + 1))
        rows += [(norm,), (sublayer,)] if model.norm == "pre" else [(sublayer,), (norm,)]
    layer = Stage(tuple(rows), layers, True, tuple(skips), parts.module(stack))
    last = f"{stack}_norm"
    if last not in parts.paths():
        return (layer,)
    return layer, Stage(((parts.box(last, "Norm of the whole stack", "norm"),),))


def _norm(parts: _Parts, sublayer: str, norm: str) -> tuple[str, str, str]:
    """Returns path, title and group of the norm that belongs to the sub-layer at that path."""
    candidates = (
        f"{sublayer}_residual.norm",
        f"{sublayer.removesuffix('_attention')}_residual.norm",
    )
    path = next(each for each in candidates if each in parts.paths())
    return path, "Norm" if norm == "pre" else "Add & norm", "norm"


def _sketch_recurrent(model: RecurrentConfig, parts: _Parts) -> Sketch:
    cell = model.cell.upper()
    directions = ("forward", "backward") if model.bidirectional else ("forward",)
    row = tuple(
        parts.box(f"encoder.layer_0_{each}", f"{cell}, {each}", "recurrent") for each in directions
    )
    encoder = Stage((row,), model.num_encoder_layers, True, (), row[0].module)
    states = parts.box("decoder.layer_0", cell, "recurrent")
    decoder = [Stage(((states,),), model.num_decoder_layers, True, (), states.module)]
    if model.input_feeding:
        title = "Input feeding: the features before, too"
        decoder.insert(0, Stage(((parts.box("decoder", title, "feed-forward", ("feed",)),),)))
    attends = None
    if model.attends_to_source:
        attends = f"Attention to the encoder: {model.attention.replace('_', '-')}"
        heads = "decoder.attention.heads"
        path = heads if heads in parts.paths() else "decoder.attention"
        combine = parts.box("decoder", "tanh(W [context; state])", "feed-forward", ("combine",))
        decoder.append(Stage(((parts.box(path, attends, "attention"),), (combine,))))
    embedding = parts.box("embedding", "Token embedding", "embedding")
    return Sketch(embedding, (encoder,), tuple(decoder), attends, states.title)


def source_link(cls: type, base: str | None = None) -> str:
    """Returns the address of the lines where `cls` stands.

    base: what the address begins with, in place of the repository that the installed package names;
          where it names none, the file itself is linked to
    """
    lines, first = inspect.getsourcelines(cls)
    path = Path(inspect.getsourcefile(cls) or "")
    place = f"#L{first}-L{first + len(lines) - 1}"
    base = repository() if base is None else base
    if base is None:
        return path.as_uri() + place
    inside = path.relative_to(Path(__file__).parents[2]).as_posix()
    return f"{base.rstrip('/')}/{inside}{place}"


def repository() -> str | None:
    """Returns the address of the package's files, if its metadata name where they are kept."""
    try:
        urls = metadata.metadata(_PACKAGE).get_all("Project-URL") or []
    except metadata.PackageNotFoundError:
        return None
    return next(_repositories(urls), None)


def _repositories(urls: list[str]) -> Iterator[str]:
    for each in urls:
        label, _, url = each.partition(",")
        if label.strip().lower() in ("repository", "source", "source code", "github"):
            yield f"{url.strip().rstrip('/')}/blob/main"
