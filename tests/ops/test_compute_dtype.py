"""The type of matrix products: what the hardware multiplies, and kept with the run."""

import dataclasses
from types import SimpleNamespace

import jax
import pytest

from flax_transformer.config import Config, RecurrentConfig
from flax_transformer.config.json import load_config
from flax_transformer.dry_run.compilation import compile_step
from flax_transformer.ops import compute_dtype
from flax_transformer.ops.compute_dtype import (
    decoding_config,
    multiplies_bfloat16,
    settle_compute_dtype,
    with_compute_dtype,
)
from flax_transformer.training.run_settings import open_workdir, settle
from flax_transformer.translation.trained_model import TrainedModel

CPU = SimpleNamespace(platform="cpu", device_kind="cpu")


@pytest.fixture
def processor(monkeypatch, tmp_path):
    """Makes the processor one with `flags`, as Linux lists them."""

    def make(flags: str, machine: str = "x86_64") -> None:
        path = tmp_path / "cpuinfo"
        path.write_text(f"processor\t: 0\nmodel name\t: made up\nflags\t\t: {flags}\n\n")
        monkeypatch.setattr(compute_dtype, "_CPU_INFO", path)
        monkeypatch.setattr(compute_dtype.platform, "machine", lambda: machine)
        monkeypatch.setenv("XLA_FLAGS", "")

    return make


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse2 avx2 fma", False),
        ("fpu avx2 avx512f avx512_vnni", False),
        ("fpu avx2 avx512f avx512_bf16", True),
        ("fpu avx2 amx_bf16 amx_tile", True),
    ],
)
def test_processors(processor, flags, expected):
    processor(flags)
    assert multiplies_bfloat16(CPU) is expected


@pytest.mark.parametrize(
    ("level", "expected"),
    [("AVX2", False), ("avx512", False), ("AVX512_BF16", True), ("AMX", True)],
)
def test_xla_may_be_kept_from_the_instructions(processor, monkeypatch, level, expected):
    processor("avx2 avx512f avx512_bf16 amx_bf16")
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=x --xla_cpu_max_isa={level} --other=1")
    assert multiplies_bfloat16(CPU) is expected


def test_what_a_processor_does_not_tell_is_not_there(processor, monkeypatch, tmp_path):
    processor("avx512_bf16", machine="arm64")
    assert not multiplies_bfloat16(CPU)
    processor("avx512_bf16")
    monkeypatch.setattr(compute_dtype, "_CPU_INFO", tmp_path / "nowhere")
    assert not multiplies_bfloat16(CPU)


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ({"platform": "tpu"}, True),
        ({"platform": "gpu", "compute_capability": "9.0"}, True),
        ({"platform": "gpu", "compute_capability": "8.0"}, True),
        ({"platform": "gpu", "compute_capability": "7.0"}, False),
        ({"platform": "gpu", "compute_capability": "gfx90a"}, True),
    ],
)
def test_accelerators(device, expected):
    assert multiplies_bfloat16(SimpleNamespace(**device)) is expected


@pytest.mark.parametrize("config", [Config(), Config(model=RecurrentConfig())])
def test_auto_is_the_default_and_is_settled_by_the_device(processor, config):
    assert config.model.compute_dtype == "auto"
    processor("avx2")
    assert settle_compute_dtype(config, CPU).model.compute_dtype == "float32"
    tpu = SimpleNamespace(platform="tpu")
    assert settle_compute_dtype(config, tpu).model.compute_dtype == "bfloat16"
    chosen = with_compute_dtype(config, "bfloat16")
    assert settle_compute_dtype(chosen, CPU) == chosen


def test_a_run_keeps_its_type_on_other_hardware(processor, tmp_path):
    def opened(config: Config) -> str:
        settled = settle(tmp_path, config, CPU, pytest.fail)
        open_workdir(tmp_path, settled)
        assert load_config(tmp_path / "config.json") == settled
        return settled.model.compute_dtype

    processor("amx_bf16")
    assert opened(Config()) == "bfloat16"
    processor("avx2")
    assert opened(Config()) == "float32", "nothing has been trained yet"
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    processor("amx_bf16")
    assert opened(Config()) == "float32"


def test_other_processes_take_what_the_first_has_settled(processor, tmp_path, monkeypatch):
    processor("amx_bf16")
    open_workdir(tmp_path, settle(tmp_path, Config(), CPU, pytest.fail))
    processor("avx2")
    monkeypatch.setattr("flax_transformer.training.run_settings.is_first_process", lambda: False)
    assert settle(tmp_path, Config(), CPU, pytest.fail).model.compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("trained_in", "flags", "expected"),
    [
        ("bfloat16", "avx2", "float32"),
        ("bfloat16", "amx_bf16", "bfloat16"),
        ("float32", "amx_bf16", "float32"),
        ("float32", "avx2", "float32"),
    ],
)
def test_translation_emulates_nothing_and_loses_nothing(processor, trained_in, flags, expected):
    processor(flags)
    config = decoding_config(with_compute_dtype(Config(), trained_in), CPU)
    assert config.model.compute_dtype == expected


def test_a_trained_model_translates_in_what_the_hardware_multiplies(
    processor, tmp_path, monkeypatch, small_config
):
    """Seen where it asks for the vocabulary, the first thing that it reads."""
    processor("avx2")
    seen = []

    def remember(self, config, *arguments):
        seen.append(config)

    monkeypatch.setattr(
        "flax_transformer.translation.trained_model.load_tokenizer",
        lambda *_: SimpleNamespace(fingerprint=0),
    )
    monkeypatch.setattr(
        "flax_transformer.translation.trained_model.load_parameters",
        lambda *_: ({}, [1], "", SimpleNamespace(tokenizer=0, trained_lengths=None), []),
    )
    monkeypatch.setattr("flax_transformer.translation.trained_model.Translator.__init__", remember)
    TrainedModel(tmp_path, with_compute_dtype(small_config, "bfloat16"))
    assert [config.model.compute_dtype for config in seen] == ["float32"]


def test_a_dry_run_is_of_the_type_that_training_would_have(processor, small_config):
    processor("avx2")
    model = dataclasses.replace(small_config.model, compute_dtype="auto")
    step = compile_step(dataclasses.replace(small_config, model=model), jax.devices()[:1])
    assert step.config.model.compute_dtype == "float32"
