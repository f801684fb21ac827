"""Each setting is read in one place: what it does can be looked up there, and changed there.

A place is a module; the layers of a model lie in several, which are one place. Whatever only tells
a person about settings reads them anywhere, and so does what compares them and settles "auto".
"""

import ast
import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from flax_transformer import config as settings
from flax_transformer.config import Config
from flax_transformer.config.setting_types import alternatives, field_types

PACKAGE = Path(__file__).parents[2] / "flax_transformer"
CLASSES = {name: c for name, c in vars(settings).items() if dataclasses.is_dataclass(c)}
FREE = (
    "config/", "diagnosis/", "dry_run/", "exchange/", "inspection/", "training/run_settings.py",
)  # fmt: skip

"""What reads settings to tell a person of them, to compare them, or to settle what is left open."""

TRANSLATOR = "translation/translator.py"
EXCEPTIONS = {
    # A batch: who packs its rows, who splits them among devices and in turns.
    "BatchConfig.rows": {"data/packing.py", "parallel/rows.py", "training/run.py"},
    "TrainingConfig.accumulation_steps": {"parallel/rows.py", "training/step.py"},
    # Learned positions end there, for training and for translation.
    "BatchConfig.source_length": {"data/packing.py", "decoding/lengths.py"},
    "BatchConfig.target_length": {"data/packing.py", "decoding/lengths.py"},
    # The vocabulary is learned, extended and checked; models are built for its size.
    "TokenizerConfig.vocabulary_size": {
        "text/tokenizer_training.py", "training/starting_point.py", "data/training_data.py",
        "models", "training/step.py", "translation/trained_model.py", TRANSLATOR,
    },
    # A vocabulary that is taken over lacks some; others are put before the sources.
    "TrainingFiles.tag": {"data/text_files.py", "training/starting_point.py"},
    # The paper's learning rate depends on the width of the model.
    "TransformerConfig.d_model": {"models", "training/optimizer.py"},
    "RecurrentConfig.d_model": {"models", "training/optimizer.py"},
    # Models hand it to their operations; a run shows what was settled.
    "TransformerConfig.compute_dtype": {"models", "ops/kernels.py", "training/run.py"},
    "RecurrentConfig.compute_dtype": {"models", "ops/kernels.py", "training/run.py"},
    # The end of the loop, of the bar and of the cooldown.
    "TrainingConfig.steps": {
        "training/log.py", "training/optimizer.py", "training/run.py", "training/train_loop.py",
    },
    # Patience counts only after the warm-up.
    "OptimizerConfig.warmup_steps": {"checkpoints/progress.py", "training/optimizer.py"},
    # Data, vocabulary, parameters and dropout each draw with a seed made of it.
    "TrainingConfig.seed": {
        "data/training_data.py", "training/starting_point.py", "training/state.py",
        "training/run.py",
    },
    # Which steps are written, which of them stay, and which are averaged.
    "TrainingConfig.checkpoint_every": {
        "training/train_loop.py", "checkpoints/writing.py", "checkpoints/averaging.py",
    },
    # How BLEU is taken, whether it can be here, and whether it compares with that before.
    "TrainingConfig.bleu_tokenizer": {
        "training/validation.py", "evaluation/evaluation.py", "training/run.py",
        "training/same_text.py", "checkpoints/progress.py",
    },
    "TrainingConfig.validation_sentences": {"training/validation.py", "checkpoints/progress.py"},
    "TextFiles.target_language": {"data/text_files.py", "evaluation/bleu_tokenizer.py"},
    "Tfds.target_language": {"data/tfds_corpus.py", "evaluation/bleu_tokenizer.py"},
    # A file of parameters leaves nothing to choose.
    "DecodingConfig.checkpoint": {"checkpoints/averaging.py", "checkpoints/loading.py"},
    # Commands refuse flags, or compile ahead; a model is laid out for the search.
    "DecodingConfig.beam_size": {
        "commands/translate.py", "commands/serve.py", "translation/trained_model.py",
        "translation/search.py", "translation/minimum_risk.py",
    },
    # Many samples of few lines.
    "DecodingConfig.batch_tokens": {"translation/batching.py", "translation/minimum_risk.py"},
    # Which search it is, and whether what it finds may be equal.
    "DecodingConfig.sampling": {"translation/search.py", TRANSLATOR},
    "DecodingConfig.split_sentences": {"commands/translate.py", TRANSLATOR},
    "DecodingConfig.extra_length": {"decoding/lengths.py", "translation/search.py"},
}  # fmt: skip
"""Fields that are read in several places, and why these need them."""

SOURCE = """
class A:
    model: TransformerConfig
    def __init__(self, config: Config, files):
        self._decoding, self.rows = config.decoding, config.batch.rows
    def f(self, text: "TextFiles | None", training: list):
        names = [each.name for each in text.training_files]
        for one, other in zip(text.training_files, training):
            print(one.weight, other.seed, training.steps)
        return self._decoding.beam_size, self.model.norm, self.norm, unknown.settings.mesh.fsdp
"""


def named_classes(annotation: ast.expr | None) -> set[str]:
    """Names of the classes of settings in an annotation."""
    if isinstance(annotation, ast.Constant):  # in quotes
        annotation = ast.parse(str(annotation.value), mode="eval").body
    names = ast.walk(annotation) if annotation else ()
    return {node.id for node in names if isinstance(node, ast.Name)} & CLASSES.keys()


@cache
def attribute_classes() -> dict[str, set[str]]:
    """The classes of settings that an attribute of some name has anywhere in the package."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in set(PACKAGE.rglob("*.py")) - set((PACKAGE / "config").iterdir()):
        for owner in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for node in owner.body if isinstance(owner, ast.ClassDef) else ():
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    found[node.target.id] |= named_classes(node.annotation)
                if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                    for name, classes in arguments_of(node).items():
                        found[name] |= classes  # kept, mostly, under the same name
    return found


def arguments_of(node: ast.FunctionDef) -> dict[str, set[str]]:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return {each.arg: named_classes(each.annotation) for each in arguments}


class Reads(ast.NodeVisitor):
    """Finds the fields that a module reads, as far as annotations and assignments say what is what.

    found  "class.field" of each of them
    """

    def __init__(self):
        self.found: set[str] = set()
        self._names: list[dict[str, set[str]]] = [{}]
        self._own: dict[str, set[str]] = {}

    def classes_of(self, node: ast.expr) -> set[str]:
        """Names of the classes of settings of which the value of an expression may be."""
        if isinstance(node, ast.Name):
            scopes = (scope[node.id] for scope in reversed(self._names) if node.id in scope)
            return next(scopes, set())
        if not isinstance(node, ast.Attribute):
            return set()
        if ast.unparse(node.value) == "self" and node.attr in self._own:
            return self._own[node.attr]
        if not (owners := self.classes_of(node.value)):
            return attribute_classes().get(node.attr, set())
        classes = set()
        for owner in owners:
            member = vars(CLASSES[owner]).get(node.attr)
            if isinstance(member, property):
                classes |= {c for c in CLASSES if c in str(member.fget.__annotations__["return"])}
            hint = field_types(CLASSES[owner]).get(node.attr)
            classes |= {c.__name__ for c in alternatives(hint) if c in CLASSES.values()}
        return classes

    def bind(self, function: ast.FunctionDef) -> None:
        for node in ast.walk(function):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self.name(target, node.value)
            elif isinstance(node, ast.For | ast.comprehension):
                self.name(node.target, node.iter)

    def name(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple | ast.Call):
            values = value.elts if isinstance(value, ast.Tuple) else value.args  # of zip
            for pair in zip(target.elts, values, strict=False):
                self.name(*pair)
        elif classes := self.classes_of(value):
            if isinstance(target, ast.Name):
                self._names[-1][target.id] = classes
            elif ast.unparse(target).startswith("self."):
                self._own[target.attr] = classes

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._own = {}
        for each in node.body:  # these and __init__ first: they name what the methods read
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                self._own[each.target.id] = named_classes(each.annotation)
            if isinstance(each, ast.FunctionDef) and each.name == "__init__":
                self.visit(each)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._names.append(arguments_of(node))
        self.bind(node)
        self.generic_visit(node)
        self._names.pop()

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load):
            owners = self.classes_of(node.value)
            self.found |= {
                f"{c}.{node.attr}" for c in owners if node.attr in field_types(CLASSES[c])
            }
        self.generic_visit(node)


def fields() -> Iterator[str]:
    for name, section in CLASSES.items():
        if section is not Config:
            yield from (f"{name}.{field.name}" for field in dataclasses.fields(section))


@cache
def readers() -> dict[str, set[str]]:
    """The places where each field is read."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith(FREE):
            reads = Reads()
            reads.visit(ast.parse(path.read_text(encoding="utf-8")))
            for field in reads.found:
                found[field].add("models" if place.startswith("models/") else place)
    return found


def test_reads_are_found_by_annotations_and_assignments():
    reads = Reads()
    reads.visit(ast.parse(SOURCE))
    sections = {f"Config.{name}" for name in ("decoding", "batch", "mesh")}
    assert reads.found - sections == {
        "BatchConfig.rows", "DecodingConfig.beam_size", "MeshConfig.fsdp", "TrainingFiles.name",
        "TrainingFiles.weight", "TransformerConfig.norm",
    }  # fmt: skip


def test_each_setting_is_read_in_one_place():
    assert EXCEPTIONS.keys() <= {*fields()}
    for field in fields():
        places = readers()[field]
        if field in EXCEPTIONS:
            unexpected = places - EXCEPTIONS[field]
            assert not unexpected, f"{field} is read in {unexpected} too: read it where it was"
            assert len(places) > 1, f"{field} is no exception any more"
        else:
            assert len(places) == 1, f"{field} is read in {places or 'no place'}, not in one"
