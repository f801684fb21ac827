"""English to French in everyday sentences: the model en-fr-small that comes with the package.

Command:  python -m benchmarks.en_fr_small_data --tatoeba DIR --europarl DIR
          python train.py --config configs/en_fr_small.py
          flax-transformer export --workdir runs/en_fr_small --format safetensors --output DIR
          (with --quantization bfloat16, and unroll_layers 1, which compiles sooner)
Hardware: 2 CPU cores; under two hours with other jobs beside it.
Score:    BLEU 42.4 on 2,000 sentences of Tatoeba, 19.9 on 200 short ones of the news.
Data:     Tatoeba and Europarl v7 (README, "Data").
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
    data=TextFiles(
        directory="data/en_fr_small",
        source_language="en",
        target_language="fr",
        train=("tatoeba,weight=3", "europarl"),
    ),
    tokenizer=TokenizerConfig(vocabulary_size=8000),
    # French takes more pieces than English.
    batch=BatchConfig(rows=24, source_length=56, target_length=64),
    # A deep encoder and a shallow decoder translate as well, and sooner (Kasai et al. 2021).
    model=TransformerConfig(
        num_encoder_layers=4,
        num_decoder_layers=2,
        d_model=208,
        num_heads=8,
        d_ff=832,
        unroll_layers=4,
    ),
    optimizer=OptimizerConfig(warmup_steps=1000, cooldown_steps=3000),
    training=TrainingConfig(
        steps=6800, evaluate_every=1600, checkpoint_every=50, keep_checkpoints=5
    ),
    # Longer lines than the model was trained on are translated in pieces.
    # Few more tokens than the source has: the search compiles in half the time.
    decoding=DecodingConfig(max_source_length=56, extra_length=16),
)
