"""Trains a translation model: python train.py --config configs/quickstart.py

Settings come from the config file and from flags (--training.steps 1000); results go to the work
directory. The same command again goes on where the run stopped, exactly. The loop of training is
`train` in training/train_loop.py. With --dry-run the step is only compiled and judged, also for
chips that are not there; with --diagnose a run is only looked at, to say why it does not learn.
"""

from collections.abc import Sequence

from flax_transformer.commands.command_line import TrainArguments, parse_train_arguments
from flax_transformer.runtime.determinism import choose_deterministic_kernels

# Libraries that take seconds to load, which --help should not, are imported where they are used.


def main(words: Sequence[str]) -> None:
    """Does what `words`, those of the command line, ask for."""
    arguments = parse_train_arguments(words)
    if arguments.settings.training.deterministic:
        choose_deterministic_kernels()  # before jax is loaded, which reads them
    if arguments.dry_run:
        return dry_run(arguments)

    from flax_transformer.parallel.hosts import join_hosts, leaving_when_failing

    join_hosts(arguments.hosts)
    with leaving_when_failing():
        if arguments.diagnose:
            return diagnose(arguments)
        train(arguments)


def train(arguments: TrainArguments) -> None:
    """Opens the run, new or where it stopped, trains it, and scores it once it is complete."""
    from flax_transformer.training.final_scores import report_final_scores
    from flax_transformer.training.run import Run

    run = Run(
        arguments.settings,
        arguments.run_directory,
        accept_changed_data=arguments.accept_changed_data,
    )
    run.train()
    run.interruption.exit()
    if run.finished:
        report_final_scores(run)


def diagnose(arguments: TrainArguments) -> None:
    """Says what keeps the run from learning, and leaves it as it is."""
    from flax_transformer.diagnosis import diagnosis
    from flax_transformer.training.run import Run

    with Run(arguments.settings, arguments.run_directory, only_look=True) as run:
        diagnosis.diagnose(run)


def dry_run(arguments: TrainArguments) -> None:
    """Compiles the step that training would run, or a search, and says what it needs."""
    from flax_transformer.dry_run.topology import prepare_environment

    if arguments.topology:
        prepare_environment()  # before jax is loaded, which reads it

    from flax_transformer.dry_run.report import judge

    judge(arguments.settings, arguments.topology, arguments.program)
