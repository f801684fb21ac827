"""Europarl v7, English to French, two million pairs: the paper's base model on one GPU.

Command:  python train.py --config configs/europarl_en_fr.py --data.directory DIR
          python evaluate.py --workdir runs/europarl_en_fr
Hardware: one GPU with 80 GB; this project has not yet run it.
Data:     DIR holds train-1of4.en.xz ... train-4of4.fr.xz, valid.*, test.* (README, "Data").
"""

from flax_transformer.config import (
    BatchConfig,
    Config,
    OptimizerConfig,
    TextFiles,
    TokenizerConfig,
    TrainingConfig,
    TransformerConfig,
)

config = Config(
    data=TextFiles(
        directory="data/europarl-v7.en-fr",
        source_language="en",
        target_language="fr",
        train=("train-1of4", "train-2of4", "train-3of4", "train-4of4"),
    ),
    tokenizer=TokenizerConfig(vocabulary_size=32_000),
    batch=BatchConfig(rows=128, source_length=224, target_length=256),
    model=TransformerConfig(),
    optimizer=OptimizerConfig(warmup_steps=4000, cooldown_steps=5000),
    training=TrainingConfig(steps=20_000, evaluate_every=2000, checkpoint_every=500),
)
