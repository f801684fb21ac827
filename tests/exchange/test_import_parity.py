"""Imported models against the transformers that made them: tokens, logits and translations."""

import json

import jax
import numpy as np
import pytest
from support.hugging_face import SENTENCES, write_m2m, write_marian

import flax_transformer as ft
from flax_transformer.batch import Batch
from flax_transformer.exchange.huggingface_config import read_config
from flax_transformer.exchange.huggingface_vocabulary import read_vocabulary
from flax_transformer.exchange.importing import import_model
from flax_transformer.text.tokenizer import BOS_ID, EOS_ID, PAD_ID

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.peer("torch", "transformers")

LINES = SENTENCES[::43]  # fifty
ODD = [
    "", " ", "\u00a0 two  spaces\t", "ﬁne ﬀ", "e\u0301", "한국어 東京", "😀👩‍👩‍👧", "▁under_score",
    ">>fra<< Hello", "<unknown>", "a" * 300, "\u200bzero\u200d", "İstanbul ǅ", "x²½", "\u2028",
]  # fmt: skip
KINDS = {
    "marian": (write_marian, {"languages": (">>fra<<", ">>deu<<")}),
    "marian, separate tables": (
        write_marian,
        {
            "share_encoder_decoder_embeddings": False,
            "tie_word_embeddings": False,
            "activation_function": "gelu",
            "languages": (">>fra<<",),
        },
    ),
    "m2m_100": (write_m2m, {}),
}


class Both:
    """A folder of transformers, opened there and here."""

    def __init__(self, kind: str, place):
        write, changed = KINDS[kind]
        folder = place / "theirs"
        self.vocabulary = write(folder, **changed)
        languages = ("en", "fr") if kind == "m2m_100" else (None, None)
        import_model(folder, place / "ours", *languages)
        self.ours = ft.load(place / "ours", extra_length=12)
        read = read_vocabulary(folder, read_config(folder), *languages)
        self.source_rows, self.target_rows = read.source_rows, read.target_rows
        if kind == "m2m_100":
            self.model = transformers.M2M100ForConditionalGeneration.from_pretrained(folder)
            files = folder / "vocab.json", folder / "sentencepiece.bpe.model"
            self.tokenizer = transformers.M2M100Tokenizer(
                *map(str, files), src_lang="en", tgt_lang="fr"
            )
        else:
            self.model = transformers.MarianMTModel.from_pretrained(folder)
            self.tokenizer = transformers.MarianTokenizer.from_pretrained(folder)
        self.model.eval()


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory):
    return Both(request.param, tmp_path_factory.mktemp("import"))


def test_tokens_are_those_of_transformers(both):
    tokenizer = both.ours.tokenizer
    for text in [*LINES, *ODD]:
        for own, rows, theirs in (
            (tokenizer, both.source_rows, both.tokenizer(text)),
            (tokenizer.target, both.target_rows, both.tokenizer(text_target=text)),
        ):
            (ids,) = own.encode([text])
            if ids:
                assert [rows[i] for i in [*ids, EOS_ID]] == theirs["input_ids"], text
            else:
                assert len(theirs["input_ids"]) == 1 + len(own.before), text


def test_logits_are_those_of_transformers(both):
    """Of rows with padding, where any of the two vocabularies has a token."""
    tokenizer = both.ours.tokenizer
    sources = [[*ids, EOS_ID] for ids in tokenizer.encode(LINES)]
    targets = [[*ids, EOS_ID] for ids in tokenizer.target.encode(LINES[::-1])]
    s, t = (max(map(len, rows)) for rows in (sources, targets))
    ids = np.array([row + [PAD_ID] * (s - len(row)) for row in sources])
    inputs = np.array([[BOS_ID, *row[:-1]] + [PAD_ID] * (t - len(row)) for row in targets])
    real = np.array([[1] * len(row) + [0] * (t - len(row)) for row in targets])
    source, seen = (ids != PAD_ID).astype(int), inputs != PAD_ID
    places = [np.broadcast_to(np.arange(n), (len(LINES), n)) for n in (s, t)]
    batch = Batch(ids, source, places[0], inputs, inputs, seen.astype(int), places[1])

    @jax.jit
    def logits(params):
        bound = both.ours.module.bind({"params": params})
        return bound.logits(bound(batch))

    ours = np.asarray(logits(both.ours.params))
    their_ids = np.array(both.source_rows)[ids]
    their_ids[ids == PAD_ID] = both.model.config.pad_token_id
    with torch.no_grad():
        theirs = both.model(
            input_ids=torch.from_numpy(their_ids),
            attention_mask=torch.from_numpy(source),
            decoder_input_ids=torch.from_numpy(np.array(both.target_rows)[inputs]),
        ).logits.numpy()
    rows = np.array(both.target_rows)
    kept = (rows >= 0) & (np.arange(len(rows)) != BOS_ID)
    assert kept.sum() >= theirs.shape[-1]
    difference = ours[..., kept] - theirs[..., rows[kept]]
    assert np.abs(difference[real > 0]).max() < 1e-4 * max(1, np.abs(theirs).max())


@pytest.mark.parametrize("beam_size", [1, 4])
def test_translations_are_those_of_transformers(both, beam_size):
    forced = both.model.config.model_type == "m2m_100"
    language = both.vocabulary["__fr__"] if forced else None
    config = both.model.config
    found = both.ours.search(LINES, beam_size=beam_size, n_best=1)
    inputs = both.tokenizer(LINES, return_tensors="pt", padding=True)
    assert inputs.attention_mask.min() == 0
    lengths = inputs.attention_mask.sum(dim=1) + 12

    def end(ids, scores):
        """Has a hypothesis end where ours must, with the probability of that."""
        longest = lengths.repeat_interleave(len(ids) // len(lengths))
        others = torch.arange(scores.shape[1]) != config.eos_token_id
        return scores.masked_fill((ids.shape[1] == longest)[:, None] & others[None], -torch.inf)

    theirs = both.model.generate(
        **inputs, num_beams=beam_size, early_stopping="never" if beam_size > 1 else None,
        max_new_tokens=int(lengths.max()), do_sample=False, length_penalty=1.0,
        suppress_tokens=[config.pad_token_id], forced_bos_token_id=language,
        forced_eos_token_id=None, logits_processor=[end],
    )  # fmt: skip
    texts = both.tokenizer.batch_decode(theirs, skip_special_tokens=True)
    # transformers leaves in the language, and the spaces of pieces that its SentencePiece lacks.
    texts = [text.removeprefix("__fr__").replace("▁", " ").strip() for text in texts]
    assert [hypotheses[0].text for hypotheses in found] == texts


def test_what_was_saved_as_a_pickle_is_the_same(both, tmp_path):
    if both.model.config.model_type != "marian":
        pytest.skip("one architecture is enough")
    from flax_transformer.exchange.pickled_tensors import read_pickled_tensors

    state = {name: tensor for name, tensor in both.model.state_dict().items()}
    state["half"] = torch.arange(6).reshape(2, 3).T.to(torch.bfloat16)  # strides, another type
    torch.save(state, tmp_path / "pytorch_model.bin")
    read = read_pickled_tensors(tmp_path / "pytorch_model.bin")
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(read[name].astype(np.float32), tensor.float().numpy())
    assert json.dumps(sorted(read))
