"""Multi30k, English to German, lower-cased and tokenised: Transformer-tiny, 2.6M parameters.

Command:  python train.py --config configs/multi30k_en_de.py --data.directory DIR
          python evaluate.py --workdir runs/multi30k_en_de --tokenize none
Hardware: 2 CPU cores, 93 minutes (seed 1), with tests beside it for an hour; on one of them, with
          other jobs on both, 153 (seed 0).
Score:    BLEU 41.03 (seed 0) and 40.95 (seed 1) on test_2016_flickr, in sacreBLEU of the tokenised
          text. Wu et al. 2021 report 41.02 for this model, trained as long: up to 8,000 updates of
          2 x 4,096 tokens.
Data:     DIR holds train.en, train.de, valid.*, test_2016_flickr.* (README, "Data").
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
        directory="data/multi30k.tok",
        source_language="en",
        target_language="de",
        test=("test_2016_flickr",),
    ),
    tokenizer=TokenizerConfig(vocabulary_size=10_000),
    batch=BatchConfig(rows=128, source_length=64, target_length=64),
    model=TransformerConfig(
        num_encoder_layers=4,
        num_decoder_layers=4,
        d_model=128,
        num_heads=4,
        d_ff=256,
        dropout=0.3,
        unroll_layers=4,
    ),
    # A peak rate of 0.005, as in the published recipe.
    optimizer=OptimizerConfig(learning_rate_scale=2.53, warmup_steps=2000, cooldown_steps=2500),
    training=TrainingConfig(
        steps=8000,
        evaluate_every=1000,
        checkpoint_every=100,
        keep_checkpoints=10,
    ),
    decoding=DecodingConfig(average_checkpoints=10, max_source_length=64),
)
