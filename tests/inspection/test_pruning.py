"""Which heads go, and the work directory that holds what is left."""

import dataclasses
import json
import re
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from support.samples import recurrent
from support.states import save_untrained_run

import flax_transformer as ft
from flax_transformer.api import model as model_module
from flax_transformer.commands import prune
from flax_transformer.data.builtin import generate
from flax_transformer.inspection import pruned_model
from flax_transformer.inspection.heads import HeadImportance, MaskedModel, each_head, measure_heads
from flax_transformer.inspection.pruning import remove_heads
from flax_transformer.training.run import Run

pytestmark = pytest.mark.usefixtures("quick")

PAIRS = sorted(generate(400)["validation"], key=lambda pair: len("".join(pair)))[:4]
SOURCES, REFERENCES = ([pair[side] for pair in PAIRS] for side in (0, 1))


class MadeUpModel:
    """A model of twelve heads that is the worse the more heads are masked, in `loss` and `bleu`."""

    def __init__(self, seed: int):
        random = np.random.default_rng(seed)
        self.all = {kind: np.ones((2, 2), np.float32) for kind in ("encoder", "decoder", "cross")}
        # Each head knows some of 40 facts, and one of its own; the loss is the weight of those that
        # no head knows.
        self._known = {
            head: np.concatenate([random.random(40) < 0.3, np.arange(12) == number])
            for number, head in enumerate(each_head(self.all))
        }
        self._weights = random.random(52)
        self.measured = 0

    def loss(self, masks) -> float:
        self.measured += 1
        known = np.any([self._known[head] for head in each_head(masks)], axis=0)
        return float(self._weights[~known].sum())

    def bleu(self, masks) -> float:
        return 100 - 10 * self.loss(masks)

    def importance(self) -> HeadImportance:
        whole = self.loss(self.all)
        rise = {kind: np.zeros((2, 2)) for kind in self.all}
        for kind, place in each_head(self.all):
            rise[kind][place] = self.loss(self.without(self.all, kind, place)) - whole
        return HeadImportance(
            loss=rise, bleu=rise, sensitivity=rise, whole_loss=whole, whole_bleu=100 - 10 * whole
        )

    @staticmethod
    def without(masks, kind, place):
        changed = {**masks, kind: masks[kind].copy()}
        changed[kind][place] = 0
        return changed


@pytest.mark.parametrize("seed", range(4))
def test_the_head_that_goes_is_the_one_missed_least(seed):
    model = MadeUpModel(seed)
    importance = model.importance()
    model.measured = 0
    stages = remove_heads(model, importance, heads=1).stages
    assert [stage.left for stage in stages] == list(range(12, 0, -1))
    assert model.measured < 60  # of 77 that would be measured if every head were, every time
    masks = model.all
    for stage in stages[1:]:
        tried = [model.without(masks, *head) for head in each_head(masks)]
        masks = min(tried, key=model.loss)
        assert stage.loss == pytest.approx(model.loss(masks))


def test_heads_go_until_too_much_bleu_is_lost():
    model = MadeUpModel(0)
    importance = model.importance()
    stages = remove_heads(model, importance, heads=1).stages
    lost = [stages[0].bleu - stage.bleu for stage in stages]
    pruning = remove_heads(model, importance, max_loss=lost[5] + 1e-6)
    assert pruning.chosen.left == 7 and len(pruning.stages) == 8  # two more, in vain
    with pytest.raises(ft.UserError, match=r"no head can go for 0 BLEU: .* is lost\. Allow more"):
        remove_heads(model, dataclasses.replace(importance, whole_bleu=101.0), max_loss=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 12}, "heads is 12, but the model has 12: use 1 to 11"),
        ({"heads": 0}, "heads is 0"),
        ({"max_loss": -1.0}, "max_loss is -1.0, but must not be negative"),
    ],
)
def test_wrong_numbers_are_named(options, message):
    model = MadeUpModel(0)
    with pytest.raises(ft.UserError, match=message):
        remove_heads(model, model.importance(), **options)


@pytest.fixture(scope="module")
def config(small_config) -> ft.Config:
    model = dataclasses.replace(small_config.model, num_decoder_layers=1, num_heads=2)
    return dataclasses.replace(
        small_config,
        model=model,
        data=ft.Builtin(num_pairs=400),
        batch=ft.BatchConfig(rows=4, source_length=48, target_length=56),
        training=ft.TrainingConfig(steps=2, validation_sentences=4),
        decoding=ft.DecodingConfig(
            beam_size=1, extra_length=2, batch_tokens=128, max_source_length=32
        ),
    )


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    folder.mkdir()
    texts = [text for pair in generate(400)["train"] for text in pair]
    save_untrained_run(folder, config, texts, steps=(1000, 2000))
    return folder


@pytest.fixture(scope="module")
def whole(workdir) -> ft.Model:
    return ft.load(workdir)


@pytest.fixture(scope="module")
def masked(whole) -> MaskedModel:
    return MaskedModel(whole, SOURCES, REFERENCES)


@pytest.fixture(scope="module")
def command(workdir, tmp_path_factory) -> tuple[Path, str]:
    """The work directory that `prune` makes of the other, with 4 of 8 heads, and what it says."""
    output = tmp_path_factory.mktemp("runs") / "pruned"
    words = ["--workdir", workdir, "--output", output, "--heads", "4", "--sentences", "4"]
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda *text, **_: said.extend(text))
        prune.main(list(map(str, words)))
    return output, "\n".join(said)


@pytest.fixture(scope="module")
def pruned(command) -> ft.Model:
    return ft.load(command[0])


def masks_of(folder: Path, masked: MaskedModel) -> dict[str, np.ndarray]:
    masks = {kind: np.zeros_like(mask) for kind, mask in masked.all.items()}
    for kind, layers in json.loads((folder / "heads.json").read_text())["kept"].items():
        for layer, heads in enumerate(layers):
            masks[kind][layer, heads] = 1
    return masks


def test_importance_is_what_is_lost_without_the_head(masked):
    importance = measure_heads(masked)
    masks = MadeUpModel.without(masked.all, "encoder", (1, 0))
    rise = masked.loss(masks) - masked.loss(masked.all)
    assert importance.loss["encoder"][1, 0] == pytest.approx(rise, abs=1e-6) and rise != 0
    fall = masked.bleu(masked.all) - masked.bleu(masks)
    assert importance.bleu["encoder"][1, 0] == pytest.approx(fall)
    assert {kind: array.shape for kind, array in importance.loss.items()} == {
        "encoder": (2, 2), "decoder": (1, 2), "cross": (1, 2),
    }  # fmt: skip


def test_sensitivity_is_the_slope_of_the_loss(whole):
    masked = MaskedModel(whole, SOURCES[:1], REFERENCES[:1])  # one row, of which it is the slope
    found = masked.sensitivity(masked.all)
    for kind, place in [("encoder", (0, 1)), ("cross", (0, 0))]:
        losses = []
        for value in (0.99, 1.01):
            masks = {**masked.all, kind: masked.all[kind].copy()}
            masks[kind][place] = value
            losses.append(masked.loss(masks))
        slope = abs(losses[1] - losses[0]) / 0.02
        assert found[kind][place] == pytest.approx(slope, rel=0.05) and slope > 1e-5


def test_the_pruned_model_is_the_masked_one(command, pruned, masked):
    masks = masks_of(command[0], masked)
    assert sum(mask.sum() for mask in masks.values()) == 4
    left = MaskedModel(pruned, SOURCES, REFERENCES)
    assert {kind: mask.sum() for kind, mask in left.all.items()} == {
        kind: mask.sum() for kind, mask in masks.items()
    }
    assert left.loss(left.all) == pytest.approx(masked.loss(masks), abs=1e-5)
    params = masked._mask(masked._model.params, masks)
    found = masked._model.translator.translate(params, SOURCES)
    assert pruned.translate(SOURCES) == [best.text for best, *_ in found]


def test_the_pruned_model_says_where_it_comes_from(command, pruned, whole, workdir):
    output, said = command
    assert pruned.steps == [2000] and pruned.config.training.start_from == str(workdir)
    assert pruned.progress.start["directory"] == str(workdir)
    assert pruned.progress.start["steps"] == [1000, 2000]
    assert pruned.progress.tokenizer == whole.progress.tokenizer
    record = json.loads((output / "heads.json").read_text())
    assert [stage["heads"] for stage in record["stages"]] == [8, 7, 6, 5, 4]
    assert (output / "heads.png").read_bytes().startswith(b"\x89PNG")
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(m.params)) for m in (whole, pruned)]
    assert sizes[1] < sizes[0]
    assert "4 of 8 heads removed: BLEU" in said and f"{sizes[0]:,} -> {sizes[1]:,}" in said
    assert len(re.findall(r"^  \w.*attention, layer \d", said, re.MULTILINE)) == 2 * 4


def test_a_run_can_start_from_it_but_not_go_on(command, pruned, tmp_path):
    output, said = command
    flags = dict(re.findall(r"--model\.(\w+)-heads (\d)", said))
    heads = {f"{kind}_heads": int(count) for kind, count in flags.items()}
    assert heads == {
        name: count
        for name in ("encoder_heads", "decoder_heads", "cross_heads")
        if (count := getattr(pruned.config.model, name)) is not None
    }
    with Run(pruned.config, tmp_path / "tuned", start_from=pruned) as run:
        chex.assert_trees_all_equal(jax.device_get(run.state.params), jax.device_get(pruned.params))
    with pytest.raises(ft.UserError, match=f"holds a pruned model.* --start-from {output}"):
        Run(pruned.config, output)


def test_it_appears_whole_or_not_at_all(workdir, command, masked, whole, tmp_path, monkeypatch):
    with pytest.raises(ft.UserError, match="exists already"):
        prune.main(["--workdir", str(workdir), "--output", str(command[0])])
    importance = measure_heads(masked)
    pruning = remove_heads(masked, importance, heads=7)
    output = tmp_path / "pruned"

    def fail(*_):
        raise OSError

    monkeypatch.setattr(pruned_model, "write_parameters", fail)
    with pytest.raises(OSError):
        pruned_model.write_pruned(output, whole, importance, pruning)
    assert list(tmp_path.iterdir()) == []


def test_python_does_what_the_command_does(whole, masked, tmp_path, monkeypatch):
    monkeypatch.setattr(model_module, "MaskedModel", lambda *_: masked)  # which has been compiled
    importance = whole.head_importance(SOURCES, REFERENCES)
    chex.assert_trees_all_close(importance.loss, measure_heads(masked).loss, atol=1e-6)
    assert "decoder self-attention up to" in importance.plot().alt
    model = whole.prune(tmp_path / "pruned", SOURCES, REFERENCES, heads=7)
    assert model.workdir == tmp_path / "pruned" and len(model.translate(SOURCES)) == 4
    with pytest.raises(ft.UserError, match="exists already"):
        whole.prune(tmp_path / "pruned", SOURCES, REFERENCES, heads=7)


def test_a_recurrent_model_is_refused(whole, small_config, monkeypatch):
    monkeypatch.setattr(whole, "config", recurrent(small_config, "multi_head"))
    with pytest.raises(ft.UserError, match=r"the model is recurrent \(model\.cell lstm\)"):
        MaskedModel(whole, SOURCES, REFERENCES)
