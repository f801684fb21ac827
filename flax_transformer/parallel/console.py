"""What a person sees of a run."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from flax_transformer.parallel.hosts import is_first_process
from flax_transformer.runtime.outlived_streams import survive_stream_errors


class Console:
    """A progress bar on a terminal, a line at intervals elsewhere; times only the training itself.

    Of several processes only the first says anything. A run goes on when its reader is gone.
    """

    def __init__(self, steps: int, first_step: int):
        survive_stream_errors()
        # tqdm draws to stderr, and not at all (disable=None) where that is a file.
        disable = None if is_first_process() else True
        self._bar = tqdm(
            total=steps, initial=first_step, unit=" steps", disable=disable, dynamic_ncols=True
        )
        self._tokens, self._seconds, self._since = 0.0, 0.0, time.perf_counter()

    @staticmethod
    def say(line: str = "") -> None:
        """Prints a line without breaking the bar."""
        if is_first_process():
            survive_stream_errors()
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    @staticmethod
    def warn(line: str) -> None:
        """Prints, as `say` does, a warning on standard error: of what a run can do without."""
        if is_first_process():
            survive_stream_errors()
            tqdm.write(f"warning: {line}", file=sys.stderr)
            sys.stderr.flush()

    def step(self) -> None:
        """Moves the bar on by one step."""
        self._bar.update()

    def expect(self, steps: int) -> None:
        """Makes the bar count to `steps`, for a run that something else will end."""
        self._bar.total = steps

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock of tokens per second during the body: for validation and saving."""
        self._seconds += time.perf_counter() - self._since
        yield
        self._since = time.perf_counter()

    def restart(self) -> None:
        """Forgets the time so far, such as that of compiling the step."""
        self._seconds, self._since = 0.0, time.perf_counter()

    def log(self, step: int, values: dict[str, float]) -> float:
        """Shows the loss; returns target tokens per second since the last time."""
        seconds = self._seconds + time.perf_counter() - self._since
        speed = values["tokens"] / max(seconds, 1e-9)
        self.restart()
        self._bar.set_postfix_str(f"loss {values['loss']:.3f}, {speed:,.0f} tokens/s")
        if self._bar.disable:
            self.say(
                f"step {step:,} of {self._bar.total:,}: loss {values['loss']:.4f}, "
                f"accuracy {values['accuracy']:.1%}, {speed:,.0f} target tokens/s"
            )
        return speed

    def close(self) -> None:
        self._bar.close()
