"""Built-in English to French sentences: from nothing to a working translator in minutes, on a CPU.

Command:  python train.py --config configs/quickstart.py
          python evaluate.py --workdir runs/quickstart
Hardware: 2 CPU cores with AVX2 alone; 5.6 minutes with the installation.
Score:    BLEU 96.0 on test, 95.7 on test_compositional (combinations never seen in training).
"""

from flax_transformer.config import (
    BatchConfig,
    Builtin,
    Config,
    DecodingConfig,
    OptimizerConfig,
    TokenizerConfig,
    TrainingConfig,
    TransformerConfig,
)

config = Config(
    data=Builtin(num_pairs=40_000),
    tokenizer=TokenizerConfig(vocabulary_size=2000),
    # The longest sentences have 45 and 50 tokens.
    batch=BatchConfig(rows=32, source_length=48, target_length=56),
    model=TransformerConfig(
        num_encoder_layers=2,
        num_decoder_layers=2,
        d_model=128,
        num_heads=4,
        d_ff=512,
        # Three passes over 40,000 different pairs leave nothing to learn by heart.
        dropout=0.0,
        unroll_layers=2,
    ),
    optimizer=OptimizerConfig(warmup_steps=150, cooldown_steps=690),
    training=TrainingConfig(
        steps=840,
        evaluate_every=420,
        validation_sentences=200,
        checkpoint_every=20,
    ),
    # Longer lines than the model was trained on are translated in pieces.
    decoding=DecodingConfig(max_source_length=48),
)
