"""Translates lines of text: python translate.py --workdir runs/quickstart < source > target

One line out for every line in, in order and as soon as it is known: it may also be typed to.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from flax_transformer.command_line import (
    DecodingArguments,
    parse_decoding_arguments,
    run_command,
)
from flax_transformer.config_error import ConfigError


@dataclass(frozen=True, kw_only=True)
class TranslateArguments(DecodingArguments):
    """Translates standard input, UTF-8 with a sentence a line, to standard output.

    Every line in gives one line out, in the same order; an empty one gives an empty one.
    """

    n_best: int | None = None
    """Print this many translations of each line, best first, each on a line of its own:
    "line number ||| translation ||| score". Line numbers count from 1; a score is the log
    probability over the length penalty, plus the coverage penalty. At most --beam-size, and fewer
    where there are fewer."""


def main(words: Sequence[str]) -> None:
    arguments, config = parse_decoding_arguments(TranslateArguments, words)
    n_best, beam_size = arguments.n_best, config.decoding.beam_size
    if n_best is not None and not 1 <= n_best <= beam_size:
        raise ConfigError(f"--n-best is {n_best}, but must be from 1 to --beam-size {beam_size}")

    from flax_transformer.evaluation.line_reader import LineReader
    from flax_transformer.trained_model import TrainedModel

    standard_input = 0
    # A bar between typed lines would be in the way.
    typed = os.isatty(standard_input)
    # Before the model, so that lines are there when it is ready.
    lines = LineReader(standard_input)
    model = TrainedModel(arguments.workdir, config)
    first = 1
    for chunk in lines.chunks():
        progress = None if typed else f"from line {first:,}"
        for number, hypotheses in enumerate(model.translate(chunk, progress=progress), first):
            if n_best is None:
                text = hypotheses[0].text + "\n"
            else:
                text = "".join(
                    f"{number} ||| {hypothesis.text} ||| {hypothesis.score:.4f}\n"
                    for hypothesis in hypotheses[:n_best]
                )
            sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
        first += len(chunk)
    if cut := model.translator.counts.cut_lines:
        longest = config.decoding.max_source_length
        print(
            f"{cut:,} line(s) of more than {longest} tokens were translated in pieces",
            file=sys.stderr,
        )


if __name__ == "__main__":
    run_command(main)
