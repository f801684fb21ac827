"""Multi30k, English to German, lower-cased and tokenised: LSTMs with attention, 4.3M parameters.

What the Transformer of configs/multi30k_en_de.py replaced, with the same vocabulary: an encoder in
both directions (Bahdanau et al. 2015), general attention and input feeding (Luong et al. 2015).

Command:  python train.py --config configs/multi30k_en_de_lstm.py --data.directory DIR
          python evaluate.py --workdir runs/multi30k_en_de_lstm --tokenize none
Hardware: one of 2 CPU cores; 75 minutes with other jobs beside it.
Score:    BLEU 37.6 on test_2016_flickr, in sacreBLEU of the tokenised text.
Data:     DIR holds train.en, train.de, valid.*, test_2016_flickr.* (README, "Data").
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
    data=TextFiles(
        directory="data/multi30k.tok",
        source_language="en",
        target_language="de",
        test=("test_2016_flickr",),
    ),
    tokenizer=TokenizerConfig(vocabulary_size=10_000),
    # A loop over 48 positions of 88 rows is quicker than one over 64 of 64.
    batch=BatchConfig(rows=88, source_length=48, target_length=48),
    model=RecurrentConfig(num_encoder_layers=2, num_decoder_layers=1, d_model=256, dropout=0.4),
    # A peak rate of 0.002.
    optimizer=OptimizerConfig(
        learning_rate_scale=0.72, warmup_steps=500, cooldown_steps=2000, clip_norm=1.0
    ),
    training=TrainingConfig(
        steps=4000,
        evaluate_every=500,
        checkpoint_every=100,
        keep_checkpoints=10,
    ),
    decoding=DecodingConfig(average_checkpoints=10, max_source_length=48),
)
