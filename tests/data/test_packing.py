"""Rows and batches: every pair once, exactly as it was, and the same in every process."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.samples import draw_pairs, ragged

from flax_transformer.batch import Batch
from flax_transformer.config import BatchConfig, TextFiles, TokenizerConfig
from flax_transformer.data.corpus import open_corpus
from flax_transformer.data.packing import PackedRows, lay_out, select_pairs
from flax_transformer.data.pipeline import read_batches
from flax_transformer.data.token_cache import TokenizedPairs, tokenize_pairs
from flax_transformer.errors import UserError
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID
from flax_transformer.text.tokenizer_training import train_tokenizer

CONFIG = BatchConfig(rows=8, source_length=24, target_length=20)


def fresh_rows(seed=3) -> PackedRows:
    pairs = draw_pairs(203, shortest=2, longest=16, vocabulary_size=30_000)
    return PackedRows(pairs, select_pairs(pairs, CONFIG).kept, CONFIG, seed)


@pytest.fixture(scope="module")
def rows() -> PackedRows:
    return fresh_rows()


def digest(batches) -> str:
    """A hash of their content, for comparison with another process."""
    content = b"".join(np.ascontiguousarray(array).tobytes() for b in batches for array in b)
    return hashlib.sha256(content).hexdigest()


def assert_equal(a: Batch, b: Batch):
    for name, one, other in zip(Batch._fields, a, b, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


def unpack(batch: Batch) -> list[tuple]:
    """The (source, target) pairs in `batch`, after a look at everything that goes with them."""
    pairs = []
    for row in range(len(batch.source_ids)):
        row_of = Batch(*(array[row] for array in batch))
        for segment in range(1, row_of.source_segments.max() + 1):
            source = row_of.source_segments == segment
            target = row_of.target_segments == segment
            for place, positions in (
                (source, row_of.source_positions), (target, row_of.target_positions)
            ):  # fmt: skip
                np.testing.assert_array_equal(np.diff(np.flatnonzero(place)), 1)
                np.testing.assert_array_equal(positions[place], np.arange(place.sum()))
            outputs = row_of.target_outputs[target]
            np.testing.assert_array_equal(row_of.target_inputs[target], [BOS_ID, *outputs[:-1]])
            pairs.append((tuple(row_of.source_ids[source]), tuple(outputs)))
        assert row_of.target_segments.max() == row_of.source_segments.max()
        for array in row_of[:3]:
            assert (array[row_of.source_segments == 0] == 0).all()
        for array in row_of[3:]:
            assert (array[row_of.target_segments == 0] == 0).all()
    return pairs


def originals(rows: PackedRows) -> list[tuple]:
    return sorted((tuple(rows.pairs.source[i]), tuple(rows.pairs.target[i])) for i in rows.kept)


def test_lay_out():
    pairs = TokenizedPairs(
        ragged([[7, 8, EOS_ID], [9, EOS_ID], [5, EOS_ID]]),
        ragged([[17, EOS_ID], [18, 19, EOS_ID], [15, EOS_ID]]),
    )
    batch = lay_out(pairs, [np.array([2, 0]), np.array([], int), np.array([1])], 6, 5)
    assert batch.source_ids.tolist() == [[5, 1, 7, 8, 1, 0], [0] * 6, [9, 1, 0, 0, 0, 0]]
    assert batch.source_segments.tolist() == [[1, 1, 2, 2, 2, 0], [0] * 6, [1, 1, 0, 0, 0, 0]]
    assert batch.source_positions.tolist() == [[0, 1, 0, 1, 2, 0], [0] * 6, [0, 1, 0, 0, 0, 0]]
    assert batch.target_inputs.tolist() == [[2, 15, 2, 17, 0], [0] * 5, [2, 18, 19, 0, 0]]
    assert batch.target_outputs.tolist() == [[15, 1, 17, 1, 0], [0] * 5, [18, 19, 1, 0, 0]]
    assert batch.target_segments.tolist() == [[1, 1, 2, 2, 0], [0] * 5, [1, 1, 1, 0, 0]]
    assert batch.target_positions.tolist() == [[0, 1, 0, 1, 0], [0] * 5, [0, 1, 2, 0, 0]]
    assert all(array.dtype == np.int32 for array in batch)
    assert (PAD_ID, EOS_ID, BOS_ID) == (0, 1, 2)


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_holds_every_pair_once(rows, epoch):
    number = rows.template.num_rows
    members = [rows.pairs_of_row(epoch * number + place) for place in range(number)]
    np.testing.assert_array_equal(np.sort(np.concatenate(members)), rows.kept)
    for row in members:
        assert 0 < rows.pairs.source.lengths[row].sum() <= CONFIG.source_length
        assert 0 < rows.pairs.target.lengths[row].sum() <= CONFIG.target_length


def test_batches_hold_the_pairs_as_they_were(rows):
    """Also the batch across the end of the first epoch."""
    number = rows.template.num_rows
    assert number % CONFIG.rows, "no batch crosses the end of the epoch"
    steps = number // CONFIG.rows + 1
    unpacked = []
    for step in range(steps):
        batch = rows.batch(step)
        assert batch.source_ids.shape == (8, 24)
        assert batch.target_outputs.shape == (8, 20)
        unpacked.append(unpack(batch))
    seen = [pair for pairs in unpacked for pair in pairs]
    assert sorted(seen[: len(rows.kept)]) == originals(rows)
    assert len(seen) > len(rows.kept)
    assert set(seen[len(rows.kept) :]) < set(originals(rows))
    assert rows.steps_per_epoch == number / CONFIG.rows


def test_epochs_differ_in_order_and_company(rows):
    number = rows.template.num_rows
    first, second = (
        [tuple(sorted(rows.pairs_of_row(epoch * number + place))) for place in range(number)]
        for epoch in (0, 1)
    )
    assert first != second
    assert sum(a == b for a, b in zip(first, second, strict=True)) < number / 4
    assert len(set(first) & set(second)) < number / 2


def test_batches_depend_on_the_step_alone(rows):
    steps = [0, 3, 1, 17, 2, 17, 0]
    other = fresh_rows()
    for step in reversed(steps):
        other.batch(step)
    for step in steps:
        assert_equal(rows.batch(step), other.batch(step))
    assert digest([rows.batch(0)]) != digest([rows.batch(1)])
    assert digest([rows.batch(0)]) != digest([fresh_rows(seed=4).batch(0)])


def test_batches_are_the_same_in_another_process(rows):
    root = Path(__file__).parents[2]
    program = "import test_packing as t; r = t.fresh_rows(); print(t.digest(map(r.batch, (9, 0))))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": f"{root}:{root / 'tests'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == digest(map(rows.batch, (9, 0)))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_shares_of_processes_make_the_global_batch(rows, processes):
    share = CONFIG.rows // processes
    own = [slice(i * share, (i + 1) * share) for i in range(processes)]
    trained = [read_batches(rows, range(2, 7), each) for each in own]
    validated = [rows.once(each) for each in own]
    for readers, wholes in (trained, map(rows.batch, range(2, 7))), (validated, rows.once()):
        for *shares, whole in zip(*readers, wholes, strict=True):
            joined = Batch(*(np.concatenate(parts) for parts in zip(*shares, strict=True)))
            assert_equal(joined, whole)
            assert {len(share.source_ids) for share in shares} == {CONFIG.rows // processes}


def test_no_steps_no_batches(rows):
    assert list(read_batches(rows, range(7, 7), slice(None))) == []


def test_once_holds_every_pair_once(rows):
    batches = list(rows.once())
    assert all(batch.source_ids.shape == (8, 24) for batch in batches)
    assert len(batches) == -(-rows.template.num_rows // 8)
    assert sorted(pair for batch in batches for pair in unpack(batch)) == originals(rows)
    assert digest(batches) == digest(rows.once())


def test_dropped_pairs_are_counted_by_reason():
    source = [[5, 1], [1], [5, 1], [5] * 24, [5] * 23 + [1], [5, 1], [5] * 30, [5, 1]]
    target = [[6, 1], [6, 1], [1], [6, 1], [6] * 19 + [1], [6] * 21, [6] * 30, [6] * 19]
    source[3] = [5] * 18 + [1]  # nineteen to two
    pairs = TokenizedPairs(ragged(source), ragged(target))
    selection = select_pairs(pairs, CONFIG)
    assert selection.kept.tolist() == [0, 4]
    assert list(selection.dropped.values()) == [2, 2, 2]
    description = selection.describe()
    for part in ("2 pairs kept", "2 empty", "2 longer than 24 source or 20 target", "9 times"):
        assert part in description


def test_nothing_left_is_an_error():
    pairs = TokenizedPairs(ragged([[5] * 30, [1]]), ragged([[6, 1], [6, 1]]))
    with pytest.raises(UserError, match=r"no pair of validation is usable.*1 empty.*1 longer"):
        select_pairs(pairs, CONFIG, "validation")


def test_rows_are_full():
    """Sentences of 4 to 120 tokens, log-normal as in real text, sides of similar length."""
    random = np.random.default_rng(0)
    source = np.clip(random.lognormal(3.1, 0.5, 20_000), 4, 120).astype(int)
    target = np.clip(source * random.normal(1, 0.15, 20_000), 4, 120).astype(int)
    pairs = TokenizedPairs(*(ragged([range(n) for n in side]) for side in (source, target)))
    config = BatchConfig(source_length=256, target_length=256)
    rows = PackedRows(pairs, select_pairs(pairs, config).kept, config, seed=0)
    assert min(rows.fill) >= 0.95
    tokens = sum(int((rows.batch(step).target_segments > 0).sum()) for step in range(3))
    assert tokens / (3 * 100 * 256) >= 0.95


@pytest.mark.parametrize(
    ("name", "target_language", "source_length"),
    [("tatoeba.en-fr", "fr", 224), ("multi30k.tok", "de", 256)],
)
def test_rows_of_real_text_are_full(name, target_language, source_length, tmp_path):
    directory = Path(os.environ.get("FLAX_TRANSFORMER_TEST_DATA", "absent")) / name
    if not directory.is_dir():
        pytest.skip("no such text: FLAX_TRANSFORMER_TEST_DATA names the folder that holds it")
    data = TextFiles(
        directory=str(directory),
        source_language="en",
        target_language=target_language,
        test=("valid",),
    )
    text = open_corpus(data).split("train")
    settings = TokenizerConfig(vocabulary_size=8000, training_sentences=20_000)
    sentences = (side for pair in text for side in pair)
    tokenizer = train_tokenizer(sentences, settings, tmp_path / "tokenizer.model", 0)
    pairs = tokenize_pairs(text, tokenizer, name, tmp_path, name)
    config = BatchConfig(source_length=source_length, target_length=256)
    selection = select_pairs(pairs, config)
    rows = PackedRows(pairs, selection.kept, config, seed=0)
    print(name, selection.describe(), rows.fill)
    assert min(rows.fill) >= 0.95
