"""What a comparison found, as one tree of plain numbers: what record, tables and pictures show.

All is read from the systems' work directories.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.compare.arguments import Arguments, System
from benchmarks.compare.systems import parameters
from benchmarks.compare.training import (
    learning_curve,
    seconds_to_loss,
    training_seconds,
    training_tokens,
)
from flax_transformer.checkpoints.loading import load_parameters
from flax_transformer.config import Config, MeshConfig
from flax_transformer.config.json import config_to_dict
from flax_transformer.diagnosis.alignment import align
from flax_transformer.evaluation.report import TestSet, hypotheses_path, report_path
from flax_transformer.evaluation.source_length import bleu_by_source_length
from flax_transformer.models.initialization import abstract_params
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.text.vocabulary_file import load_tokenizer
from flax_transformer.training.metrics import read_metrics
from flax_transformer.workdir import TOKENIZER_FILE


def collect(
    arguments: Arguments, systems: dict[System, Config], sets: Sequence[TestSet]
) -> dict[str, Any]:
    """Reads the figures of all `systems`, trained and scored on `sets`."""
    found: dict[str, dict[str, Any]] = {
        system: _trained(config, arguments.workdir / system)
        | {"test_sets": {one.name: _scored(arguments.workdir / system, one) for one in sets}}
        for system, config in systems.items()
    }
    target = arguments.target_loss
    if target is None:
        target = max(figures["curve"][-1]["loss"] for figures in found.values())
    for system, figures in found.items():
        curve = learning_curve(read_metrics(arguments.workdir / system))
        figures["seconds_to_target_loss"] = seconds_to_loss(curve, target)
    shared = config_to_dict(next(iter(systems.values())))
    return {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "minutes": arguments.minutes,
        "pairs": arguments.pairs,
        "seed": arguments.seed,
        **{section: shared[section] for section in ("tokenizer", "batch", "decoding", "training")},
        "target_loss": target,
        "systems": found,
        "alignments": _alignments(arguments, systems),
    }


def _trained(config: Config, workdir: Path) -> dict[str, Any]:
    """Size, speed and learning curve of one system."""
    lines = read_metrics(workdir)
    seconds, tokens = training_seconds(lines), training_tokens(lines)
    return {
        "parameters": parameters(config),
        "model": dataclasses.asdict(config.model),
        "optimizer": dataclasses.asdict(config.optimizer),
        "steps": lines[-1]["step"],
        "training_seconds": seconds,
        "target_tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "curve": [dataclasses.asdict(point) for point in learning_curve(lines)],
    }


def _scored(workdir: Path, test_set: TestSet) -> dict[str, Any]:
    """Scores of one system on one test set, as a whole and by length."""
    record = json.loads(report_path(workdir, test_set).read_text(encoding="utf-8"))
    text = hypotheses_path(workdir, test_set).read_text(encoding="utf-8")
    hypotheses = text.split("\n")[:-1]
    bins = bleu_by_source_length(test_set.sources, hypotheses, test_set.references)
    names = ("sentences", "sentences_cut", "bleu", "bleu_signature", "chrf", "chrf_signature")
    return {name: record[name] for name in names} | {
        "by_source_words": [
            {"words": one.name, "too_few": one.too_few, **dataclasses.asdict(one)} for one in bins
        ]
    }


def _alignments(arguments: Arguments, systems: dict[System, Config]) -> dict[str, Any]:
    """Of each system that has attention: the pieces of both sentences, and the weights (t,s)."""
    tokenizer = load_tokenizer(arguments.workdir / TOKENIZER_FILE)
    mesh, found = build_mesh(MeshConfig(data=1), jax.devices()[:1]), {}
    for system, config in systems.items():
        if not config.model.attends_to_source:
            continue
        params = load_parameters(
            arguments.workdir / system, config, abstract_params(config, mesh)
        ).params
        drawn = align(config, params, tokenizer, arguments.sentence, arguments.translation)
        found[system] = drawn._asdict() | {"weights": drawn.weights.round(3).tolist()}
    return found
