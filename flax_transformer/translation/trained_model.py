"""A trained model, ready to translate: `TrainedModel(workdir, config).translate(lines)`."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.linen as nn
import jax

from flax_transformer.checkpoints.loading import load_parameters
from flax_transformer.config import Config, MeshConfig
from flax_transformer.config.json import load_config
from flax_transformer.config.shipped import model_folder
from flax_transformer.decoding.lengths import longest_source, longest_target
from flax_transformer.errors import UserError, require
from flax_transformer.models import build_model
from flax_transformer.models.ensemble import Ensemble
from flax_transformer.models.initialization import abstract_params
from flax_transformer.ops.compute_dtype import decoding_config
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.text.vocabulary_file import load_tokenizer
from flax_transformer.translation.hypotheses import Hypothesis, count_untranslated
from flax_transformer.translation.minimum_risk import RiskMetric, rank_by_risk
from flax_transformer.translation.pair_scores import PairScore, PairScorer
from flax_transformer.translation.search import describe_untranslated
from flax_transformer.translation.token_details import TokenDetails, TokenExplainer
from flax_transformer.translation.translator import RecordedSearch, Translator
from flax_transformer.workdir import CONFIG_FILE, TOKENIZER_FILE


class TrainedModel:
    """The parameters of a work directory that `config.decoding` chooses, and what they can do.

    workdir:    where the run left it
    others:     work directories of the other models, or names of shipped ones, where it is an
                ensemble
    config:     the settings of the run, `config.decoding` those of the search
    risk_metric: by which samples are ranked, if they are
    params:     float32, unboxed, whole on every device
    tokenizer:  text to ids and back
    module:     the network, which is pure: `module.apply({"params": params}, ...)`
    translator: of `config`; it counts tokens, compilations and long lines
    steps:      those of the checkpoints averaged
    choice:     which of them were asked for
    progress:   what the run remembered at the last of them
    notes:      for a person, about the choice
    """

    def __init__(
        self,
        workdir: Path,
        config: Config,
        rows_ahead: Sequence[int] = (),
        others: Sequence[Path] = (),
        risk_metric: RiskMetric | None = None,
    ):
        """Reads what a run left in `workdir`.

        config:     as `load_config` reads it from there; its `decoding` may be changed
        rows_ahead: where programs are to be compiled before lines need them, the numbers of lines
                    that these are for, ascending; see `programs_ahead`
        others:     work directories or shipped models' names, of models that translate with this
                    one, as an ensemble; their parameters, chosen likewise, make `params` a tuple
        risk_metric: by which the samples that `config.decoding` asks for are ranked, those most
                    like the others first; None leaves them as they were drawn

        Matrix products are those of the run, but in float32 where bfloat16 is only emulated.

        Raises `UserError` where the work directory lacks a vocabulary or checkpoints, or where the
        vocabulary is not that of the checkpoints, and where one of `others` has another vocabulary,
        or has learned positions for shorter sentences.
        """
        self.workdir = workdir
        self.others = tuple(others)
        self.risk_metric = risk_metric
        # Every device translates sentences of its own, however many the run was trained on.
        self._mesh = build_mesh(MeshConfig())
        self.config = config = decoding_config(config, self._mesh.devices.flat[0])
        vocabulary_size = config.tokenizer.vocabulary_size
        self.tokenizer = load_tokenizer(workdir / TOKENIZER_FILE, vocabulary_size)
        self.params, self.steps, self.choice, self.progress, self.notes = load_parameters(
            workdir, config, abstract_params(config, self._mesh)
        )
        if self.progress.tokenizer != self.tokenizer.fingerprint:
            raise UserError(
                f"{workdir / TOKENIZER_FILE} is not the vocabulary that the checkpoints were "
                "trained with: put that one back"
            )
        self.module: nn.Module | Ensemble = build_model(config.model, vocabulary_size)
        if others:
            self._join(others)
        self._rows_ahead = rows_ahead
        self._translators: dict[int, Translator] = {}
        self._pair_scorer: PairScorer | None = None
        self._explainer: TokenExplainer | None = None
        self.translator = self._translator(config.decoding.beam_size)

    def _join(self, others: Sequence[Path]) -> None:
        """Makes this model an ensemble with those of `others`."""
        members = [(self.module, self.params)]
        for workdir in map(model_folder, others):
            config = dataclasses.replace(
                load_config(workdir / CONFIG_FILE), decoding=self.config.decoding
            )
            other = TrainedModel(workdir, config)
            require(
                other.tokenizer.fingerprint == self.tokenizer.fingerprint,
                f"{workdir} has another vocabulary than {self.workdir}: only models of one "
                "vocabulary translate together",
            )
            most = longest_source(self.config)
            require(
                most <= longest_source(other.config)
                and longest_target(self.config, most) <= longest_target(other.config, most),
                f"{workdir} has learned positions for shorter sentences than {self.workdir}: name "
                "it first, as --workdir",
            )
            members.append((other.module, other.params))
            self.notes = [*self.notes, *other.notes]
        modules, self.params = zip(*members, strict=True)
        self.module = Ensemble(modules)

    def translate(
        self,
        lines: Sequence[str],
        *,
        prefixes: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        required: Sequence[Sequence[str]] | None = None,
        progress: str | None = None,
    ) -> list[str]:
        """Returns the best translation of each line; arguments are those of `search`."""
        found = self.search(
            lines, prefixes=prefixes, tags=tags, required=required, progress=progress
        )
        return [best.text for best, *_ in found]

    def search(
        self,
        lines: Sequence[str],
        *,
        prefixes: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        required: Sequence[Sequence[str]] | None = None,
        beam_size: int | None = None,
        n_best: int | None = None,
        progress: str | None = None,
    ) -> list[list[Hypothesis]]:
        """Returns the hypotheses of each line, best first, no text twice; with `decoding.sampling`
        `beam_size` samples of each, in the order of drawing.

        prefixes:  a text for each line that its hypotheses begin with, "" where they may begin
                   with anything (translation/prefixes.py says what becomes of it)
        tags:      a tag for each line, such as "<bt>", that training put before sources of its
                   kind; "" for none
        required:  a list of phrases for each line that its hypotheses hold, [] where they need not
                   hold any (translation/required.py)
        beam_size: hypotheses kept at each position; by default `config.decoding.beam_size`
        n_best:    most hypotheses of a line, of which there may be fewer; by default all
        progress:  name of a bar on stderr

        A line without text has one hypothesis without text. So has a line for which the rules of
        `config.decoding` leave no translation, with a score of -inf. Each beam size is compiled
        separately. Raises `UserError` where a line cannot be translated with its prefix, its tag or
        its phrases.
        """
        _require_for_each(lines, prefixes=prefixes, tags=tags)
        if required is not None:
            if any(isinstance(phrases, str) for phrases in required):
                raise TypeError("required has a text, but must have a list of them for each line")
            require(
                len(required) == len(lines),
                f"there are {len(lines)} lines and {len(required)} lists of required phrases: give "
                "one for each line, [] for none",
            )
        width = self.config.decoding.beam_size if beam_size is None else beam_size
        translator = self._translator(width)
        most = width if n_best is None else n_best
        require(1 <= most <= width, f"n_best is {n_best}, but must be from 1 to beam_size {width}")
        with jax.transfer_guard("disallow"):
            found = translator.translate(
                self.params,
                lines,
                prefixes=prefixes,
                tags=tags,
                required=required,
                progress=progress,
            )
        if self.risk_metric is not None:
            found = [rank_by_risk(samples, self.risk_metric) for samples in found]
        if count := count_untranslated(found):
            self._tell(describe_untranslated(count, self.config.decoding))
        return [hypotheses[:most] for hypotheses in found]

    def _tell(self, note: str) -> None:
        """Leaves a note about translations to commands, which count what it is about."""

    def token_details(self, hypotheses: Sequence[Hypothesis]) -> list[TokenDetails]:
        """Returns the tokens of translations that `search` has found: how probable each was, and
        which source token it renders.

        Log probabilities are those of the whole vocabulary, as `pair_scores` has them.
        """
        if self._explainer is None:
            self._explainer = TokenExplainer(
                self.module, self.config, self.tokenizer, self._mesh, self._scorer()
            )
        return self._explainer.explain(self.params, hypotheses)

    def pair_scores(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        tags: Sequence[str] | None = None,
        progress: str | None = None,
    ) -> list[PairScore]:
        """Returns how probable each target is as the translation of its source, token by token.

        tags:     as in `search`
        progress: name of a bar on stderr

        Raises `UserError` where the numbers of lines differ, and for a pair that is longer than the
        positions that the model has learned.
        """
        require(
            len(sources) == len(targets),
            f"there are {len(sources)} sources and {len(targets)} targets: give one target for "
            "each source",
        )
        _require_for_each(sources, tags=tags)
        return self._scorer().score(self.params, sources, targets, tags, progress)

    def _scorer(self) -> PairScorer:
        if self._pair_scorer is None:
            self._pair_scorer = PairScorer(self.module, self.config, self.tokenizer, self._mesh)
        return self._pair_scorer

    def record_search(
        self, line: str, *, beam_size: int | None = None, prefix: str = ""
    ) -> RecordedSearch:
        """Returns what `search` does for one line, position by position.

        A line of several sentences is translated as a whole. Raises `UserError` where it is too
        long for that, and as `search`.
        """
        width = self.config.decoding.beam_size if beam_size is None else beam_size
        with jax.transfer_guard("disallow"):
            return self._translator(width).record_search(self.params, line, prefix)

    def programs_ahead(self, beam_size: int) -> list[Callable[[], object]]:
        """Returns what compiles each program that `search` and `record_search` may need."""
        return self._translator(beam_size).programs_ahead(self.params)

    def _translator(self, beam_size: int) -> Translator:
        """Returns the translator of `config` with that beam; it keeps what it has compiled."""
        if beam_size not in self._translators:
            decoding = dataclasses.replace(self.config.decoding, beam_size=beam_size)
            config = dataclasses.replace(self.config, decoding=decoding)
            trained = self.progress.trained_lengths
            self._translators[beam_size] = Translator(
                config, self.tokenizer, self._mesh, trained, self._rows_ahead, self.module
            )
        return self._translators[beam_size]


def _require_for_each(lines: Sequence[str], **others: Sequence[str] | None) -> None:
    """Raises unless `others`, by name, are None or have a text for each line.

    `TypeError` where one text stands for a list, else `UserError`.
    """
    for name, texts in {"lines": lines, **others}.items():
        if isinstance(texts, str):
            raise TypeError(f"{name} is one text, but must be a list of them: [text]")
        require(
            texts is None or len(texts) == len(lines),
            f"there are {len(lines)} lines and {len(texts or ())} {name}: give one for each line, "
            '"" for none',
        )
