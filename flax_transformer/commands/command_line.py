"""From the words of a command to settings; a user's mistake ends in one message and exit code 2."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from flax_transformer.config import Builtin, Config, DecodingConfig
from flax_transformer.config.hosts import HostsConfig
from flax_transformer.config.json import load_config
from flax_transformer.config.shipped import find_shipped_model, load_config_file
from flax_transformer.errors import UserError
from flax_transformer.runtime.compiled_programs import keep_compiled_programs
from flax_transformer.runtime.exit_codes import exit_code
from flax_transformer.runtime.invocation import program_name
from flax_transformer.runtime.memory import keep_freed_memory
from flax_transformer.runtime.standard_streams import end_output, prepare_streams
from flax_transformer.runtime.stop_signals import StopSignals

Arguments = TypeVar("Arguments")
Command = Callable[[Sequence[str]], None]


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """Trains a translation model, or goes on where the run in the same work directory stopped.

    Every setting of the config file can be overridden: --training.steps 1000.
    """

    config: Path
    """Python file that builds the settings, such as configs/quickstart.py; or the name of one that
    comes with the package, such as quickstart; or the config.json of another run."""
    workdir: Path | None = None
    """Folder of the run; by default runs/<name of the config file>."""
    start_from: Path | None = None
    """Work directory of another run to start from; the same as --training.start-from."""
    hosts: HostsConfig = field(default_factory=HostsConfig)
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only compile the training step, and say what it needs: memory, operations, traffic, time.
    Neither data nor a work directory is touched."""
    diagnose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Only look at the run where it stands, and say in plain words what keeps it from learning.
    The run is not changed; the figures go to diagnosis.json in the work directory."""
    accept_changed_data: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on although the training or validation text is not what the run has been trained with."""
    topology: str | None = None
    """With --dry-run: TPUs or GPUs to compile for that need not be there, such as v5e:4x4 or
    h100:8. list names them, and says how to install their compilers."""
    program: Literal["training-step", "beam-search"] = "training-step"
    """With --dry-run: what is compiled. Of beam search it says what every position moves."""
    settings: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)

    @property
    def run_directory(self) -> Path:
        return self.workdir or Path("runs") / self.config.stem


@dataclass(frozen=True, kw_only=True)
class DecodingArguments:
    """What every command that translates with a trained model is told."""

    workdir: Path
    """Folder of the run, as training left it."""
    model: str | None = None
    """In place of --workdir: a model that comes with the package, en-fr-small."""
    decoding: Annotated[DecodingConfig, tyro.conf.arg(name="")] = field(
        default_factory=DecodingConfig
    )

    @property
    def results(self) -> Path:
        """The folder for what is found: the run's own, or one in runs/ for a shipped model."""
        return self.workdir if self.model is None else Path("runs") / self.model


@dataclass(frozen=True, kw_only=True)
class EnsembleArguments(DecodingArguments):
    """What every command is told that several models can do together."""

    ensemble: tuple[Path, ...] = ()
    """Folders of further runs, or a shipped model, with the same vocabulary. At each step, tokens
    have the mean of the probabilities that all the models give them."""


@dataclass(frozen=True, kw_only=True)
class TranslatingArguments(EnsembleArguments):
    """What every command is told that writes translations."""

    mbr: int | None = None
    """Draw so many samples of each line, and take the one that is most like the others (minimum
    Bayes risk, Eikema and Aziz 2020). Takes the place of the search and of --beam-size."""
    mbr_metric: Literal["chrf", "bleu"] = "chrf"
    """With --mbr: what tells how like two translations are."""

    @property
    def risk_metric(self) -> Literal["chrf", "bleu"] | None:
        """By which samples are ranked, if they are."""
        return None if self.mbr is None else self.mbr_metric


WithDecoding = TypeVar("WithDecoding", bound=DecodingArguments)


def run_command(main: Command, words: Sequence[str] | None = None) -> None:
    """Calls `main` with the command's words; by default all that the program was started with.

    What a user can put right ends the program with a message and code 2; Ctrl-C and other signals
    with the code that shells have for them, such as 130; a reader of our output who has gone with
    code 1. Only errors of the program itself are shown with a traceback.
    """
    prepare_streams()
    words = sys.argv[1:] if words is None else words
    try:
        with StopSignals():
            if not {"-h", "--help", "--version"} & set(words):  # which compile nothing
                keep_compiled_programs()
            keep_freed_memory()
            _call(main, words)
    except BaseException as error:
        code = exit_code(error)
        end_output()
        if code is None:
            raise
        sys.exit(code)


def _call(main: Command, words: Sequence[str]) -> None:
    try:
        main(words)
    except SystemExit:
        sys.stdout.flush()
        raise
    # Python would do so as it ends, when nobody handles what goes wrong.
    sys.stdout.flush()


def parse_arguments(
    cls: type[Arguments], words: Sequence[str], default: Arguments | None = None
) -> Arguments:
    """`words` as a `cls`, laid over `default`.

    An unknown flag, a wrong type or a value that the settings refuse ends the program with a
    message and exit code 2.
    """
    # Which kind of corpus and of model it is, the default says; otherwise tyro would ask for
    # subcommands.
    options: dict[str, Any] = {"config": (tyro.conf.AvoidSubcommands,)}
    return tyro.cli(cls, prog=program_name(), args=list(words), default=default, **options)


def parse_train_arguments(words: Sequence[str]) -> TrainArguments:
    """What training is told; its settings are those of the file with the flags laid over.

    All flags are laid over at once, so that checks which concern several settings see them all.
    """
    if _value_of("--topology", words) == "list":
        from flax_transformer.dry_run.topology import describe_topologies

        print("\n".join(describe_topologies()))
        sys.exit()  # as --help does
    path = _value_of("--config", words)
    settings = Config() if path is None else load_config_file(path)
    default = TrainArguments(config=tyro.MISSING, settings=settings)
    arguments = parse_arguments(TrainArguments, words, default)
    if arguments.topology and not arguments.dry_run:
        raise UserError(
            f"--topology {arguments.topology} names chips that are not there, so it needs --dry-run"
        )
    if arguments.program != "training-step" and not arguments.dry_run:
        raise UserError(f"--program {arguments.program} is for --dry-run: add it")
    if arguments.start_from is not None:
        training = dataclasses.replace(
            arguments.settings.training, start_from=str(arguments.start_from)
        )
        settings = dataclasses.replace(arguments.settings, training=training)
        arguments = dataclasses.replace(arguments, settings=settings)
    if arguments.diagnose and arguments.dry_run:
        raise UserError("--diagnose and --dry-run exclude each other: give one of them")
    return arguments


def parse_decoding_arguments(
    cls: type[WithDecoding], words: Sequence[str]
) -> tuple[WithDecoding, Config]:
    """`words` as a `cls`, and the settings of the run in --workdir with the flags laid over."""
    workdir, model = _value_of("--workdir", words), _value_of("--model", words)
    if workdir is not None and model is not None:
        raise UserError("--workdir and --model exclude each other: give one of them")
    folder = workdir if model is None else find_shipped_model(model)
    config = Config() if folder is None else load_config(Path(folder) / "config.json")
    needed: dict[str, Any] = {
        field.name: tyro.MISSING
        for field in dataclasses.fields(cls)
        if {field.default, field.default_factory} == {dataclasses.MISSING}
    }
    if folder is not None:
        needed["workdir"] = Path(folder)
    default = cls(**needed, decoding=config.decoding)
    arguments = parse_arguments(cls, words, default)
    return arguments, dataclasses.replace(config, decoding=arguments.decoding)


def move_corpus(config: Config, directory: str | None) -> Config:
    """Returns `config` with its corpus in `directory`."""
    if directory is None:
        return config
    if isinstance(config.data, Builtin):
        raise UserError(
            f"--data.directory is {directory}, but the run's corpus is made by the built-in "
            "grammar: leave the flag out"
        )
    return dataclasses.replace(config, data=dataclasses.replace(config.data, directory=directory))


def _value_of(flag: str, words: Sequence[str]) -> str | None:
    """Returns what follows `flag` among the command's words, None without it."""
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word == flag:
            return following
        if word.startswith(flag + "="):
            return word.removeprefix(flag + "=")
    return None
