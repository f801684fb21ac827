"""SIGKILL at random moments: at the end the parameters must equal those of a run that nothing
interrupted, bit for bit."""

import os
import random
import signal
import time

from benchmarks.faults.runs import Whole, differing_arrays, finish, last_step, start, train_command


def kill_and_resume(run: Whole, kills: int, seed: int) -> int:
    """Kills and restarts a run so often; returns how many parameter arrays differ at the end."""
    moments, killed, steps = random.Random(seed), run.folder / "killed", run.steps
    for number in range(kills):
        process = start(train_command(killed, steps), run.cache)
        # Anywhere between the start of Python and some steps into the training.
        if moments.random() < 0.3:
            time.sleep(moments.uniform(0, 12))
        else:
            goal = last_step(killed) + moments.randrange(1, max(2 * steps // kills, 2))
            while last_step(killed) < min(goal, steps - 1) and process.poll() is None:
                time.sleep(0.05)
            time.sleep(moments.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        print(f"kill {number + 1}: metrics up to step {last_step(killed)}", flush=True)
    ended = finish(start(train_command(killed, steps), run.cache))
    assert ended.code == 0, ended.errors
    return differing_arrays(run.workdir, killed)
