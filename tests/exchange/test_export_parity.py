"""What was exported, opened by transformers: the same tokens and translations as before."""

import pytest
from support.hugging_face import SENTENCES, write_m2m, write_marian, write_nllb

import flax_transformer as ft
from flax_transformer.exchange.exporting import export_model
from flax_transformer.exchange.importing import import_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.peer("torch", "transformers")

LINES = SENTENCES[::90]


@pytest.mark.parametrize(
    ("write", "languages", "first", "kind"),
    [
        (write_marian, (), None, "MarianMTModel"),
        (write_m2m, ("en", "fr"), "__fr__", "M2M100ForConditionalGeneration"),
        (write_nllb, ("eng_Latn", "fra_Latn"), "fra_Latn", "M2M100ForConditionalGeneration"),
    ],
    ids=["marian", "m2m_100", "nllb"],
)
def test_transformers_translates_as_before(write, languages, first, kind, tmp_path):
    vocabulary = write(tmp_path / "theirs")
    import_model(tmp_path / "theirs", tmp_path / "ours", *languages)
    export_model(ft.load(tmp_path / "ours"), tmp_path / "out", "huggingface")
    inputs, translations = [], []
    for folder, forced in (("theirs", {"forced_bos_token_id": vocabulary.get(first)}), ("out", {})):
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / folder)
        model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / folder).eval()
        assert type(model).__name__ == kind
        both = tokenizer(LINES, text_target=LINES[::-1], return_tensors="pt", padding=True)
        with torch.no_grad():
            found = model.generate(
                **{name: both[name] for name in ("input_ids", "attention_mask")}, **forced,
                num_beams=2, max_new_tokens=12, bad_words_ids=[[model.config.pad_token_id]],
            )  # fmt: skip
            logits = model(**both).logits
        inputs.append(both)
        translations.append((found, logits))
    for name in inputs[0]:
        assert torch.equal(inputs[0][name], inputs[1][name]), name
    for one, other in zip(*translations, strict=True):
        assert torch.equal(one, other)
    assert (inputs[0]["input_ids"] != inputs[0]["labels"][:, :1]).any()
