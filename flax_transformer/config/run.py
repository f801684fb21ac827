"""Every setting of a run, as frozen dataclasses; those of the corpora, the vocabulary, the models
and the search are in files of their own.

A file in `configs/` builds one `Config`; the command line lays its flags over it; the result is
saved as JSON in the work directory (json.py), from where evaluation and translation read it.
A value that cannot be right raises `UserError` here, before any work begins.
"""

from dataclasses import dataclass, field
from typing import Literal

from flax_transformer.config.data import Builtin, TextFiles, Tfds
from flax_transformer.config.decoding import DecodingConfig
from flax_transformer.config.model import TransformerConfig
from flax_transformer.config.recurrent import RecurrentConfig
from flax_transformer.config.setting_types import BleuTokenizer, require_types
from flax_transformer.config.tokenizer import TokenizerConfig
from flax_transformer.errors import require, require_not_negative, require_positive


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Rows of fixed shape, each packed with several sentence pairs."""

    rows: int = 100
    """Rows in one optimizer step, over all devices."""
    source_length: int = 256
    """Source tokens in a row; longer sentences are dropped from training."""
    target_length: int = 256
    """Target tokens in a row; longer sentences are dropped from training."""
    max_length_ratio: float = 9.0
    """Pairs where one side has more than this many times the tokens of the other are dropped."""
    read_ahead: int = 4
    """Batches prepared in advance by a background thread."""

    def __post_init__(self):
        require_types(self, "batch")
        require_positive(self, "batch", "rows", "source_length", "target_length", "read_ahead")
        require(
            self.max_length_ratio >= 1,
            f"batch.max_length_ratio is {self.max_length_ratio}, but must be at least 1",
        )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam and the learning rate schedule of Section 5.3."""

    learning_rate_scale: float = 1.0
    """Factor on the paper's rate, d_model^-0.5 * min(step^-0.5, step * warmup_steps^-1.5)."""
    warmup_steps: int = 4000
    """Steps over which the rate rises linearly."""
    cooldown_steps: int = 0
    """Last steps of the run over which the rate falls linearly to zero; the paper has none."""
    beta1: float = 0.9
    """Adam's decay of the first moment."""
    beta2: float = 0.98
    """Adam's decay of the second moment."""
    epsilon: float = 1e-9
    """Adam's epsilon."""
    clip_norm: float | None = None
    """Largest global norm of the gradient; None leaves it as it is."""

    def __post_init__(self):
        require_types(self, "optimizer")
        require_positive(self, "optimizer", "warmup_steps", "epsilon")
        require_not_negative(self, "optimizer", "learning_rate_scale", "cooldown_steps")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"optimizer.{name} is {value}, but must be in [0, 1)")
        require(
            self.clip_norm is None or self.clip_norm > 0,
            f"optimizer.clip_norm is {self.clip_norm}, but must be greater than 0 (or None)",
        )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Length of the run, and what happens along the way."""

    steps: int = 100_000
    """Optimizer steps."""
    seed: int = 0
    """Seed of parameters, data order and dropout."""
    start_from: str | None = None
    """Work directory of another run, for fine-tuning: this run starts from the other's parameters
    and vocabulary instead of from random parameters and a vocabulary of its own. Optimizer, rate
    and data are those of this run."""
    start_checkpoint: Literal["auto", "average", "best", "latest"] | int = "auto"
    """With start_from: which of the other run's parameters; see decoding.checkpoint."""
    label_smoothing: float = 0.1
    """Probability taken from the true token and spread over the vocabulary (Section 5.4)."""
    teacher_forcing: Literal["always", "linear", "exponential", "inverse_sigmoid"] = "always"
    """What a recurrent decoder is fed: always the true tokens, or, by scheduled sampling, more and
    more of its own; linear, exponential and inverse_sigmoid are how the share of true tokens falls
    (Bengio et al. 2015, section 2.4)."""
    teacher_forcing_steps: int = 10_000
    """k of teacher_forcing; at step i the share is 1 - i/k, exp(-i/k) or k / (k + exp(i/k))."""
    teacher_forcing_floor: float = 0.0
    """Lowest share of true tokens: it falls no further."""
    accumulation_steps: int = 1
    """Parts into which the rows of a step are split, to save memory; one is computed at a time."""
    log_every: int = 50
    """Steps between two lines of metrics."""
    evaluate_every: int = 2000
    """Steps between two validations (loss, perplexity and BLEU)."""
    validation_sentences: int = 1000
    """Most validation sentences that are translated for BLEU at each validation."""
    bleu_tokenizer: BleuTokenizer = "auto"
    """How BLEU splits text into words, here and in evaluate.py: a tokenizer of sacreBLEU's, or
    auto, by the target language (zh for Chinese, ja-mecab, ko-mecab, char for Thai and others
    without spaces, else 13a). A run that has checkpoints keeps what auto chose."""
    patience: int = 0
    """Validations with a BLEU below the best after which the run stops early; those since the best
    and after the warm-up count. 0 never stops early."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    checkpoint_minutes: float = 0.0
    """Minutes after which a checkpoint is written between those of checkpoint_every; 0 writes none
    by time."""
    keep_checkpoints: int = 5
    """Latest checkpoints kept; evaluation averages over them. The best by BLEU is kept as well, and
    of equal ones that with the lower validation loss."""
    deterministic: bool = False
    """Whether a GPU gives the same numbers at every run, so that a resumed run equals, bit for bit,
    one that was not stopped. It takes slower kernels, none chosen by timing, and the plain formula
    of attention. It changes nothing on CPUs and TPUs, whose kernels are never chosen by timing."""

    def __post_init__(self):
        require_types(self, "training")
        require_positive(
            self, "training", "steps", "accumulation_steps", "log_every", "evaluate_every",
            "validation_sentences", "checkpoint_every", "keep_checkpoints", "teacher_forcing_steps",
        )  # fmt: skip
        require(
            0 <= self.teacher_forcing_floor <= 1,
            f"training.teacher_forcing_floor is {self.teacher_forcing_floor}: use 0 to 1",
        )
        require_not_negative(self, "training", "patience", "checkpoint_minutes")
        require(
            0 <= self.label_smoothing < 1,
            f"training.label_smoothing is {self.label_smoothing}, but must be in [0, 1)",
        )


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many devices share each kind of work; -1, once, takes the devices that are left."""

    data: int = -1
    """Devices over which batches are split and parameters copied."""
    fsdp: int = 1
    """Devices over which batches, parameters and optimizer state are split."""
    model: int = 1
    """Devices over which heads, feed-forward width and vocabulary are split."""

    def __post_init__(self):
        require_types(self, "mesh")
        sizes = (self.data, self.fsdp, self.model)
        require(
            all(size == -1 or size > 0 for size in sizes) and sizes.count(-1) <= 1,
            f"mesh is data={self.data} fsdp={self.fsdp} model={self.model}: use positive numbers "
            "and at most one -1",
        )


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of one run."""

    data: Builtin | TextFiles | Tfds = field(default_factory=Builtin)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    model: TransformerConfig | RecurrentConfig = field(default_factory=TransformerConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    decoding: DecodingConfig = field(default_factory=DecodingConfig)

    def __post_init__(self):
        require_types(self, "")
        require(
            self.batch.rows % self.training.accumulation_steps == 0,
            f"training.accumulation_steps ({self.training.accumulation_steps}) must divide "
            f"batch.rows ({self.batch.rows})",
        )
        longest = max(self.batch.source_length, self.batch.target_length)
        require(
            longest <= self.model.longest_sequence,
            f"model.max_positions ({self.model.longest_sequence}) is less than the longest "
            f"sentence ({longest} tokens) that batch.* allow: use at least {longest}",
        )
        require(
            self.optimizer.warmup_steps + self.optimizer.cooldown_steps <= self.training.steps
            or self.optimizer.cooldown_steps == 0,
            "optimizer.warmup_steps and optimizer.cooldown_steps together exceed training.steps",
        )
        require(
            self.model.can_feed_own_tokens or self.training.teacher_forcing == "always",
            f"training.teacher_forcing is {self.training.teacher_forcing}, but a Transformer sees "
            "all positions at once and can only be fed the true tokens: use always",
        )
