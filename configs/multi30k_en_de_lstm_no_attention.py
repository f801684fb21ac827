"""Multi30k, English to German, lower-cased and tokenised: LSTMs without attention.

The decoder knows of the source what a vector of fixed size holds, the encoder's last state
(Sutskever et al. 2014): what attention was invented for. The same width and training as in
configs/multi30k_en_de_lstm.py; one direction and as many layers on both sides, as in that paper.

Command:  python train.py --config configs/multi30k_en_de_lstm_no_attention.py --data.directory DIR
          python evaluate.py --workdir runs/multi30k_en_de_lstm_no_attention --tokenize none
Hardware: 2 CPU cores.
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
    model=RecurrentConfig(
        num_encoder_layers=2,
        num_decoder_layers=2,
        d_model=256,
        bidirectional=False,
        attention="none",
        input_feeding=False,
        dropout=0.4,
    ),
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
