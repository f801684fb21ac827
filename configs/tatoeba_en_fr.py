"""Tatoeba, English to French, 162,000 short everyday sentences: a small model on a laptop.

Command:  python train.py --config configs/tatoeba_en_fr.py --data.directory DIR
          python evaluate.py --workdir runs/tatoeba_en_fr
Hardware: 2 CPU cores; 78 minutes with other jobs beside it.
Score:    BLEU 46.2 on test.
Data:     DIR holds train.en, train.fr, valid.*, test.* (README, "Data").
"""

from flax_transformer.config import (
    BatchConfig,
    Config,
    DecodingConfig,
    OptimizerConfig,
    TextFiles,
    TokenizerConfig,
    TrainingConfig,
    TransformerConfig,
)

config = Config(
    data=TextFiles(directory="data/tatoeba.en-fr", source_language="en", target_language="fr"),
    tokenizer=TokenizerConfig(vocabulary_size=8000),
    # French takes more pieces than English.
    batch=BatchConfig(rows=64, source_length=56, target_length=64),
    model=TransformerConfig(
        num_encoder_layers=3,
        num_decoder_layers=3,
        d_model=192,
        num_heads=6,
        d_ff=768,
        unroll_layers=3,
    ),
    optimizer=OptimizerConfig(warmup_steps=800, cooldown_steps=1400),
    training=TrainingConfig(
        steps=2800, evaluate_every=400, checkpoint_every=50, keep_checkpoints=5
    ),
    # Longer lines than the model was trained on are translated in pieces.
    decoding=DecodingConfig(max_source_length=56),
)
