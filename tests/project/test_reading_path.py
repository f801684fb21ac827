"""How much a reader must read to follow a setting through the model and the step to the command.

The path begins at the files that the README names, and goes on to every module of ours that one on
the path imports, at its top or in a function, but for those that a reader can pass by: plumbing,
which keeps a run alive and its files whole, and side roads, which are stories of their own.
"""

import ast
import re
from pathlib import Path

from test_layers import MODULES, PACKAGE, file_of, imports, name_of

START = ("config.run", "config.model", "models.transformer", "training.step", "commands.train")

PLUMBING = {
    "errors": "what ends a command with a message",
    "files": "files that are written whole or not at all",
    "workdir": "names of files",
    "runtime": "signals, streams, exit codes, what XLA is told",
    "parallel.hosts": "processes that meet and keep in step",
    "parallel.console": "the progress bar",
    "checkpoints": "how a state is written, checked and read",
    "commands.command_line": "flags",
    "config.json": "settings as a file",
    "config.setting_types": "types of settings",
    "parallel.rows": "which rows of a batch a process makes",
    "training.opening": "a state restored, or created",
    "training.run_lock": "one training at a time in a folder",
    "training.run_settings": "settings that bind a run which goes on",
    "training.same_text": "text and vocabulary that bind a run which goes on",
    "training.(log|metrics)": "lines for a person and lines of metrics",
    "training.divergence": "what ends a run with a message",
    r"ops\.(\w+_tpu|\w+_gpu|gpus)": "kernels of one platform",
    r"parallel\.collectives": "what each device computes of its own part",
}
SIDE_ROADS = {
    "data": "from text to packed rows",
    "config.data": "where the text lies",
    "config.tokenizer": "how the vocabulary is made",
    "config.recurrent": "of the other family",
    r"(config|models)\.conventions": "models that others have trained",
    "config.decoding": "search",
    "config.hosts": "where processes find each other",
    "text": "from text to ids",
    "models.recurrent": "the other family of models",
    "models.incremental": "one token after the other, for search",
    "ops.beam_cache": "what search keeps of the tokens before",
    r"ops\.(lstm|recurrence)": "of the other family",
    "training.starting_point": "fine-tuning",
    "training.teacher_forcing": "of the other family: scheduled sampling",
    "decoding": "search",
    "translation": "search over lines of text",
    "evaluation": "scores",
    "training.final_scores": "scores once a run is complete",
    "diagnosis": "train.py --diagnose",
    "dry_run": "train.py --dry-run",
}

MOST = 1_400
"""Lines that are not blank."""


def is_left_out(module: str) -> bool:
    """Whether `module`, named from the package on, or its folder is plumbing or a side road."""
    return any(re.fullmatch(rf"{known}(\..*)?", module) for known in PLUMBING | SIDE_ROADS)


def lines_to_read(module: str, path: Path) -> int:
    """Lines that are not blank; of a file of `ops`, which makes lines fast, the plain ones alone:
    its functions `..._reference`. The one place that chooses is read whole."""
    text = path.read_text("utf-8")
    if not module.startswith("ops.") or module == "ops.kernels":
        return sum(bool(line.strip()) for line in text.splitlines())
    references = [
        ast.unparse(node)
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and node.name.endswith("_reference")
    ]
    return sum(bool(line.strip()) for one in references for line in one.splitlines())


def modules_on_the_path() -> dict[str, int]:
    """Lines that are not blank, by module."""
    found: dict[str, int] = {}
    waiting = list(START)
    while waiting:
        name = waiting.pop()
        path = file_of(f"{PACKAGE}.{name}")
        assert path, f"{name} is no module"
        found[name] = lines_to_read(name, path)
        ours = {module.removeprefix(PACKAGE + ".") for module in imports(path) if file_of(module)}
        waiting += [other for other in ours - found.keys() - set(waiting) if not is_left_out(other)]
    return found


def test_the_path_of_a_reader_is_short():
    found = modules_on_the_path()
    lines = sorted(((count, name) for name, count in found.items()), reverse=True)
    table = "\n".join(f"{count:6,}  {name}" for count, name in lines)
    total = sum(found.values())
    print(f"{total:,} lines\n{table}")
    assert total <= MOST, f"{total:,} lines, but at most {MOST:,} should be on the path:\n{table}"


def test_the_path_holds_the_loop_the_step_and_the_model():
    assert {
        "training.train_loop", "training.run", "training.state",
        "training.optimizer", "ops.kernels", "ops.cross_entropy", "batch",
    } <= modules_on_the_path().keys()  # fmt: skip


def test_what_is_left_out_exists():
    names = [name_of(path).removeprefix(PACKAGE + ".") for path in MODULES]
    for known in PLUMBING | SIDE_ROADS:
        assert any(re.fullmatch(rf"{known}(\..*)?", name) for name in names), known
    assert not any(map(is_left_out, START))
