"""A run's model, ready to translate: `TrainedModel(Path("runs/base"), config).translate(lines)`."""

from collections.abc import Sequence
from pathlib import Path

import jax

from flax_transformer.config import Config, MeshConfig
from flax_transformer.data.training_data import TOKENIZER_FILE
from flax_transformer.evaluation.translator import Hypothesis, Translator
from flax_transformer.sharding import build_mesh
from flax_transformer.tokenizer import Tokenizer
from flax_transformer.training.checkpoints import load_parameters


class TrainedModel:
    """The averaged parameters of a work directory's last checkpoints, and a translator for them.

    steps: of the checkpoints averaged. translator: counts tokens, compilations and long lines.
    """

    def __init__(self, workdir: Path, config: Config):
        """`config`: of the run, as `load_config` reads it; its `decoding` may be changed.

        Raises `ConfigError` where the work directory lacks a vocabulary or checkpoints.
        """
        self.config = config
        tokenizer = Tokenizer.load(workdir / TOKENIZER_FILE, config.tokenizer.vocabulary_size)
        # Every device translates sentences of its own, however many the run was trained on.
        mesh = build_mesh(MeshConfig())
        self._params, self.steps = load_parameters(
            workdir, config, mesh, config.decoding.average_checkpoints
        )
        self.translator = Translator(config, tokenizer, mesh)

    def translate(
        self, lines: Sequence[str], *, progress: str | None = None
    ) -> list[list[Hypothesis]]:
        """As `Translator.translate`."""
        with jax.transfer_guard("disallow"):
            return self.translator.translate(self._params, lines, progress=progress)
