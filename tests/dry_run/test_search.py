"""Beam search compiled and judged: bytes of one position, beside weights and cache once."""

import dataclasses
from types import SimpleNamespace

import jax
import pytest
from support.jaxprs import equations
from support.samples import recurrent

from flax_transformer.commands.command_line import parse_train_arguments
from flax_transformer.config import Config, DecodingConfig, MeshConfig
from flax_transformer.dry_run.chips import CHIPS
from flax_transformer.dry_run.report import describe_search
from flax_transformer.dry_run.search import SOURCE_LENGTH, Position, Search, compile_search
from flax_transformer.errors import UserError
from flax_transformer.models import build_model
from flax_transformer.translation.search import search


def on_one_device(config):
    decoding = dataclasses.replace(config.decoding, batch_tokens=256, extra_length=8, beam_size=3)
    mesh = MeshConfig(data=1, fsdp=1, model=1)
    return dataclasses.replace(config, decoding=decoding, mesh=mesh)


@pytest.fixture(scope="module")
def config(small_config):
    return on_one_device(small_config)


@pytest.fixture(scope="module")
def found(config):
    return compile_search(config, jax.devices()[:1])


def test_the_floor_is_known_by_hand(config, found):
    """Float32 on this processor or not, what it multiplies and keeps is a matter of counting."""
    model, rows, beams = found.config.model, 256 // SOURCE_LENGTH, config.decoding.beam_size
    assert found.rows == rows and [each.room for each in found.positions] == [32, 40]
    d, size = model.d_model, 4 if model.compute_dtype == "float32" else 2
    # Keys and values of the source are computed once: not the two matrices that make them.
    layer = (4 + 2) * d * d + 2 * d * model.d_ff
    weights = model.num_decoder_layers * layer + config.tokenizer.vocabulary_size * d
    for each in found.positions:
        slots = SOURCE_LENGTH + each.room * beams
        kept = model.num_decoder_layers * 2 * rows * slots * d * 4  # the CPU keeps float32
        small = rows * (4 * beams * each.room + SOURCE_LENGTH)  # ancestors and mask of the source
        assert each.weights == weights * size
        assert each.cache == kept + small
        assert each.operations == 2 * weights * rows * beams


def test_a_position_moves_more_than_the_floor_and_more_with_more_room(found):
    first, second = found.positions
    assert first.floor < first.bytes_moved < 10 * first.floor
    assert second.bytes_moved - first.bytes_moved >= second.cache - first.cache
    assert min(first.kernels, second.kernels) > 50


def test_the_loop_of_the_last_few_sentences_is_another(config):
    decoding = dataclasses.replace(config.decoding, batch_tokens=64 * SOURCE_LENGTH)
    found = compile_search(dataclasses.replace(config, decoding=decoding), jax.devices()[:1])
    assert found.rows == 64 and [each.room for each in found.positions] == [32, 40]


def test_no_sentence_is_longer_than_its_positions(config):
    learned = dataclasses.replace(config.model, positions="learned")
    batch = dataclasses.replace(config.batch, source_length=24, target_length=24)
    found = compile_search(
        dataclasses.replace(config, model=learned, batch=batch), jax.devices()[:1]
    )
    assert (found.source_length, [each.room for each in found.positions]) == (24, [24])


def test_a_recurrent_model_needs_the_same_room_throughout(small_config):
    config = on_one_device(recurrent(small_config, "multi_head"))
    first, second = compile_search(config, jax.devices()[:1]).positions
    assert first.cache == second.cache and first.weights > 0
    assert first.floor < first.bytes_moved == second.bytes_moved


def test_the_loop_reads_weights_as_it_multiplies_them(config, random_params):
    """No stack of layers that it would have to cut, and no table that it would have to round."""
    model = dataclasses.replace(config.model, compute_dtype="bfloat16")
    config = dataclasses.replace(config, model=model)
    params = random_params(config)
    ids = jax.ShapeDtypeStruct((2, 8), "int32")
    module = build_model(model, 304)
    traced = jax.make_jaxpr(lambda params, ids: search(module, config, params, ids))(params, ids)
    loops = [each for each in equations(traced) if each.primitive.name == "while"]
    read = {(each.aval.shape, str(each.aval.dtype)) for loop in loops for each in loop.invars}
    d, f = model.d_model, model.d_ff
    assert ((d, f), "bfloat16") in read and ((304, d), "bfloat16") in read
    assert ((d, f), "float32") not in read
    assert not any(shape[:1] == (2,) and shape[-2:] == (d, f) for shape, _ in read)


def test_what_is_said_of_it():
    h100 = CHIPS["NVIDIA H100 80GB HBM3"]
    position = Position(
        room=32, bytes_moved=3350 * 10**6, weights=10**9, cache=10**8, kernels=161, operations=1e9
    )
    config = Config(decoding=DecodingConfig(beam_size=5))
    found = Search(config, SimpleNamespace(size=1), 128, 32, [position])
    said = "\n".join(describe_search(found, h100))
    assert "128 sentences" in said and "5 beams" in said
    assert "3.35 GB" in said and "1.10 GB" in said and "161" in said
    assert "at least 1.00 ms, so at most 128,000 target tokens/s" in said
    assert "at least" not in "\n".join(describe_search(found, None))


def test_a_program_is_chosen_for_a_dry_run_only():
    words = ["--config", "quickstart", "--program", "beam-search"]
    with pytest.raises(UserError, match="--program beam-search is for --dry-run"):
        parse_train_arguments(words)
    assert parse_train_arguments([*words, "--dry-run"]).program == "beam-search"
