"""Imports point downward only."""

import ast
import sys
from pathlib import Path

import pytest

from flax_transformer.commands import main

ROOT = Path(__file__).parents[2]
PACKAGE = "flax_transformer"
MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))
COMMANDS = [ROOT / PACKAGE / "commands" / f"{name}.py" for name in main.COMMANDS]

# What every folder may use; all else lies in a folder.
AT_THE_ROOT = {"", "batch", "errors", "workdir"}

FORBIDDEN = {
    "data": {"jax", "flax", "optax", "chex", "orbax"},
    "text": {"jax", "flax", "optax", "chex", "orbax"},
    "models": {f"{PACKAGE}.data"},
    "ops": {f"{PACKAGE}.models"},
    "decoding": {f"{PACKAGE}.models", f"{PACKAGE}.data"},
    "checkpoints": {f"{PACKAGE}.training"},
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


def imports_between_parts() -> dict[str, dict[str, str]]:
    """By part, the other parts that it imports, with an example of an import each."""
    found: dict[str, dict[str, str]] = {}
    for path in MODULES:
        name = name_of(path)
        own = found.setdefault(part_of(name), {})
        for module in sorted(imports(path)):
            if begins_with(module, {PACKAGE}) and part_of(module) != part_of(name):
                own.setdefault(part_of(module), f"{name} imports {module}")
    return found


def test_no_circle_of_parts():
    """The layers follow from the imports: take away, again and again, what imports nothing left."""
    above = imports_between_parts()
    while lowest := {part for part in above if not above.keys() & above[part].keys()}:
        above = {part: above[part] for part in above.keys() - lowest}
    circle = [
        example
        for part in sorted(above)
        for other, example in above[part].items()
        if other in above
    ]
    assert not circle, "\n".join(circle)


def test_what_lies_at_the_root():
    loose = {part_of(name_of(path)) for path in (ROOT / PACKAGE).glob("*.py")}
    assert loose == AT_THE_ROOT


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_what_a_part_must_not_know(path):
    for module in imports(path):
        forbidden = FORBIDDEN.get(part_of(name_of(path)), ())
        assert not begins_with(module, forbidden), f"{path} imports {module}"


@pytest.mark.parametrize("name", ["data", "hosts", "model", "run", "setting_types"])
def test_settings_import_the_standard_library_only(name):
    for module in imports(ROOT / PACKAGE / "config" / f"{name}.py"):
        own = begins_with(module, {f"{PACKAGE}.config", f"{PACKAGE}.errors"})
        assert own or module.split(".")[0] in sys.stdlib_module_names, module


@pytest.mark.parametrize("path", COMMANDS, ids=name_of)
def test_commands_load_heavy_libraries_late(path):
    """--help must answer at once: nothing that a command reaches at its top imports jax."""
    reached, waiting = set(), [path]
    while waiting:
        for module in imports(waiting.pop(), top_level_only=True) - reached:
            reached.add(module)
            waiting += [file] if (file := file_of(module)) else []
    heavy = {name for name in reached if not begins_with(name, {PACKAGE})} - {"tyro"}
    assert {name.split(".")[0] for name in heavy} <= set(sys.stdlib_module_names)
    assert f"{PACKAGE}.commands.command_line" in reached


def test_rules_have_something_to_judge():
    assert {path.name for path in COMMANDS} >= {"train.py"}
    parts = imports_between_parts()
    assert "models" in parts["training"] and "ops" in parts["models"]
    assert "jax" in imports(ROOT / PACKAGE / "models" / "transformer.py")
    assert f"{PACKAGE}.training.run" in imports(ROOT / PACKAGE / "commands" / "train.py")
    assert f"{PACKAGE}.training.run" not in imports(
        ROOT / PACKAGE / "commands" / "train.py", top_level_only=True
    )
