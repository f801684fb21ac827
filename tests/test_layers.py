"""Imports point downward only."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "flax_transformer"
MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))
SCRIPTS = sorted(ROOT.glob("*.py"))

# From the bottom up; a module imports from its own layer and from those below.
LAYERS = [
    {
        "config_error",
        "normalization",
        "ordinary_file",
        "outlived_streams",
        "placeholders",
        "sentences",
        "standard_streams",
    },
    {"byte_pairs", "setting_types", "stop_signals", "whole_file"},
    {"exit_codes"},
    {"data_config", "hosts_config", "model_config"},
    {"config", "config_json"},
    {"cache_directory", "compiled_programs", "determinism", "memory"},
    {
        "collectives",
        "command_line",
        "compute_dtype",
        "hosts",
        "interruption",
        "program",
        "rendezvous",
        "sharding",
        "tokenizer",
    },
    {"tokenizer_training"},
    {"models", "data"},
    {"decoding"},
    {"trained_model", "training", "evaluation", "inspection"},
    {"dry_run"},
]

FORBIDDEN = {
    "data": {"jax", "flax", "optax", "chex", "orbax", f"{PACKAGE}.models", f"{PACKAGE}.sharding"},
    "models": {f"{PACKAGE}.data"},
    "decoding": {f"{PACKAGE}.models", f"{PACKAGE}.data"},
}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Full names of the modules that `path` imports, those for type checkers left out."""
    names = set()
    nodes = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        if isinstance(node, ast.FunctionDef) and top_level_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name for name in submodules if file_of(name)} or {node.module}
        nodes += ast.iter_child_nodes(node)
    return names


def file_of(module: str) -> Path | None:
    """The file of a module of ours."""
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if module.startswith(PACKAGE) and candidate.is_file():
            return candidate
    return None


def part_of(module: str) -> str:
    """The first name below the package: a folder, or a module beside the folders."""
    return module.removeprefix(PACKAGE).strip(".").split(".")[0]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def begins_with(module: str, prefixes) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_imports_downward(path):
    level = {part: height for height, parts in enumerate(LAYERS) for part in parts}
    part = part_of(name_of(path))
    if not part:
        return
    assert part in level, f"{path} is in none of the layers"
    for module in imports(path):
        assert not begins_with(module, FORBIDDEN.get(part, ())), f"{path} imports {module}"
        if begins_with(module, {PACKAGE}):
            assert level[part_of(module)] <= level[part], f"{path} imports {module}, above it"


@pytest.mark.parametrize(
    "name", ["config", "data_config", "model_config", "config_error", "setting_types"]
)
def test_settings_import_the_standard_library_only(name):
    for module in imports(ROOT / PACKAGE / f"{name}.py"):
        own = begins_with(module, {PACKAGE}) and module.endswith(
            ("config", "config_error", "types")
        )
        assert own or module.split(".")[0] in sys.stdlib_module_names, module


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_scripts_load_heavy_libraries_late(path):
    """--help must answer at once: nothing that a script reaches at its top imports jax."""
    reached, waiting = set(), [path]
    while waiting:
        for module in imports(waiting.pop(), top_level_only=True) - reached:
            reached.add(module)
            waiting += [file] if (file := file_of(module)) else []
    heavy = {name for name in reached if not begins_with(name, {PACKAGE})} - {"tyro"}
    assert {name.split(".")[0] for name in heavy} <= set(sys.stdlib_module_names)
    assert f"{PACKAGE}.command_line" in reached


def test_rules_have_something_to_judge():
    assert {path.name for path in SCRIPTS} >= {"train.py"}
    assert "jax" in imports(ROOT / PACKAGE / "models" / "attention.py")
    assert f"{PACKAGE}.models.contraction" in imports(ROOT / PACKAGE / "models" / "attention.py")
    assert f"{PACKAGE}.training.trainer" in imports(ROOT / "train.py")
    assert f"{PACKAGE}.training.trainer" not in imports(ROOT / "train.py", top_level_only=True)
