"""The decoding benchmark as a command, at a size that says nothing about speed."""

import ctypes
import dataclasses
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.config import Config, DecodingConfig
from flax_transformer.errors import UserError
from flax_transformer.text.tokenizer import EOS_ID, PAD_ID

ROOT = Path(__file__).parents[2]
TINY = (
    "--model.num-encoder-layers 1 --model.num-decoder-layers 2 --model.d-model 16 "
    "--model.num-heads 2 --model.d-ff 32 --tokenizer.vocabulary-size 300 "
    "--decoding.batch-tokens 256 --decoding.beam-size 2 --decoding.max-source-length 32 "
    "--decoding.extra-length 8 --sentences 16 --repeats 1"
)


@pytest.fixture
def decode(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.decode import __main__

    return __main__


@pytest.mark.slow
def test_the_command_measures_and_records(decode, tmp_path, capsys):
    record = tmp_path / "folder" / "record.json"
    decode.main([*TINY.split(), "--record", str(record), "--note", "tiny"])
    (entry,) = json.loads(record.read_text())
    assert entry["note"] == "tiny"
    entry = entry["figures"]
    assert entry["parameters"] > 0 and not entry["trained"]
    cache, full = entry["results"]["cache"], entry["results"]["full pass"]
    assert cache["target_tokens"] > full["target_tokens"] > 0
    assert full["batches"] == 1 < cache["batches"]
    assert len(cache["seconds_of_repeats"]) == 1 and full["cache_is_faster"] > 0
    assert "target tokens/s" in capsys.readouterr().out


@pytest.mark.slow
def test_searches_with_and_without_cache_find_the_same(decode):
    arguments = decode.parse([*TINY.split(), "--model.compute-dtype", "float32"])
    config = arguments.settings
    params = decode.parameters(arguments)
    ids = np.full((3, 32), PAD_ID, np.int32)
    for row, length in zip(ids, (8, 5, 2), strict=True):
        row[:length] = [*range(20, 19 + length), EOS_ID]
    from benchmarks.decode.contenders import search

    found = [
        search(config, with_cache, params, jnp.asarray(ids), jnp.int32(40))
        for with_cache in (True, False)  # through two stages
    ]
    np.testing.assert_array_equal(found[0].ids, found[1].ids)
    np.testing.assert_allclose(found[0].scores, found[1].scores, rtol=1e-4)


@pytest.mark.peer("ctranslate2")
def test_ctranslate2_runs_the_same_model(decode, monkeypatch):
    from benchmarks.decode.contenders import search

    flags = [*TINY.split(), "--model.compute-dtype", "float32", "--decoding.beam-size", "1"]
    arguments = decode.parse(flags)
    config, params = arguments.settings, decode.parameters(arguments)
    sources = decode.made_up_sources(config, 8, None)
    batch = decode.batches_of(config, sources, fixed_length=True)[0]
    ours = search(config, True, params, jnp.asarray(batch.ids), jnp.int32(batch.longest))

    from benchmarks.decode.peers.ctranslate2 import CTranslate2Model

    rows = [[index for index in row if index != PAD_ID] for row in batch.ids.tolist()]
    model = CTranslate2Model(config, params, "float32", threads=1)
    theirs = model.translate(rows, 1, batch.shortest, batch.longest)
    for row, other in zip(np.asarray(ours.ids)[:, 0].tolist(), theirs, strict=True):
        assert row[: batch.longest - 1] == other[: batch.longest - 1]


@pytest.mark.peer("ctranslate2")
def test_a_vocabulary_map_holds_what_translates_what(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.decode.peers.ctranslate2 import candidates_of

    found = candidates_of([([10, 11], [20, 21]), ([10, 12], [20, 22]), ([12], [22])], 1, 1)
    assert found[10] == [20] and found[12] == [22] and found[None][-1] in (20, 22)


@pytest.mark.slow
def test_sentences_one_at_a_time(decode, tmp_path):
    record = tmp_path / "record.json"
    flags = ["--one-at-a-time", "--full-pass-batches", "0", "--record", str(record)]
    decode.main([*TINY.split(), *flags])
    (entry,) = json.loads(record.read_text())
    figures = entry["figures"]
    assert figures["one_at_a_time"] and figures["results"]["cache"]["batches"] == 16


def test_batches_hold_every_sentence_in_few_shapes(decode):
    config = dataclasses.replace(
        Config(), decoding=DecodingConfig(batch_tokens=512, max_source_length=64)
    )
    sources = decode.made_up_sources(config, 200, None)
    batches = decode.batches_of(config, sources, fixed_length=True)
    rows = [[index for index in row if index != PAD_ID] for b in batches for row in b.ids.tolist()]
    assert sorted(rows) == sorted(sources)
    assert {b.ids.shape[1] for b in batches} <= {16, 32, 64}
    assert all(b.shortest == b.longest <= b.ids.shape[1] for b in batches)
    assert 25 < np.mean([len(source) for source in sources]) < 35


def refuse(name: str):
    """As `ctypes.CDLL` where the library is missing."""
    raise OSError(f"{name}: no such file")


def test_what_cannot_be_measured_is_said_before_any_work(decode, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(UserError, match="pip install ctranslate2"):
        decode.main([*TINY.split(), "--peer", "ctranslate2"])
    with_gpu = SimpleNamespace(get_cuda_device_count=lambda: 1)
    monkeypatch.setitem(sys.modules, "ctranslate2", with_gpu)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    with pytest.raises(UserError, match=r"libcublas\.so\.12: no such file; pip install"):
        decode.main([*TINY.split(), "--peer", "ctranslate2"])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="--source"):
        decode.main([*TINY.split(), "--workdir", str(tmp_path)])
    with pytest.raises(UserError, match="--vocabulary-map needs --workdir"):
        decode.parse([*TINY.split(), "--vocabulary-map", "a.en", "a.fr"])
    with pytest.raises(UserError, match="coverage_penalty"):
        decode.parse([*TINY.split(), "--decoding.coverage-penalty", "1"])
