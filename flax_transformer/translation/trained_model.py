"""A run's model, ready to translate: `TrainedModel(Path("runs/base"), config).translate(lines)`."""

from collections.abc import Sequence
from pathlib import Path

import jax

from flax_transformer.checkpoints.averaging import load_parameters
from flax_transformer.config import Config, MeshConfig
from flax_transformer.errors import ConfigError
from flax_transformer.models.initialization import abstract_params
from flax_transformer.ops.compute_dtype import decoding_config
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.text.tokenizer import Tokenizer
from flax_transformer.translation.hypotheses import Hypothesis
from flax_transformer.translation.translator import Translator
from flax_transformer.workdir import TOKENIZER_FILE


class TrainedModel:
    """The parameters of a work directory that `config.decoding` chooses, and a translator for them.

    steps: of the checkpoints averaged. choice: which were asked for. notes: for a person, about the
    choice. progress: what the run remembered at the last of the steps. translator: counts tokens,
    compilations and long lines.
    """

    def __init__(self, workdir: Path, config: Config):
        """`config`: of the run, as `load_config` reads it; its `decoding` may be changed. Matrix
        products are those of the run, but in float32 where bfloat16 is only emulated.

        Raises `ConfigError` where the work directory lacks a vocabulary or checkpoints, or where
        the vocabulary is not that of the checkpoints.
        """
        # Every device translates sentences of its own, however many the run was trained on.
        mesh = build_mesh(MeshConfig())
        self.config = config = decoding_config(config, mesh.devices.flat[0])
        tokenizer = Tokenizer.load(workdir / TOKENIZER_FILE, config.tokenizer.vocabulary_size)
        self._params, self.steps, self.choice, self.progress, self.notes = load_parameters(
            workdir, config, abstract_params(config, mesh)
        )
        if self.progress.tokenizer != tokenizer.fingerprint:
            raise ConfigError(
                f"{workdir / TOKENIZER_FILE} is not the vocabulary that the checkpoints were "
                "trained with: put that one back"
            )
        self.translator = Translator(config, tokenizer, mesh, self.progress.trained_lengths)

    def translate(
        self, lines: Sequence[str], *, progress: str | None = None
    ) -> list[list[Hypothesis]]:
        """As `Translator.translate`."""
        with jax.transfer_guard("disallow"):
            return self.translator.translate(self._params, lines, progress=progress)
