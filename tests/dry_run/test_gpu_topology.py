"""GPUs that are not there: their names and descriptions, and what a dry run says of them."""

import dataclasses
import importlib.metadata
import importlib.util
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from flax_transformer.commands import train
from flax_transformer.config import Config
from flax_transformer.dry_run import cudnn, gpu_topology
from flax_transformer.dry_run.chips import CHIPS
from flax_transformer.dry_run.collectives import Collectives, collectives
from flax_transformer.dry_run.compilation import Memory, Step, joined_devices
from flax_transformer.dry_run.flops import ModelFlops, traced_flops
from flax_transformer.dry_run.model_parts import part_of
from flax_transformer.dry_run.program_text import Program
from flax_transformer.dry_run.report import describe_roofline, describe_unknown, describe_work
from flax_transformer.dry_run.roofline import roofline
from flax_transformer.dry_run.topology import topology_devices
from flax_transformer.errors import UserError
from flax_transformer.ops import attention_cudnn


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("h100:1", (1, 1)), ("a100:2", (1, 2)), ("b200:4", (1, 4)), ("h200:8", (1, 8)),
     ("h100:1x8", (1, 8)), ("h100:2x8", (2, 8)), ("h100:32x8", (32, 8))],
)  # fmt: skip
def test_names_say_hosts_and_gpus(name, sizes):
    assert gpu_topology.host_sizes(name) == sizes


@pytest.mark.parametrize("name", ["h100", "h100:", "h100:3", "h100:16", "h100:2x4", "h100:0x8"])
def test_other_numbers_are_refused(name):
    with pytest.raises(UserError, match=rf"--topology {name}: .* h100:8, .* h100:2x8"):
        topology_devices(name)


@pytest.mark.parametrize("name", ["l40:8", "H100:8", "8", "cpu"])
def test_unknown_chips_are_refused(name):
    with pytest.raises(UserError, match=f"--topology {name} names neither .* --topology list"):
        topology_devices(name)


def test_a_missing_plugin_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install '\.\[cuda13\]'"):
        topology_devices("h100:8")


@pytest.fixture
def library(monkeypatch, tmp_path):
    """Stands for the plugin's library, with texts between other bytes."""
    path = tmp_path / "xla_cuda_plugin.so"
    texts = [
        f'gpu_device_info {{\n  core_count: {cores}\n}}\ndevice_description_str: "{name}"\n'
        for cores, name in ((108, "NVIDIA A100-SXM4-80GB"), (132, "NVIDIA H100 80GB HBM3"))
    ]
    path.write_bytes(b"\x7fELF\0\0" + b"\0\xff# text\0".join(map(str.encode, texts)) + b"\0\0")
    package = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.2")


def test_descriptions_are_read_out_of_the_library(library):
    found = gpu_topology._description(gpu_topology.GPUS["h100"])
    assert found.startswith("gpu_device_info {\n  core_count: 132\n")
    assert found.endswith('device_description_str: "NVIDIA H100 80GB HBM3"\n')
    with pytest.raises(UserError, match=r"pjrt 0\.10\.2 has no description of an NVIDIA B200: "):
        gpu_topology._description(gpu_topology.GPUS["b200"])


def test_list_names_chips_and_what_is_missing(monkeypatch, capsys):
    """It needs neither a config nor a compiler."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        train.main(["--dry-run", "--topology", "list"])
    assert not ended.value.code
    said = capsys.readouterr().out
    for kind in gpu_topology.GPUS:
        assert f"{kind}:1, {kind}:2, {kind}:4, {kind}:8, {kind}:2x8" in said
    assert "v5e:4x4" in said and "'.[tpu]'" in said and "'.[cuda13]'" in said


def test_every_gpu_that_can_be_named_is_in_the_table_of_chips():
    for device_kind in gpu_topology.GPUS.values():
        assert CHIPS[device_kind].network_bandwidth < CHIPS[device_kind].link_bandwidth


def test_operations_of_cudnn_follow_from_its_arrays(monkeypatch):
    """Two products forward, five backward, each 2 b h t s k."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 92300)
    query, key = ((2, length, 4, 64) for length in (128, 256))
    arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in (query, key, key)]
    mask = jax.ShapeDtypeStruct((2, 128, 256), jnp.bool)

    def total(*arguments):
        return attention_cudnn.cudnn_attention(*arguments).astype(jnp.float32).sum()

    gradient = jax.grad(total, argnums=(0, 1, 2))
    product = 2 * 2 * 4 * 128 * 256 * 64
    assert traced_flops(jax.make_jaxpr(total)(*arrays, mask)) == 2 * product
    assert traced_flops(jax.make_jaxpr(gradient)(*arrays, mask)) == (2 + 5) * product


def reduced(groups: str, kind: str = "all-reduce") -> Collectives:
    text = f"""ENTRY %main (x: f32[1000]) -> f32[1000] {{
  %x = f32[1000]{{0}} parameter(0)
  ROOT %y = f32[1000]{{0}} {kind}(%x), {groups}, to_apply=%add
}}"""
    return collectives(Program(text), 16, per_host=8)[kind]


@pytest.mark.parametrize(
    ("groups", "sent", "crossing"),
    [
        ("replica_groups={}", 2 * 15 / 16, 2 * 15 / 16 / 8),  # eight rings, eight cards
        ("replica_groups=[2,8]<=[16]", 2 * 7 / 8, 0),  # inside each host
        ("replica_groups=[8,2]<=[2,8]T(1,0)", 2 * 1 / 2, 2 * 1 / 2),  # each with its peer
        ("replica_groups=[4,4]<=[2,4,2]T(2,1,0)", 2 * 3 / 4, 2 * 3 / 4 / 2),  # two on each
    ],
)
def test_what_goes_between_hosts(groups, sent, crossing):
    found = reduced(groups)
    assert (found.sent, found.crossing) == pytest.approx((4000 * sent, 4000 * crossing))


def test_all_to_all_and_permutations_go_through_a_chips_own_card():
    assert reduced("replica_groups={}", "all-to-all").crossing == 4000 * 8 / 16
    assert reduced("source_target_pairs={{0,8},{8,0}}", "collective-permute").crossing == 4000


def test_links_join_the_gpus_of_one_host_and_all_tpus():
    hosts = [[SimpleNamespace(platform="gpu", process_index=host)] * 4 for host in range(2)]
    gpus = SimpleNamespace(devices=np.array(hosts, object), size=8)
    tpus = SimpleNamespace(devices=np.array([[SimpleNamespace(platform="tpu")] * 4]), size=4)
    assert (joined_devices(gpus), joined_devices(tpus)) == (4, 4)


def test_a_network_bounds_a_step_and_the_report_says_so():
    h100 = CHIPS["NVIDIA H100 80GB HBM3"]
    mesh = SimpleNamespace(
        size=16, devices=SimpleNamespace(flat=[None] * 16), shape={"data": 16, "fsdp": 1}
    )
    step = Step(
        config=Config(), mesh=mesh, parameters=1, state_bytes=12, traced_flops=16 * 989e12,
        model_flops=ModelFlops(16 * 989e12, 0), memory=Memory(1, 1, 1, 0), bytes_moved=3350 * 10**9,
        moved_by_part={"loss": 10**9, "attention": 2 * 10**9},
        collectives={"all-reduce": Collectives(1, 10**9, sent=450e9, crossing=100e9)},
    )  # fmt: skip
    assert dataclasses.astuple(roofline(step, h100)) == (1, 1, 1, 2)
    text = "\n".join([*describe_work(step), *describe_roofline(step, h100)])
    assert "bound by network: 2,000.00 ms" in text and "50.0% MFU" in text
    assert "100.00 GB through its network card" in text
    assert text.index("attention  ") < text.index("loss  "), "the largest first"
    assert "by the compiler" not in text, "it gave no figures"


def test_what_is_not_known_is_said(monkeypatch):
    said = "\n".join(describe_unknown(SimpleNamespace(unplanned="")))
    assert "not known without the GPU" in said and "cuDNN" not in said
    said = " ".join(describe_unknown(SimpleNamespace(unplanned="it is ill")))
    assert "cuDNN has made no plans here (it is ill)" in said


def test_cudnn_is_asked_only_where_it_is_called_and_can_answer(monkeypatch):
    gpu, cpu = SimpleNamespace(platform="gpu"), SimpleNamespace(platform="cpu")
    monkeypatch.setattr(cudnn, "_hindrance", lambda device: "")
    assert cudnn.planning_options(gpu, cudnn.CALL) == (cudnn._OPTIONS, "")
    assert cudnn.planning_options(cpu, cudnn.CALL) == ({}, "")
    assert cudnn.planning_options(gpu, "stablehlo.add") == ({}, "")
    monkeypatch.setattr(cudnn, "_hindrance", lambda device: "it is ill")
    assert cudnn.planning_options(gpu, cudnn.CALL) == ({}, "it is ill")


def test_what_hinders_cudnn_is_told_in_words():
    missing = "NOT_FOUND: no engine\nWarning: Reason: Cannot load CUDA driver library (libcuda.so.1"
    assert "finds no libcuda.so.1" in cudnn._reason(missing)
    assert "only where there is a GPU" in cudnn._reason("No such compile option: 'xla_gpu_cudnn'")
    assert cudnn._reason("INTERNAL: odd\nmore") == "INTERNAL: odd"


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("jit(train_step)/jvp(Transformer)/encoder/attention_residual/attention/dot", "attention"),
        ("decoder/cross_residual/cross_attention/cross_attention.queries/dot", "attention"),
        ("decoder/feed_forward_residual/feed_forward/max", "feed-forward"),
        ("decoder/feed_forward_residual/norm/layer_norm_gradient/pallas_call", "normalisation"),
        ("decoder/feed_forward_residual/dropout/lt", "dropout and sums"),
        ("jit(train_step)/jvp(cross_entropy)/while/body/dot_general", "loss"),
        ("transpose(jvp(Transformer))/Transformer.encode/embedding/add_any", "embedding"),
        ("jit(train_step)/reduce_and", "optimizer and rest"),
    ],
)
def test_parts_are_told_by_names(name, part):
    assert part_of(name) == part
