"""Memory that a step has freed serves the next one."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource
{before}
import jax
import jax.numpy as jnp

@jax.jit
def step(x):  # 64 MiB of temporaries
    return jax.lax.scan(lambda x, _: (x, x), x, None, length=16)[1].sum(0)

x = jnp.ones((1024, 1024))
counts = []
for _ in range(16):
    jax.block_until_ready(step(x))
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(min(after - before for before, after in zip(counts, counts[1:])))
"""


def least_faults_of_a_step(before: str, **variables: str) -> int:
    """Of 15 steps: now and then one finds a small block in the way, and takes fresh memory."""
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    environment.pop("GLIBC_TUNABLES", None)
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(before=before)],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(result.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_step_finds_the_memory_of_the_step_before():
    before = "from flax_transformer.runtime.memory import keep_freed_memory; keep_freed_memory()"
    without = least_faults_of_a_step("")
    assert without >= 32  # 64 MiB, in pages of 2 MiB at most: every step asks for all of them
    assert least_faults_of_a_step(before) < without / 4
    # What the user chose stands.
    assert least_faults_of_a_step(before, MALLOC_TRIM_THRESHOLD_="131072") > without / 2
