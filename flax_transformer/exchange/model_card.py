"""The README of an exported model: where it comes from, how good it is, how it is opened."""

import json
from pathlib import Path

from flax_transformer import __version__
from flax_transformer.config import Config, TextFiles, Tfds, TransformerConfig
from flax_transformer.translation.trained_model import TrainedModel
from flax_transformer.workdir import EVALUATION


def model_card(model: TrainedModel, target: str, quantization: str | None, usage: str) -> str:
    """Returns the card as Markdown."""
    config = model.config
    size = sum(leaf.size for leaf in _leaves(model.params))
    source, translation = _languages(config)
    steps = ", ".join(f"{step:,}" for step in model.steps)
    scores = "".join(f"| {name} | {score} |\n" for name, score in _scores(model.workdir))
    table = f"| test set | BLEU |\n|---|---:|\n{scores}" if scores else "It was not scored.\n"
    return (
        f"# {source} to {translation}\n\n"
        f"A translation model of flax_transformer {__version__}, as {target}"
        f"{f', {quantization}' if quantization else ''}.\n\n"
        f"- model: {_describe(config)}, {size:,} parameters\n"
        f"- data: {_data(config)}\n"
        f"- parameters: {model.choice}, of step {steps}\n\n"
        "Its terms are those of the data that it was trained on.\n\n"
        f"## Scores\n\n{table}\n## Use\n\n```python\n{usage}\n```\n"
    )


def _leaves(params):
    import jax

    return jax.tree.leaves(params)


def _languages(config: Config) -> tuple[str, str]:
    data = config.data
    if isinstance(data, (TextFiles, Tfds)):
        return data.source_language, data.target_language
    return "English", "French"


def _describe(config: Config) -> str:
    model = config.model
    if isinstance(model, TransformerConfig):
        return (
            f"Transformer, {model.num_encoder_layers} + {model.num_decoder_layers} layers, width "
            f"{model.d_model}, {model.num_heads} heads, feed-forward {model.d_ff}"
        )
    return f"recurrent, width {model.d_model}"


def _data(config: Config) -> str:
    data = config.data
    if isinstance(data, TextFiles):
        return ", ".join(data.train)
    return data.name if isinstance(data, Tfds) else "the grammar of flax_transformer"


def _scores(workdir: Path) -> list[tuple[str, str]]:
    """Test sets and their BLEU, as the last evaluation has found them."""
    found = []
    folder = workdir / EVALUATION
    for path in sorted(folder.rglob("*.json")):
        try:
            bleu = json.loads(path.read_text(encoding="utf-8")).get("bleu")
        except (ValueError, OSError, AttributeError):
            continue
        if isinstance(bleu, (int, float)):
            found.append((str(path.relative_to(folder).with_suffix("")), f"{bleu:.2f}"))
    return found
