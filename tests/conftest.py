"""Every test sees 8 simulated devices, warnings as errors, and no silent broadcasting of ranks."""

import atexit
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import partial

from flax_transformer.runtime.quick_compilation import QUICK_FLAGS

os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {QUICK_FLAGS}"
os.environ["JAX_PLATFORMS"] = "cpu"
# Commands that tests start must not write into the user's cache, but into one of the tests' own,
# which is the same for all processes among which the tests are divided.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="flax_transformer_tests_")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from support.samples import draw_pairs, recurrent

from flax_transformer.batch import Batch
from flax_transformer.config import (
    BatchConfig,
    Config,
    MeshConfig,
    TokenizerConfig,
    TransformerConfig,
)
from flax_transformer.data.packing import lay_out
from flax_transformer.data.token_cache import TokenizedPairs
from flax_transformer.models import build_model
from flax_transformer.parallel.sharding import build_mesh
from flax_transformer.training.state import TrainState, create_state

jax.config.update("jax_numpy_rank_promotion", "raise")
# Neither tests nor what they start ignore signals, as what a shell starts in the background does.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


started: list[subprocess.Popen] = []


class Popen(subprocess.Popen):
    """A process that is remembered, so that it can be ended with the test that started it."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        started.append(self)


subprocess.Popen = Popen


LONGEST = (
    "test_run", "test_hosts", "test_trainer", "test_diagnosis", "test_benchmarks_compare",
    "test_remat", "test_benchmarks", "test_step", "test_benchmarks_decode", "test_sharding",
)  # fmt: skip
"""Files that take longest go first, so that no process has one left when the others are done."""


def pytest_sessionstart():
    """What a failed read of Orbax has to say is left out before pytest, which has its own hook by
    now, takes it for a failure."""
    import flax_transformer.checkpoints.orbax_errors  # noqa: F401


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_runtest_setup(item):
    for mark in item.iter_markers("peer"):
        for package in mark.args:
            pytest.importorskip(package, reason=f"{package} is not installed")


def pytest_runtest_teardown():
    """A failed test's training would take the processor from the tests after it, and a pipe that it
    left open would be told in one of them."""
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):  # what is left to write has no reader
                    pipe.close()
    started.clear()


@pytest.fixture(autouse=True)
def process_as_it_was():
    """What a test leaves behind in its process, such as a handler of signals that ends it, would
    strike another one, hours later and elsewhere."""
    before = process_state()
    yield
    after = process_state()
    for number, handler in before["signals"].items():
        signal.signal(number, handler)
    sys.excepthook, sys.unraisablehook = before["hooks"]
    assert after == before


def pytest_collection_finish():
    """Modules may leave things behind too, when they are loaded."""
    assert process_state()["signals"] == SIGNALS


def process_state() -> dict:
    numbers = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGPIPE")
    return {
        "signals": {
            signal.Signals[name]: signal.getsignal(signal.Signals[name]) for name in numbers
        },
        "hooks": (sys.excepthook, sys.unraisablehook),
        "folder": os.getcwd(),
        "limits": resource.getrlimit(resource.RLIMIT_FSIZE),
        "environment": {
            name: value for name, value in os.environ.items() if name.startswith(("JAX", "X"))
        },
    }


SIGNALS = process_state()["signals"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Runs of this process have one device, and what they tokenise and compile is kept."""
    from flax_transformer.training import run as run_module
    from flax_transformer.translation import trained_model as trained_model_module

    cache = str(tmp_path_factory.mktemp("cache"))
    kept = {
        "jax_compilation_cache_dir": cache,
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: getattr(jax.config, name) for name in kept}
    one_device = partial(build_mesh, devices=jax.devices()[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", cache)
        for module in (run_module, trained_model_module):
            patch.setattr(module, "build_mesh", one_device)
        for name, value in kept.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def small_config() -> Config:
    """Two layers, no dropout; h, f, v and rows can be split over 8 devices."""
    return Config(
        tokenizer=TokenizerConfig(vocabulary_size=304),
        batch=BatchConfig(rows=8, source_length=16, target_length=16),
        model=TransformerConfig(
            num_encoder_layers=2,
            num_decoder_layers=2,
            d_model=16,
            num_heads=8,
            d_ff=32,
            dropout=0.0,
            max_positions=16 + 400,
            compute_dtype="float32",
        ),
    )


@pytest.fixture(scope="session")
def small_pairs() -> TokenizedPairs:
    """The 16 pairs of `packed_batch`, of 2 to 5 tokens a side."""
    return draw_pairs(16, shortest=2, longest=5, vocabulary_size=304)


@pytest.fixture(scope="session")
def packed_batch(small_pairs: TokenizedPairs) -> Batch:
    """Eight rows of 16 slots with one, two or three pairs and padding; the first has two."""
    ends = np.cumsum([2, 1, 3, 2, 1, 2, 3, 2])
    members = np.split(np.arange(16), ends[:-1])
    return lay_out(small_pairs, members, 16, 16)


@pytest.fixture(scope="session")
def random_params():
    """Makes parameters of which none is at a value, such as 0 for biases, that hides a mistake."""

    def draw(config: Config):
        model = build_model(config.model, config.tokenizer.vocabulary_size)
        ids = jax.ShapeDtypeStruct((1, 1), "int32")
        batch = Batch(*(ids for _ in Batch._fields))
        shapes = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]
        random = np.random.default_rng(0)

        def fill(path, leaf):
            mean = 1.0 if "scale" in jax.tree_util.keystr(path) else 0.0
            return random.normal(mean, 0.3, leaf.value.shape).astype(np.float32)

        return jax.tree_util.tree_map_with_path(
            fill, shapes, is_leaf=lambda leaf: hasattr(leaf, "names")
        )

    return draw


@pytest.fixture(scope="session")
def initial_state(small_config: Config) -> TrainState:
    """A fresh state of `small_config` as numpy arrays, which no step can donate."""
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    return jax.device_get(create_state(small_config, mesh))


@pytest.fixture(scope="session")
def initial_recurrent(small_config: Config) -> tuple[Config, TrainState]:
    """A recurrent model that has everything, and a fresh state of it like `initial_state`."""
    config = recurrent(small_config, "concat", num_decoder_layers=1)
    mesh = build_mesh(MeshConfig(data=1), jax.devices()[:1])
    return config, jax.device_get(create_state(config, mesh))
