"""A trained model for a Python program: `ft.load("runs/base").translate(["Hello."])`."""

import dataclasses
import warnings
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flax_transformer.config import BleuTokenizer, DecodingConfig
from flax_transformer.config.json import load_config
from flax_transformer.config.shipped import model_folder
from flax_transformer.errors import UserError, require
from flax_transformer.evaluation.evaluation import settle_bleu_tokenizer
from flax_transformer.evaluation.scores import score
from flax_transformer.exchange.importing import import_model
from flax_transformer.exchange.tensor_files import is_hugging_face
from flax_transformer.files.whole_folder import require_no_folder
from flax_transformer.inspection.attention import Attention, attend
from flax_transformer.inspection.heads import HeadImportance, MaskedModel, measure_heads
from flax_transformer.inspection.pruning import remove_heads
from flax_transformer.inspection.search_tree import SearchTree, trace_search
from flax_transformer.translation.minimum_risk import RiskMetric, sampling_config
from flax_transformer.translation.trained_model import TrainedModel
from flax_transformer.workdir import CONFIG_FILE


@dataclass(frozen=True, kw_only=True)
class Score:
    """How good translations are, in points of 100.

    bleu, signature:       sacreBLEU's BLEU, and how exactly it was taken
    chrf, chrf_signature:  its chrF2, likewise
    hypotheses:            the translations that were scored
    """

    bleu: float
    signature: str
    chrf: float
    chrf_signature: str
    hypotheses: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        bleu = f"BLEU {self.bleu:.2f} ({self.signature})"
        return f"{bleu}\nchrF2 {self.chrf:.2f} ({self.chrf_signature})"


class Model(TrainedModel):
    """A `TrainedModel`, and what takes more than translation, such as scores."""

    def _tell(self, note: str) -> None:
        warnings.warn(note, stacklevel=3)

    def score(
        self,
        sources: Sequence[str],
        references: Sequence[str],
        *,
        lowercase: bool = False,
        tokenize: BleuTokenizer = "auto",
    ) -> Score:
        """Returns the scores of the translations of `sources` against one reference each.

        lowercase: BLEU takes capitals for small letters
        tokenize:  how BLEU splits words; "auto" as in the run's validations

        Raises `UserError` where there is no sentence, or not a reference for each.
        """
        require(len(sources) > 0, "sources is empty: there is nothing to score")
        require(
            len(sources) == len(references),
            f"there are {len(sources)} sources and {len(references)} references: give one "
            "reference for each source",
        )
        tokenizer = settle_bleu_tokenizer(self.config, tokenize)
        return rate(self.translate(sources), references, tokenizer, lowercase)

    def attention(self, source: str, target: str | None = None) -> Attention:
        """Returns where the model looks while it reads `source` and writes `target`, by default its
        own translation: the weights of every layer and head, and the tokens on their axes.

        By the reference attention, whatever kernels the model runs with. A text is not cut, however
        long it is.
        """
        self._require_one("attention")
        written = self.translate([source])[0] if target is None else target
        return attend(self.config, self.params, self.tokenizer, source, written)

    def search_tree(
        self, source: str, *, beam_size: int | None = None, prefix: str = ""
    ) -> SearchTree:
        """Returns how the search comes to the translation of `source`: the candidates of every
        position and what became of them.

        beam_size: hypotheses kept at each position; by default `config.decoding.beam_size`
        prefix:    a text that the translation begins with

        A source of several sentences is translated as a whole. Raises `UserError` where it is too
        long for that, or where it cannot be translated with its prefix.
        """
        return trace_search(self, source, beam_size=beam_size, prefix=prefix)

    def head_importance(self, sources: Sequence[str], references: Sequence[str]) -> HeadImportance:
        """Returns how much worse the model is without each of its attention heads, on pairs of
        sentences. It translates all sources once for each head.

        Raises `UserError` for a recurrent model, and for pairs that cannot be used.
        """
        self._require_one("heads")
        return measure_heads(MaskedModel(self, sources, references))

    def prune(
        self,
        output: str | Path,
        sources: Sequence[str],
        references: Sequence[str],
        *,
        max_loss: float = 0.5,
        heads: int | None = None,
    ) -> "Model":
        """Writes the model without the heads worth least to a new work directory, and returns it.

        max_loss: most points of BLEU that may be lost on these pairs
        heads:    how many heads to leave, whatever is lost

        Raises `UserError` as `head_importance`, where no head can go, and where `output` exists.
        """
        # Imported here, as matplotlib takes long to load.
        from flax_transformer.inspection.pruned_model import write_pruned

        self._require_one("heads")
        require_no_folder(Path(output))
        masked = MaskedModel(self, sources, references)
        importance = measure_heads(masked)
        pruning = remove_heads(masked, importance, max_loss=max_loss, heads=heads)
        write_pruned(Path(output), self, importance, pruning)
        return load(output)

    def _require_one(self, what: str) -> None:
        require(
            not self.others,
            f"an ensemble has no {what} of its own: load the models one by one",
        )


def rate(
    hypotheses: Sequence[str], references: Sequence[str], tokenize: str, lowercase: bool = False
) -> Score:
    """Returns the scores of `hypotheses` against one reference each.

    tokenize: one of sacreBLEU's, for BLEU
    """
    found = score(
        hypotheses, references, metrics=("bleu", "chrf"), lowercase=lowercase, tokenize=tokenize
    )
    return Score(
        bleu=found["bleu"],
        signature=found["bleu_signature"],
        chrf=found["chrf"],
        chrf_signature=found["chrf_signature"],
        hypotheses=tuple(hypotheses),
    )


def load(
    workdir: str | Path | Sequence[str | Path],
    *,
    mbr: int | None = None,
    mbr_metric: RiskMetric = "chrf",
    source_language: str | None = None,
    target_language: str | None = None,
    **decoding: Any,
) -> Model:
    """Returns the model that was trained in `workdir`, ready to translate; of several work
    directories an ensemble, whose probabilities are the mean of those of its models.

    workdir: a path, or the name of a model that comes with the package, such as "en-fr-small"

    mbr: samples of each line, of which the one is taken that is most like the others, by the
        mbr_metric (minimum Bayes risk, Eikema and Aziz 2020), in place of a search
    source_language, target_language: of a model of many languages, as it names them, where
        `workdir` is a folder of transformers (exchange/importing.py). Its work directory is a
        temporary one, which stays as long as the model
    decoding: fields of `DecodingConfig` to be other than in the run, such as beam_size=8 or
        checkpoint="best"

    What is to be said about the choice of checkpoints, such as that one is damaged, is warned of.
    Raises `UserError` where `workdir` holds no trained model, for wrong fields or values, and for
    models whose vocabularies differ.
    """
    workdir, *others = map(model_folder, [workdir] if isinstance(workdir, str | Path) else workdir)
    if is_hugging_face(workdir):
        with ExitStack() as resources:
            place = resources.enter_context(TemporaryDirectory())
            imported = Path(place) / workdir.resolve().name
            import_model(workdir, imported, source_language, target_language)
            model = load([imported, *others], mbr=mbr, mbr_metric=mbr_metric, **decoding)
            # Pruning and fine-tuning read the work directory again.
            weakref.finalize(model, resources.pop_all().close)
            return model
    require(
        source_language is target_language is None,
        f"{workdir} is the work directory of a run: leave out source_language and target_language",
    )
    config = load_config(workdir / CONFIG_FILE)
    known = [each.name for each in dataclasses.fields(DecodingConfig)]
    for name in decoding:
        if name not in known:
            raise UserError(f"decoding.{name} is no setting; there is: {', '.join(known)}")
    chosen = dataclasses.replace(config.decoding, **decoding)
    config = dataclasses.replace(config, decoding=chosen)
    if mbr is not None:
        config = sampling_config(config, mbr)
    model = Model(workdir, config, others=others, risk_metric=mbr_metric if mbr else None)
    for note in model.notes:
        warnings.warn(note.removeprefix("warning: "), stacklevel=2)
    return model
