"""The arithmetic of a training step, and the most that a device can do."""

from flax_transformer.config import Config
from flax_transformer.data.packing import Batch

# Dense bfloat16 products a second, by a part of the device's name; the makers' data sheets.
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12}

FORMULA = (
    "MFU = tokens/s x flops a token / peak; flops of a step = 6 x (S (Le (4 d^2 + 2 d f) + "
    "Ld 2 d^2) + T (Ld (6 d^2 + 2 d f) + d v) + 2 d (Le sum s^2 + Ld sum (t^2 + s t))), "
    "for S source and T target tokens in sentences of s and t; padding and what is computed twice "
    "do not count, the causal half of t^2 does"
)


def step_flops(config: Config, batch: Batch) -> float:
    """Additions and multiplications of the matrix products of forward and backward pass that
    `batch` needs; the formula is FORMULA."""
    model, vocabulary = config.model, config.tokenizer.vocabulary_size
    d, f = model.d_model, model.d_ff
    encoder, decoder = model.num_encoder_layers, model.num_decoder_layers
    source = batch.source_segments > 0
    target = batch.target_segments > 0
    # Keys that each token sees: those of its own sentence.
    seen_by_source = _keys(batch.source_segments, batch.source_segments)
    seen_by_target = _keys(batch.target_segments, batch.target_segments)
    seen_across = _keys(batch.target_segments, batch.source_segments)
    products = (
        source.sum() * (encoder * (4 * d * d + 2 * d * f) + decoder * 2 * d * d)
        + target.sum() * (decoder * (6 * d * d + 2 * d * f) + d * vocabulary)
        + 2 * d * (encoder * seen_by_source + decoder * (seen_by_target + seen_across))
    )
    return 6.0 * float(products)


def _keys(queries, keys) -> int:
    """Number of (query, key) in the same sentence, for segments (b,t) and (b,s)."""
    same = (queries[:, :, None] == keys[:, None, :]) & (queries > 0)[:, :, None]
    return int(same.sum())


def peak_flops(device_kind: str) -> float | None:
    """Peak of the device, where it is known."""
    return next((peak for name, peak in PEAK_FLOPS.items() if name in device_kind), None)
