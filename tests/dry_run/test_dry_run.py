"""The dry run: the same step as training's, counted right, with nothing touched."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from support.samples import RECURRENT, recurrent

from flax_transformer.commands.command_line import parse_train_arguments
from flax_transformer.config import Config, MeshConfig
from flax_transformer.dry_run import compilation, topology
from flax_transformer.dry_run.chips import CHIPS, Chip, interconnect_bandwidth
from flax_transformer.dry_run.collectives import Collectives
from flax_transformer.dry_run.compilation import (
    Memory,
    Step,
    TooLarge,
    abstract_arguments,
    compile_step,
)
from flax_transformer.dry_run.flops import model_flops, traced_flops
from flax_transformer.dry_run.remedies import remedies
from flax_transformer.dry_run.report import describe_memory, describe_roofline, describe_work
from flax_transformer.dry_run.roofline import roofline, utilisation
from flax_transformer.errors import UserError
from flax_transformer.parallel.sharding import batch_sharding, build_mesh, replicated
from flax_transformer.training import step, train_loop
from flax_transformer.training.state import create_state

ROOT = Path(__file__).parents[2]
V5E = CHIPS["TPU v5 lite"]


def vary(config: Config, **sections) -> Config:
    return dataclasses.replace(
        config,
        **{
            name: dataclasses.replace(getattr(config, name), **new)
            for name, new in sections.items()
        },
    )


@pytest.fixture(scope="module")
def config(small_config):
    """Three encoder layers and two of the decoder, 8 rows of 16 source and 24 target slots."""
    return vary(small_config, model={"num_encoder_layers": 3}, batch={"target_length": 24})


@pytest.fixture(scope="module")
def compiled(config) -> Step:
    """Over 8 devices, rows and parameters split."""
    return compile_step(vary(config, mesh={"data": 4, "fsdp": 2}))


def trace(config: Config):
    """The traced step for 8 devices, and the descriptions of its parameters."""
    mesh = build_mesh(config.mesh)
    arguments = abstract_arguments(config, mesh)
    traced = step.jit_train_step(config, mesh, arguments[0]).trace(*arguments)
    return traced, arguments[0].params


def test_training_compiles_what_the_dry_run_compiles(config, packed_batch):
    """From arrays as from descriptions comes the same program, of the same function."""
    assert train_loop.jit_train_step is compilation.jit_train_step is step.jit_train_step
    assert not hasattr(train_loop, "train_step"), "the loop has a step of its own"
    config = vary(config, batch={"target_length": 16})
    mesh = build_mesh(MeshConfig())
    state = create_state(config, mesh)
    batch = jax.device_put(packed_batch, batch_sharding(mesh))
    key = jax.device_put(jax.random.key(1), replicated(mesh))
    trained = step.jit_train_step(config, mesh, state).lower(state, batch, key)
    assert trained.as_text() == trace(config)[0].lower().as_text()


def test_model_flops_by_hand(config):
    params = abstract_arguments(config, build_mesh(MeshConfig()))[0].params
    found = model_flops(config, params)
    d, f, v = 16, 32, 304
    source, target = 8 * 16, 8 * 24
    attention, feed_forward = 4 * d * d, 2 * d * f
    encoder = 3 * (attention + feed_forward) * source
    decoder = 2 * ((attention + attention // 2 + feed_forward) * target + attention // 2 * source)
    assert found.matrices == 6 * (encoder + decoder + v * d * target)
    assert found.scores == 12 * d * 8 * (3 * 16 * 16 + 2 * (24 * 24 + 24 * 16))


def test_program_multiplies_what_the_formula_says(config):
    """A layer in a loop, a part of a batch and a chunk of logits all count as often as they run."""
    for settings in (
        {},
        {
            "model": {"positions": "learned", "norm": "pre", "unroll_layers": 2},
            "training": {"accumulation_steps": 2},
            "mesh": {"data": 4, "fsdp": 1, "model": 2},
        },
    ):
        varied = vary(config, **settings)
        traced, params = trace(varied)
        assert traced_flops(traced.jaxpr) == sum(model_flops(varied, params)), settings


@pytest.fixture(params=[*RECURRENT])
def recurrent_config(request, small_config):
    """A recurrent model, 8 rows of 16 source and 40 target slots, or the other way round."""
    lengths = {"source_length": 16, "target_length": 40}
    if request.param in ("general", "multi_head"):
        lengths = {"source_length": 40, "target_length": 16}
    return vary(recurrent(small_config, request.param), batch=lengths)


def test_recurrent_model_flops_by_hand(recurrent_config):
    """In multiples of d^2: what every source and every target position is multiplied by."""
    model, batch = recurrent_config.model, recurrent_config.batch
    d, v, gates = 16, 304, {"lstm": 4, "gru": 3}[model.cell]
    # Input and state; with two directions, of d/2 units each, states meet half as many numbers.
    of_source = model.num_encoder_layers * gates * (1.5 if model.bidirectional else 2)
    of_target = model.num_decoder_layers * gates * 2 + gates * model.input_feeding
    attention_of_source = {"none": 0, "dot": 0, "general": 1, "concat": 1, "multi_head": 2}
    attention_of_target = {"none": 0, "dot": 0, "general": 0, "concat": 1, "multi_head": 2}
    of_source += attention_of_source[model.attention]
    of_target += attention_of_target[model.attention] + 2 * (model.attention != "none")
    source, target = 8 * batch.source_length, 8 * batch.target_length

    params = abstract_arguments(recurrent_config, build_mesh(MeshConfig()))[0].params
    found = model_flops(recurrent_config, params)
    assert found.matrices == 6 * (
        d * d * (of_source * source + of_target * target) + v * d * target
    )
    pairs = 8 * batch.source_length * batch.target_length
    assert found.scores == 12 * d * pairs * (model.attention != "none")


def test_recurrent_program_multiplies_what_the_formula_says(recurrent_config):
    """Besides it only finds the states in which packed pairs end and begin, by products."""
    model, batch = recurrent_config.model, recurrent_config.batch
    d, s, t = 16, batch.source_length, batch.target_length
    layers, starting = model.num_encoder_layers, model.num_decoder_layers
    forward = layers * s * s + starting * t * s
    # Of layers from which no layer of the decoder starts there is no gradient.
    backward = min(layers, starting) * s * s + starting * t * s
    numbers = 8 * d * {"lstm": 2, "gru": 1}[model.cell]
    traced, params = trace(recurrent_config)
    more = traced_flops(traced.jaxpr) - sum(model_flops(recurrent_config, params))
    assert more == numbers * (2 * forward + 4 * backward)


def test_program_multiplies_more_with_remat(config):
    found = []
    for remat in ("dots", "everything"):
        traced, params = trace(vary(config, model={"remat": remat}))
        found.append(traced_flops(traced.jaxpr) / sum(model_flops(config, params)))
    assert 1 < found[0] < found[1] < 4 / 3


def test_compiled_step_is_measured(compiled, config):
    state = abstract_arguments(config, compiled.mesh)[0]
    assert compiled.parameters == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    # Parameters and two moments, halved by fsdp; only the counts of steps are whole.
    assert compiled.state_bytes == pytest.approx(3 * 4 * compiled.parameters / 2, rel=0.01)
    assert isinstance(compiled.memory, Memory)
    assert compiled.memory.arguments >= compiled.state_bytes
    assert 0 < compiled.memory.outputs < compiled.state_bytes / 2, "the state is donated"
    # Gradients are summed over the 4 of data, each chip having its half of the parameters.
    assert compiled.collectives["all-reduce"].bytes > 4 * compiled.parameters / 2
    assert compiled.bytes_moved > compiled.compiler_bytes
    assert compiled.target_tokens == 8 * 24
    assert not compiled.unknown_loops


def test_rows_that_do_not_divide_are_refused(config):
    with pytest.raises(UserError, match=r"batch\.rows is 12"):
        compile_step(vary(config, batch={"rows": 12}))


def fake_mesh(*shape: int):
    """Stands for a mesh of a slice of TPUs."""
    chips = [SimpleNamespace(coords=(i, j, k)) for i in range(shape[0]) for j in range(shape[1])
             for k in range(shape[2])]  # fmt: skip
    return SimpleNamespace(
        size=len(chips), devices=SimpleNamespace(flat=chips),
        shape={"data": len(chips), "fsdp": 1, "model": 1},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("chip", "shape", "links"),
    [(V5E, (1, 1, 1), 0), (V5E, (1, 2, 1), 1), (V5E, (4, 4, 1), 2), (V5E, (8, 16, 1), 3),
     (V5E, (16, 16, 1), 4), (CHIPS["TPU v5"], (2, 2, 1), 2), (CHIPS["TPU v5"], (4, 4, 8), 6),
     (CHIPS["TPU v5"], (2, 4, 4), 3), (CHIPS["NVIDIA H200"], (8, 1, 1), 1)],
)  # fmt: skip
def test_links_of_the_worst_placed_chip(chip, shape, links):
    found = interconnect_bandwidth(chip, fake_mesh(*shape).devices.flat)
    assert found == links * chip.link_bandwidth


def test_roofline_is_the_busiest_part(compiled):
    chip = Chip("one", flops=1e9, memory=1e9, memory_bandwidth=1e9, link_bandwidth=1e9, ring=16)
    judged = dataclasses.replace(
        compiled,
        mesh=fake_mesh(2, 2, 1),
        traced_flops=4 * 3e9,
        bytes_moved=2 * 10**9,
        collectives={"all-reduce": Collectives(count=1, bytes=0, sent=10e9)},
    )
    least = roofline(judged, chip)
    assert (least.products, least.memory, least.interconnect) == (3, 2, 5)
    assert (least.seconds, least.bound) == (5, "interconnect")
    expected = judged.model_flops.matrices / (4 * 1e9 * 5)
    assert utilisation(judged, chip, least.seconds) == pytest.approx(expected)
    text = "\n".join(describe_roofline(judged, chip))
    assert "bound by interconnect: 5,000.00 ms" in text
    assert f"{judged.target_tokens / 5:,.0f} target tokens/s" in text


def test_report_names_what_counts(compiled):
    text = "\n".join([*describe_work(compiled), *describe_memory(compiled, V5E)])
    assert f"parameters: {compiled.parameters:,}" in text
    assert f"{compiled.collectives['all-reduce'].count:,}, together" in text
    assert "of 16.00 GiB: fits" in text
    small = dataclasses.replace(V5E, memory=1000.0)
    assert "does not fit" in "\n".join(describe_memory(compiled, small))


def test_what_needs_too_much_memory_is_read_off_the_compilers_message():
    def read(message):
        return compilation._read_too_large(jax.errors.JaxRuntimeError(message), state_bytes=7)

    message = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (79.50G) exceeds available HBM (15.75G). HLO module: jit."
    )
    assert read(message) == TooLarge(int(79.5 * 2**30) + 7, int(15.75 * 2**30))
    with pytest.raises(UserError, match=r"does not fit: RESOURCE_EXHAUSTED: no room$"):
        read("RESOURCE_EXHAUSTED: no room\nmore")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        read("INTERNAL: something else")


def test_remedies_go_where_the_memory_is(compiled):
    """Rows at a time where temporaries are large; more chips for the state where that is."""
    gib = 2**30
    large = dataclasses.replace(
        compiled,
        mesh=fake_mesh(2, 1, 1),
        config=vary(compiled.config, batch={"rows": 48}),
        state_bytes=3 * gib,
        memory=TooLarge(40 * gib, 16 * gib),
    )
    first, second = remedies(large, 16 * gib)
    # 36 GiB of temporaries into 11.2 takes 4 parts; 24 rows a chip divide by that.
    assert first.flags == "--training.accumulation-steps 4"
    assert first.config.training.accumulation_steps == 4
    assert second.flags == "--model.remat everything"
    assert second.config.model.remat == "everything"
    heavy = dataclasses.replace(large, mesh=fake_mesh(4, 2, 1), state_bytes=15 * gib)
    (only,) = remedies(heavy, 16 * gib)
    assert only.flags == "--mesh.data -1 --mesh.fsdp 4"
    assert (only.config.mesh.data, only.config.mesh.fsdp) == (-1, 4)


TINY = """
from flax_transformer.config import *

config = Config(
    data=TextFiles(directory="/nowhere", source_language="en", target_language="fr"),
    tokenizer=TokenizerConfig(vocabulary_size=300),
    batch=BatchConfig(rows=16, source_length=8, target_length=8),
    model=TransformerConfig(
        num_encoder_layers=2, num_decoder_layers=1, d_model=16, num_heads=2, d_ff=32,
    ),
)
"""


def dry_run(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    (folder / "tiny.py").write_text(TINY)
    words = ["--config", str(folder / "tiny.py"), "--workdir", str(folder / "runs"), "--dry-run"]
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *words, *flags],
        cwd=folder,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_dry_run_touches_nothing(tmp_path):
    """Neither the data, which is not there, nor a work directory."""
    done = dry_run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "for 8 x cpu" in done.stdout and "data 8, fsdp 1, model 1" in done.stdout
    assert "no time is estimated" in done.stdout and "least time" not in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.py", "cache"}
    assert [path.name for path in tmp_path.glob("cache/*/*")] == ["compiled"]


def test_topology_needs_a_dry_run_and_the_compiler(monkeypatch):
    words = ["--config", str(ROOT / "configs/wmt_base.py"), "--topology", "v5e:2x2"]
    with pytest.raises(UserError, match="needs --dry-run"):
        parse_train_arguments(words)
    assert parse_train_arguments([*words, "--dry-run"]).topology == "v5e:2x2"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install '\.\[tpu\]'"):
        topology.topology_devices("v5e:2x2")


needs_tpu_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install '.[tpu]'"
)


@needs_tpu_compiler
def test_dry_run_for_chips_that_are_not_there(tmp_path):
    done = dry_run(tmp_path, "--topology", "v5e:2x2")
    assert done.returncode == 0, done.stderr
    assert "for 4 x TPU v5e" in done.stdout and "of 16.00 GiB: fits" in done.stdout
    assert "all-reduce" in done.stdout and "bound by" in done.stdout
    assert "unknown length" not in done.stdout
    assert not done.stderr, "the compiler's noise"


@needs_tpu_compiler
def test_unknown_topology_ends_in_a_message(tmp_path):
    for name in ("v9:2x2", "v5e", "v5e:9x9", "v4:2x2x1"):
        done = dry_run(tmp_path, "--topology", name)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert f"--topology {name}" in done.stderr and "v5e:4x4" in done.stderr
