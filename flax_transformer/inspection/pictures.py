"""Every picture of a trained model, as files of a folder, with a page that shows them all."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from flax_transformer.config import Config, RecurrentConfig
from flax_transformer.config.json import load_config
from flax_transformer.errors import UserError
from flax_transformer.files.whole_file import write_whole
from flax_transformer.inspection.attention import attend
from flax_transformer.inspection.chosen_head import choose_head
from flax_transformer.inspection.curves import plot_curves, run_names
from flax_transformer.inspection.drawing import Picture
from flax_transformer.inspection.explorer import write_explorer
from flax_transformer.inspection.heat_maps import KINDS
from flax_transformer.inspection.model_diagram import plot_model
from flax_transformer.inspection.picture_page import Shown, page
from flax_transformer.inspection.positions import plot_positions
from flax_transformer.inspection.schedule import plot_schedule
from flax_transformer.inspection.search_tree import trace_search
from flax_transformer.translation.trained_model import TrainedModel
from flax_transformer.workdir import CONFIG_FILE, METRICS_FILE

PAGE = "index.html"
EXPLORER = "explorer.html"


@dataclass(frozen=True)
class Sentence:
    """A sentence to look at; `target` is what the model is made to write, by default its own
    translation, of which the search is of interest too."""

    source: str
    target: str | None = None


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
) -> Gallery:
    """Writes SVG and PNG of every picture of `model` into `folder`, the page that shows them, and
    the explorer.

    compare: work directories of other runs, whose learning curves are drawn in the same picture

    Raises `UserError` where a file cannot be written or another run's cannot be read.
    """
    gallery = Gallery()
    plans, explored = _plan_sentences(model, sentences, gallery.notes)
    plans += _of_run(model.workdir, model.config, compare, gallery.notes)
    plans += _of_model(model, gallery.notes)
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
    if explored:
        write_explorer(folder / EXPLORER, model, explored)
        gallery.files.append(folder / EXPLORER)
    title = f"Inside {model.workdir.resolve().name}"
    write_whole(folder / PAGE, page(title, shown, gallery.notes, EXPLORER if explored else None))
    gallery.files.append(folder / PAGE)
    return gallery


def _plan_sentences(
    model: TrainedModel, sentences: Sequence[Sentence], notes: list[str]
) -> tuple[list[_Plan], list[str]]:
    """Searches and looks; returns what is to be drawn, and the sources that can be explored."""
    plans: list[_Plan] = []
    explored = []
    for number, sentence in enumerate(
        tqdm(sentences, desc="Searching", unit=" sentences", leave=False, disable=None), start=1
    ):
        tree = None
        try:
            tree = trace_search(model, sentence.source)
            explored.append(sentence.source)
        except UserError as error:  # such as one that is too long to be searched as a whole
            notes.append(f"Sentence {number} has no search, and is not in the explorer: {error}")
        target = sentence.target
        if target is None:
            target = tree.hypotheses[0].text if tree else model.translate([sentence.source])[0]
        section = f"{sentence.source} → {target}"
        plans += _of_sentence(model, sentence.source, target, section, number)
        if tree is not None and sentence.target is None:
            plans.append(_Plan(f"sentence_{number}_search", section, tree.plot))
    return plans, explored


def _of_sentence(
    model: TrainedModel, source: str, target: str, section: str, number: int
) -> Iterator[_Plan]:
    attention = attend(model.config, model.params, model.tokenizer, source, target)
    for kind in reversed(KINDS):
        weights = getattr(attention, kind)
        if weights is None:
            continue
        chosen = choose_head(weights)
        draw = partial(attention.plot, kind, chosen.layer, chosen.head)
        yield _Plan(f"sentence_{number}_{kind}_head", section, draw)
        if weights.shape[:2] != (1, 1):
            yield _Plan(f"sentence_{number}_{kind}", section, partial(attention.plot, kind))


def _of_run(
    workdir: Path, config: Config, compare: Sequence[Path], notes: list[str]
) -> Iterator[_Plan]:
    section = "The run"
    if (workdir / METRICS_FILE).exists() or compare:
        own = [workdir] if (workdir / METRICS_FILE).exists() else []
        yield _Plan("curves", section, lambda: plot_curves(*own, *compare))
    else:
        notes.append(f"There are no learning curves: {METRICS_FILE} is not in the work directory.")
    configs = [config, *(load_config(each / CONFIG_FILE) for each in compare)]
    named = dict(zip(run_names([workdir, *compare]), configs, strict=True))
    yield _Plan("schedule", section, lambda: plot_schedule(named if compare else config))


def _of_model(model: TrainedModel, notes: list[str]) -> Iterator[_Plan]:
    section = "The model"
    yield _Plan("model", section, lambda: plot_model(model.config))
    if isinstance(model.config.model, RecurrentConfig):
        notes.append("A recurrent model reads in order: there are no position encodings to show.")
        if not model.config.model.attends_to_source:
            notes.append("This model has no attention (model.attention is none).")
    else:
        yield _Plan("positions", section, lambda: plot_positions(model.config, model.params))
