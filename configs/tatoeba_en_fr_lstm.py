"""Tatoeba, English to French, 162,000 short everyday sentences: LSTMs with attention.

Without input feeding attention leaves the loop over positions, so that both layers of the decoder
run over whole rows: the quickest of the recurrent models with attention.

Command:  python train.py --config configs/tatoeba_en_fr_lstm.py --data.directory DIR
          python evaluate.py --workdir runs/tatoeba_en_fr_lstm
Hardware: 2 CPU cores; not yet run at this length. A model like this of width 272 has a BLEU of
          36.0 after 12 minutes of one core (docs/comparison.md).
Data:     DIR holds train.en, train.fr, valid.*, test.* (README, "Data").
"""

from flax_transformer.config import (
    BatchConfig,
    Config,
    DecodingConfig,
    OptimizerConfig,
    RecurrentConfig,
    TextFiles,
    TokenizerConfig,
    TrainingConfig,
)

config = Config(
    data=TextFiles(directory="data/tatoeba.en-fr", source_language="en", target_language="fr"),
    tokenizer=TokenizerConfig(vocabulary_size=8000),
    # French takes more pieces than English.
    batch=BatchConfig(rows=96, source_length=40, target_length=48),
    model=RecurrentConfig(
        num_encoder_layers=2,
        num_decoder_layers=2,
        d_model=320,
        input_feeding=False,
        dropout=0.2,
    ),
    # A peak rate of 0.002.
    optimizer=OptimizerConfig(
        learning_rate_scale=0.8, warmup_steps=500, cooldown_steps=1200, clip_norm=1.0
    ),
    training=TrainingConfig(
        steps=2600, evaluate_every=400, checkpoint_every=50, keep_checkpoints=5
    ),
    # Longer lines than the model was trained on are translated in pieces.
    decoding=DecodingConfig(max_source_length=40),
)
