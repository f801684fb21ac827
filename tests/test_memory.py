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
for _ in range(8):
    jax.block_until_ready(step(x))
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print((counts[-1] - counts[2]) // 5)
"""


def faults_a_step(before: str, **variables: str) -> int:
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
    before = "from flax_transformer.memory import keep_freed_memory; keep_freed_memory()"
    without = faults_a_step("")
    assert without > 10_000
    assert faults_a_step(before) < without / 4
    # What the user chose stands.
    assert faults_a_step(before, MALLOC_TRIM_THRESHOLD_="131072") > without / 2
