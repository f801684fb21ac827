"""What a command says once a run is complete."""

from flax_transformer.evaluation.evaluation import corpus_test_sets, report_on
from flax_transformer.evaluation.measures import Measures
from flax_transformer.evaluation.report import report_path
from flax_transformer.parallel.console import Console
from flax_transformer.runtime.invocation import how_to_start
from flax_transformer.training.run import Run


def report_final_scores(run: Run) -> None:
    """Scores the test splits with the averaged checkpoints, and says what to type next.

    A run that was complete before is scored only where its scores are missing.
    """
    workdir = run.workdir
    test_sets = corpus_test_sets(run.corpus, run.config)
    if run.first_step == run.step:
        test_sets = [one for one in test_sets if not report_path(workdir, one).exists()]
    if test_sets:
        # TER is left to evaluate.py: it takes longer than all the rest.
        measures = Measures(metrics=("bleu", "chrf"))
        report_on(workdir, run.config, test_sets, samples=10, measures=measures)
    Console.say(
        f"Next: translate something of your own,\n"
        f'  echo "..." | {how_to_start("translate")} --workdir {workdir}\n'
        f"or see inside: attention, search, curves,\n"
        f"  {how_to_start('inspect')} --workdir {workdir}"
    )
