"""Every picture of a trained model, as files of a folder, with a page that shows them all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from flax_transformer.config import Config, RecurrentConfig
from flax_transformer.config.json import load_config
from flax_transformer.files.whole_file import write_whole
from flax_transformer.inspection.attention import attend
from flax_transformer.inspection.curves import plot_curves
from flax_transformer.inspection.drawing import Picture
from flax_transformer.inspection.heat_maps import KINDS, choose_head
from flax_transformer.inspection.model_diagram import plot_model
from flax_transformer.inspection.picture_page import Shown, page
from flax_transformer.inspection.positions import plot_positions
from flax_transformer.inspection.schedule import plot_schedule
from flax_transformer.inspection.search_tree import trace_search
from flax_transformer.translation.trained_model import TrainedModel
from flax_transformer.workdir import CONFIG_FILE, METRICS_FILE

PAGE = "index.html"


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """What is shown of one sentence pair; `by_model` says that the translation is the model's own,
    so that its search is of interest too."""

    source: str
    target: str
    by_model: bool


@dataclass
class Gallery:
    """What was written, and what is to be said of it.

    files:   in the order in which they were written
    missing: characters for which no font is installed
    notes:   on pictures that there are not
    """

    files: list[Path] = field(default_factory=list)
    missing: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Plan:
    """A picture that is to be drawn: its file's name without the ending, and where it is shown."""

    name: str
    section: str
    draw: Callable[[], Picture]


def draw_gallery(
    model: TrainedModel,
    sentences: Sequence[Sentence],
    folder: Path,
    *,
    compare: Sequence[Path] = (),
    explorer: Path | None = None,
) -> Gallery:
    """Writes SVG and PNG of every picture of `model` into `folder`, and the page that shows them.

    compare:  work directories of other runs, whose learning curves are drawn beside
    explorer: what else the page links to

    Raises `UserError` where a file cannot be written or another run's cannot be read.
    """
    gallery = Gallery()
    plans = [
        *(plan for i, each in enumerate(sentences, 1) for plan in _of_sentence(model, each, i)),
        *_of_run(model.workdir, model.config, compare, gallery.notes),
        *_of_model(model, gallery.notes),
    ]
    shown = []
    with tqdm(plans, desc="Drawing", unit=" pictures", leave=False, disable=None) as bar:
        for plan in bar:
            picture = plan.draw()
            for ending in (".svg", ".png"):
                picture.save(folder / f"{plan.name}{ending}")
                gallery.files.append(folder / f"{plan.name}{ending}")
            gallery.missing += "".join(c for c in picture.missing if c not in gallery.missing)
            size = tuple(round(96 * inches) for inches in picture.get_size_inches())
            shown.append(Shown(plan.name, plan.section, picture.caption, picture.alt, size))
    title = f"Inside {model.workdir.resolve().name}"
    text = page(title, shown, gallery.notes, explorer.name if explorer else None)
    write_whole(folder / PAGE, text)
    gallery.files.append(folder / PAGE)
    return gallery


def _of_sentence(model: TrainedModel, sentence: Sentence, number: int) -> Iterator[_Plan]:
    attention = attend(
        model.config, model.params, model.tokenizer, sentence.source, sentence.target
    )
    section = f"{sentence.source} → {sentence.target}"
    for kind in reversed(KINDS):
        weights = getattr(attention, kind)
        if weights is None:
            continue
        chosen = choose_head(weights)
        draw = partial(attention.plot, kind, chosen.layer, chosen.head)
        yield _Plan(f"sentence_{number}_{kind}_head", section, draw)
        if weights.shape[:2] != (1, 1):
            yield _Plan(f"sentence_{number}_{kind}", section, partial(attention.plot, kind))
    if sentence.by_model:

        def draw_search() -> Picture:
            return trace_search(model, sentence.source).plot()

        yield _Plan(f"sentence_{number}_search", section, draw_search)


def _of_run(
    workdir: Path, config: Config, compare: Sequence[Path], notes: list[str]
) -> Iterator[_Plan]:
    section = "The run"
    if (workdir / METRICS_FILE).exists() or compare:
        own = [workdir] if (workdir / METRICS_FILE).exists() else []
        yield _Plan("curves", section, lambda: plot_curves(*own, *compare))
    else:
        notes.append(f"There are no learning curves: {METRICS_FILE} is not in the work directory.")
    configs = {each.resolve().name: load_config(each / CONFIG_FILE) for each in compare}
    named = {workdir.resolve().name: config, **configs} if configs else config
    yield _Plan("schedule", section, lambda: plot_schedule(named))


def _of_model(model: TrainedModel, notes: list[str]) -> Iterator[_Plan]:
    section = "The model"
    yield _Plan("model", section, lambda: plot_model(model.config))
    if isinstance(model.config.model, RecurrentConfig):
        notes.append("A recurrent model reads in order: there are no position encodings to show.")
        if not model.config.model.attends_to_source:
            notes.append("This model has no attention (model.attention is none).")
    else:
        yield _Plan("positions", section, lambda: plot_positions(model.config, model.params))
