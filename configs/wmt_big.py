"""WMT14 English to German, the paper's big model (Table 3, row "big") to the letter.

Command:  python train.py --config configs/wmt_big.py
          pip install sacremoses
          python evaluate.py --workdir runs/wmt_big --compound-split
Hardware: TPU or GPU (there --model.remat nothing is faster); the paper took 3.5 days on
          8 P100. On one device with too little memory add --training.accumulation-steps 4.
Score:    the paper reports 28.4 on newstest2014 (tokenised, compounds split, beam 4, alpha 0.6,
          the last 20 checkpoints averaged), which is about 27.7 in sacreBLEU. This project has not
          yet run it.
Data:     TFDS wmt14_translate/de-en, 4.5 million pairs; downloaded and prepared at the first run.
"""

from flax_transformer.config import (
    BatchConfig,
    Config,
    DecodingConfig,
    OptimizerConfig,
    Tfds,
    TokenizerConfig,
    TrainingConfig,
    TransformerConfig,
)

config = Config(
    data=Tfds(name="wmt14_translate/de-en", source_language="en", target_language="de"),
    tokenizer=TokenizerConfig(vocabulary_size=37_000, training_sentences=4_000_000),
    batch=BatchConfig(rows=100, source_length=256, target_length=256),
    model=TransformerConfig(
        num_encoder_layers=6,
        num_decoder_layers=6,
        d_model=1024,
        num_heads=16,
        d_ff=4096,
        dropout=0.3,
        # On a TPU v5e half the temporaries and 40% less traffic (benchmarks/notebook.md).
        remat="dots",
    ),
    optimizer=OptimizerConfig(warmup_steps=4000, beta1=0.9, beta2=0.98, epsilon=1e-9),
    training=TrainingConfig(
        steps=300_000,
        label_smoothing=0.1,
        evaluate_every=10_000,
        # Every ten minutes or so on the paper's hardware, as in Section 6.1.
        checkpoint_every=600,
        keep_checkpoints=20,
    ),
    decoding=DecodingConfig(
        beam_size=4, length_penalty=0.6, extra_length=50, average_checkpoints=20
    ),
)
