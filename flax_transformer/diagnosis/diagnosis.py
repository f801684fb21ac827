"""Why does a run not learn? `train.py --diagnose`: figures, and in plain words what they mean."""

import dataclasses
import json
from typing import Any

from flax_transformer.diagnosis.figures import Figures, measure
from flax_transformer.diagnosis.findings import Finding, find
from flax_transformer.diagnosis.report import describe
from flax_transformer.files.whole_file import write_whole
from flax_transformer.parallel.console import Console
from flax_transformer.parallel.hosts import is_first_process
from flax_transformer.training.run import Run
from flax_transformer.workdir import DIAGNOSIS_FILE


def diagnose(run: Run) -> None:
    """Prints what is wrong with `run`, which stays as it is, and writes DIAGNOSIS_FILE.

    Raises `UserError` where the file cannot be written.
    """
    figures = measure(run)
    findings = find(run.config, figures)
    path = run.workdir / DIAGNOSIS_FILE
    if is_first_process():
        write_whole(path, json.dumps(as_record(figures, findings), indent=2) + "\n")
    Console.say("\n".join(describe(run.config, figures, findings)))
    Console.say(f"\nall figures: {path}")


def as_record(figures: Figures, findings: list[Finding]) -> dict[str, Any]:
    """Returns what DIAGNOSIS_FILE holds; what is not finite, which JSON lacks, becomes text."""
    record: dict[str, Any] = {"findings": [dataclasses.asdict(finding) for finding in findings]}
    record |= dataclasses.asdict(figures)
    record["modules"] = [
        dataclasses.asdict(module) | {"ratio": module.ratio} for module in figures.modules
    ]
    record["attention"] = {
        name: {field: values.tolist() for field, values in found._asdict().items()}
        for name, found in figures.attention.items()
    }
    plain: dict[str, Any] = json.loads(json.dumps(record), parse_constant=str)
    return plain
